"""The output of a job as lines of a view that scrolls: its end, and what comes. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from sysadmd.ctl.program_text import harmless

# Lines that are kept; above, the first are let go.
LINES_KEPT: Final = 5000
# Characters of a line; a longer one is shown as several, so that each fits on a small screen.
LINE_LENGTH: Final = 200
# Characters of a line that has not ended and may still be written over.
OPEN_KEPT: Final = 4096
# How much of the output that there is already is fetched; bytes.
FIRST_PART: Final = 128 * 1024


class LogLines:
    """What is kept of a log. Lines are numbered from where the view began; first: that kept."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._open = ""
        self.first = 0
        # Said above all: what it is; nothing fetched yet; what went wrong.
        self.note = "..."

    @property
    def end(self) -> int:
        """The number behind the last line."""
        return self.first + len(self._lines) + bool(self._open)

    def line(self, number: int) -> str:
        """A line that is kept, harmless."""
        index = number - self.first
        return self._lines[index] if index < len(self._lines) else _harmless(self._open)

    def add(self, text: str) -> None:
        """Add output as it comes, in parts that may end anywhere."""
        *whole, rest = (self._open + text).replace("\r\n", "\n").split("\n")
        for line in whole:
            self._keep(line)
        self._open = rest
        if len(rest) > OPEN_KEPT:
            self.close()

    def close(self) -> None:
        """What comes next begins a line."""
        if self._open:
            self._keep(self._open)
        self._open = ""

    def rule(self, text: str) -> None:
        """Add a line that is not output: between commands, at the end."""
        self.close()
        self._keep(f"--- {text}")

    def _keep(self, line: str) -> None:
        # Of what is too long for a line the program's text makes several.
        for shown in _harmless(line, cut=False).split("\n"):
            for at in range(0, max(len(shown), 1), LINE_LENGTH):
                self._lines.append(shown[at : at + LINE_LENGTH])
        while len(self._lines) > LINES_KEPT:
            self._lines.popleft()
            self.first += 1


def _harmless(line: str, *, cut: bool = True) -> str:
    """A line as a terminal would leave it: what was written over it last."""
    shown = harmless(line, colours=False).expandtabs()
    return shown[:LINE_LENGTH] if cut else shown


def beginning(sizes: Sequence[int], current: int, most: int = FIRST_PART) -> tuple[int, int]:
    """At which command, and which byte of its log, the last `most` bytes begin.

    sizes: of each command's log; current: the last command that has begun.
    """
    number, left = current, most
    while number > 0 and sizes[number] < left:
        left -= sizes[number]
        number -= 1
    return number, max(0, sizes[number] - left) if sizes else 0
