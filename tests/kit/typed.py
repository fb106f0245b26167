"""A program on a terminal of its own, with a test as who sits at it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import termios
from collections.abc import Generator
from contextlib import contextmanager

from tests.kit.ctl import Ctl
from tests.kit.processes import ended
from tests.kit.waiting import DEADLINE, wait_for

# Makes its input the terminal that Ctrl-C and questions for passwords come from.
_SIT_DOWN = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "


class Typed:
    """What is shown, and typing."""

    def __init__(self, leader: int, process: subprocess.Popen[str]) -> None:
        self._leader = leader
        self._process = process
        self.shown = ""
        self._seen = 0

    def until(self, text: str) -> None:
        """Read on until this was shown, behind what was waited for before."""
        while (found := self.shown.find(text, self._seen)) < 0:
            assert self._read(), f"{text!r} was not shown: {self.shown!r}"
        self._seen = found + len(text)

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._leader, text.encode())

    def wait_for_hidden(self) -> None:
        """Wait until what is typed is not shown."""
        wait_for(lambda: not self.echoes, "the terminal to show nothing")

    @property
    def echoes(self) -> bool:
        """Does the terminal show what is typed?"""
        return bool(termios.tcgetattr(self._leader)[3] & termios.ECHO)

    def end(self) -> int:
        """Read all of the rest; the exit status."""
        while self._read():
            pass
        return self._process.wait(DEADLINE)

    def _read(self) -> bool:
        assert select.select([self._leader], [], [], DEADLINE)[0], f"no more: {self.shown!r}"
        try:
            more = os.read(self._leader, 65536)
        except OSError:
            # Source: pty(7): nobody has the other end any more.
            return False
        self.shown += more.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(more)


@contextmanager
def at_terminal(ctl: Ctl, *arguments: str, **more: str) -> Generator[Typed]:
    """`sysadmctl` with all of its streams on a terminal. more: environment."""
    leader, follower = pty.openpty()
    try:
        try:
            process = subprocess.Popen(
                ctl.command(*arguments, before=_SIT_DOWN),
                stdin=follower,
                stdout=follower,
                stderr=follower,
                text=True,
                env=ctl.environment({"TERM": "xterm-256color", **more}),
                cwd="/",
                start_new_session=True,
            )
        finally:
            # Else it would have no end.
            os.close(follower)
        with ended(process):
            yield Typed(leader, process)
    finally:
        os.close(leader)
