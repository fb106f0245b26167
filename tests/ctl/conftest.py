"""`sysadmctl` as a program, for every test of it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUIET
from tests.daemon import DEADLINE, ROOT, Daemon

MAIN = "from sysadmd.ctl import main; main()"


class Ctl:
    """Runs `sysadmctl` with a home of its own, away from the caller's terminal."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        away = ("SYSADMCTL_TOKEN", "SYSADMD_STATE_DIR", "NO_COLOR", "XDG_CONFIG_HOME")
        kept = {key: value for key, value in os.environ.items() if key not in away}
        return {**kept, "PYTHONPATH": str(ROOT), "HOME": str(self.home), **more}

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
            [sys.executable, "-c", before + MAIN, *arguments],
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


@pytest.fixture
def ctl(tmp_path: Path) -> Ctl:
    home = tmp_path / "home"
    home.mkdir()
    return Ctl(home)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A running daemon for the tests that leave nothing behind that others mind."""
    with Daemon(tmp_path_factory.mktemp("shared") / "state", QUIET) as daemon:
        yield daemon
