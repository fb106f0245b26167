"""`sysadmctl` as a program, for every test of it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from tests.kit.daemon import ROOT
from tests.kit.processes import ended
from tests.kit.waiting import DEADLINE

_MAIN = "from sysadmd.ctl import main; main()"


class Ctl:
    """Runs `sysadmctl` with a home of its own, away from the caller's terminal."""

    def __init__(self, home: Path, *options: str) -> None:
        """options: those of every command."""
        self.home = home
        self.options = options

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """What it sees. more: of that test."""
        login = ("SYSADMCTL_TOKEN", "SYSADMCTL_PROFILE")
        sizes = ("COLUMNS", "LINES")
        away = (*login, *sizes, "SYSADMD_STATE_DIR", "NO_COLOR", "XDG_CONFIG_HOME")
        kept = {key: value for key, value in os.environ.items() if key not in away}
        return {**kept, "PYTHONPATH": str(ROOT), "HOME": str(self.home), **more}

    def command(self, *arguments: str, before: str = "") -> list[str]:
        """The program and its arguments. before: Python to run first."""
        return [sys.executable, "-c", before + _MAIN, *self.options, *arguments]

    def __call__(
        self,
        *arguments: str,
        text: str = "",
        out: Any = subprocess.PIPE,
        before: str = "",
        **more: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end. before: Python to run first; more: environment."""
        return subprocess.run(
            self.command(*arguments, before=before),
            input=text,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            check=False,
            env=self.environment(more),
            cwd="/",
            start_new_session=True,
        )

    def started(
        self, *arguments: str, errors: int | IO[str] = subprocess.PIPE
    ) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
        """Start it: the process, which is killed at the end. errors: where those go."""
        process = subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=self.environment({}),
            cwd="/",
            start_new_session=True,
        )
        return ended(process)

    def on_terminal(self, *arguments: str, **more: str) -> str:
        """What it prints on a terminal."""
        leader, follower = pty.openpty()
        try:
            done = self(*arguments, out=follower, TERM="xterm-256color", **more)
            assert done.returncode == 0, done.stderr
            os.write(follower, b"<end>")
            shown = b""
            while not shown.endswith(b"<end>"):
                shown += os.read(leader, 65536)
        finally:
            os.close(follower)
            os.close(leader)
        return shown.decode().removesuffix("<end>")


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """The JSON objects that it printed."""
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
