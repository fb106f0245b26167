"""The terminal that `sysadmctl top` fills, and gives back as it was. Decides nothing.

Only what nearly every terminal has is used: moving, erasing, eight colours; what one does not
know of the rest (an alternate screen, a hidden cursor) it ignores.
"""

from __future__ import annotations

import contextlib
import os
import select
import termios
from types import TracebackType
from typing import Final, Self

from sysadmd.ctl.top.screen import Line

# An alternate screen, no cursor, and what is too long ends at the edge.
_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[0m\x1b[2J"
# Where there is no alternate screen, the prompt comes below what was shown.
_LEAVE: Final = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[{rows};1H\x1b[2K\x1b[?1049l"
_PLAIN: Final = {"": "0", "bold": "0;1", "dim": "0;2", "reverse": "0;7"}
_COLOURS: Final = {
    **{"red": "0;31", "green": "0;32", "yellow": "0;33", "cyan": "0;36"},
    "bright_red": "0;91",
}
# What a terminal that does not say has.
_COLUMNS, _ROWS = 80, 24
# How long a terminal that takes nothing is waited for when it is given back; ms.
_PATIENCE: Final = 1000


class FullTerminal:
    """A terminal that is ours alone. Use as a context; it is restored at its end."""

    def __init__(self, reads: int, writes: int, encoding: str, *, coloured: bool) -> None:
        """reads, writes: descriptors of the terminal."""
        self.reads = reads
        self._writes = writes
        self._encoding = encoding
        self._styles = {**_PLAIN, **(_COLOURS if coloured else {})}
        self._before: list[object] | None = None
        # The rows that are there now; None: nothing is known of them.
        self._there: list[str] | None = None

    def enter(self) -> None:
        """Take it, or take it again. Raises: OSError if it is gone."""
        try:
            before = termios.tcgetattr(self.reads)
            mode = termios.tcgetattr(self.reads)
            # Keys come one by one, unseen. Ctrl-C and Ctrl-Z remain; Ctrl-S would stop us.
            mode[3] &= ~(termios.ICANON | termios.ECHO)
            mode[0] &= ~(termios.IXON | termios.ICRNL)
            mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self.reads, termios.TCSADRAIN, mode)
        except termios.error as error:
            raise OSError(*error.args) from error
        if self._before is None:
            self._before = before
        self._there = None
        self._write(_ENTER)

    def leave(self) -> None:
        """Give it back as it was; harmless if it is not ours or gone."""
        before, self._before = self._before, None
        if before is None:
            return
        with contextlib.suppress(OSError):
            if self._is_ready(_PATIENCE):
                self._write(_LEAVE.format(rows=self.size()[1]))
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self.reads, termios.TCSANOW, before)  # type: ignore[arg-type]

    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(self._writes)
            if columns > 0 and rows > 0:
                return columns, rows
        return _COLUMNS, _ROWS

    def forget(self) -> None:
        """What is there may be anything: show all of it the next time."""
        self._there = None

    def show(self, lines: list[Line]) -> bool:
        """Write the rows that differ from those that are there; False: it takes nothing now.

        Raises: OSError if it is gone.
        """
        if not self._is_ready(0):
            return False
        rows = [self._row(line) for line in lines]
        known = self._there is not None and len(self._there) == len(rows)
        old = self._there if known and self._there is not None else [None] * len(rows)
        parts = [] if known else ["\x1b[2J"]
        for number, (row, before) in enumerate(zip(rows, old, strict=True), 1):
            if row != before:
                # Erased before: behind a full row its last column would be.
                parts.append(f"\x1b[{number};1H\x1b[0m\x1b[K{row}\x1b[0m")
        self._there = rows
        if parts:
            self._write("".join(parts))
        return True

    def _row(self, line: Line) -> str:
        return "".join(
            f"\x1b[{self._styles.get(piece.style, '0')}m{piece.text}" for piece in line
        )

    def _is_ready(self, patience: int) -> bool:
        poll = select.poll()
        poll.register(self._writes, select.POLLOUT)
        return bool(poll.poll(patience))

    def _write(self, text: str) -> None:
        data = text.encode(self._encoding, "replace")
        while data:
            data = data[os.write(self._writes, data) :]

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()
