"""A terminal as people have it: tmux draws it, and says what is on it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kit.daemon import ROOT
from tests.kit.needs import needs
from tests.kit.waiting import DEADLINE, wait_for

_CTL = [sys.executable, "-c", "from sysadmd.ctl import main; main()"]


class Tmux:
    """A tmux of its own with a shell in it. Use as a context; it is ended with all in it."""

    def __init__(self, directory: Path, columns: int, rows: int) -> None:
        """directory: for its socket and the shell."""
        needs("tmux")
        self._socket = directory / "tmux"
        self._directory = directory
        self._size = ["-x", str(columns), "-y", str(rows)]

    def run(self, *arguments: str) -> str:
        """What a command of tmux prints."""
        away = ("TMUX", "NO_COLOR", "SYSADMCTL_TOKEN", "SYSADMD_STATE_DIR", "XDG_CONFIG_HOME")
        kept = {key: value for key, value in os.environ.items() if key not in away}
        more = {"PYTHONPATH": str(ROOT), "HOME": str(self._directory), "PS1": "$ "}
        return subprocess.run(
            ["tmux", "-S", str(self._socket), "-f", "/dev/null", *arguments],
            env={**kept, **more, "LC_ALL": "C.UTF-8", "TERM": "xterm"},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=True,
        ).stdout

    def screen(self) -> str:
        """What is on the screen."""
        return self.run("capture-pane", "-p")

    def sees(self, *texts: str, seconds: float = 60.0) -> str:
        """The screen, once all these texts are on it; not later than in so many seconds."""

        def look() -> str:
            there = self.screen()
            return there if all(text in there for text in texts) else ""

        return wait_for(look, f"{texts} on the screen", seconds)

    def types(self, *keys: str) -> None:
        """Press keys, by tmux's names of them."""
        self.run("send-keys", *keys)

    def types_line(self, line: str) -> None:
        """Type a line into the shell."""
        self.run("send-keys", "-l", "--", line)
        self.types("Enter")

    def starts_ctl(self, options: Sequence[str], *arguments: str) -> None:
        """Start `sysadmctl` in the shell, which tells its status as `status N.`."""
        command = shlex.join([*_CTL, *options, *arguments])
        script = self._directory / "start"
        script.write_text(f"{command}\necho status $?.\n")
        self.types_line(". ./start")

    def resizes(self, columns: int, rows: int) -> None:
        """Make it another size."""
        self.run("resize-window", "-x", str(columns), "-y", str(rows))

    def __enter__(self) -> Self:
        shell = ["-c", str(self._directory), "/bin/sh"]
        self.run("new-session", "-d", *self._size, *shell)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.run("kill-server")
