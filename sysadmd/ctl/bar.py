"""Lines at the bottom of a terminal that show how far jobs are. No connection, no output.

What a server says may be of any form: what makes no sense is no progress, and never an error.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from sysadmd.text import printable

# Columns between the brackets; those of a terminal that does not say how wide it is.
_LENGTH: Final = 20
_COLUMNS: Final = 80
# Characters of a text that are looked at: no line is longer.
_LOOKED_AT: Final = 512
# Jobs that are shown at once, each in a line; of more there is one line together.
MOST_SHOWN: Final = 4
# To the line above. Source: ECMA-48, 8.3.22.
_UP: Final = "\x1b[A"


@dataclass(frozen=True, slots=True, kw_only=True)
class HowFar:
    """How far a job is. percent: 0 to 100; package: the one in work; total: 0: unknown."""

    percent: int
    phase: str = ""
    package: str = ""
    done: int = 0
    total: int = 0

    @staticmethod
    def read(fields: object) -> HowFar | None:
        """What the fields of a job say; None: nothing that can be shown."""
        said = mapping(mapping(fields).get("progress"))
        percent = said.get("percent")
        if isinstance(percent, bool) or not isinstance(percent, int | float):
            return None
        if isinstance(percent, float) and not math.isfinite(percent):
            return None
        return HowFar(
            percent=max(0, min(100, int(percent))),
            phase=_text(said.get("phase")),
            package=_text(said.get("package")),
            done=_count(said.get("done")),
            total=_count(said.get("total")),
        )

    @property
    def doing(self) -> str:
        """`fetch bigdata`; may be empty."""
        return f"{self.phase} {self.package}".strip()

    def __str__(self) -> str:
        return f"{self.percent} % {self.doing}".rstrip()


def mapping(value: object) -> Mapping[str, Any]:
    """An object of JSON; empty for whatever else came in its place."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    return printable(value[:_LOOKED_AT]).strip() if isinstance(value, str) else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 10**9 else 0


def drawn(far: HowFar, columns: int, of: str = "") -> tuple[str, str]:
    """The bar and what stands behind it, not wider than so many columns together.

    of: what the job is called.
    """
    from rich.cells import set_cell_size

    filled = far.percent * _LENGTH // 100
    bar = f"[{'#' * filled}{'-' * (_LENGTH - filled)}]"
    if columns < 2 * len(bar):
        bar = ""
    parts = [f"{far.percent:3} %", _text(of), far.doing]
    if far.total:
        parts.append(f"{far.done}/{far.total}")
    rest = "  ".join(part for part in parts if part)
    return bar, set_cell_size(" " * bool(bar) + rest, max(0, columns - len(bar))).rstrip()


def rows(jobs: Mapping[str, HowFar], columns: int, most: int) -> list[tuple[str, str]]:
    """A line for each of so many jobs, and one for the others."""
    from rich.cells import set_cell_size

    found = [drawn(far, columns, of) for of, far in list(jobs.items())[:most]]
    if len(jobs) > most:
        more = f"and {len(jobs) - most} more"
        found.append(("", set_cell_size(more, max(0, columns)).rstrip()))
    return found


class Bar:
    """Draws on standard error, over itself, while standard output is a terminal, too.

    Who prints anything else calls `lift` before and `lower` behind it.
    """

    def __init__(self, paint: Callable[[str], str]) -> None:
        """paint: gives the bar its colour, if colours are wanted."""
        self._paint = paint
        # By what the jobs are called, in the order in which they began.
        self._jobs: dict[str, HowFar] = {}
        # What is there now, and of each line how many columns are drawn on.
        self._there: list[tuple[str, str]] = []
        self._widths: list[int] = []
        # Nothing else stands in the line.
        self._free = True

    @staticmethod
    def possible() -> bool:
        """Is there a terminal for it?"""
        return sys.stdout.isatty() and sys.stderr.isatty()

    def show(self, far: HowFar | None, of: str = "") -> None:
        """Show that of a job from now on; None: nothing of it."""
        if far is not None:
            self._jobs[of] = far
        elif self._jobs.pop(of, None) is None:
            return
        if self._jobs:
            self._draw()
        else:
            self.lift()

    def clear(self) -> None:
        """Show nothing any more."""
        self._jobs.clear()
        self.lift()

    def lift(self) -> None:
        """Leave the lines as if they had never been there."""
        if self._widths:
            blank = [f"\r{' ' * width}\r" for width in reversed(self._widths)]
            self._write(_UP.join(blank))
        self._widths, self._there = [], []

    def lower(self, text: str = "\n") -> None:
        """Go on below a text that was printed; not before its last line has ended."""
        if text:
            self._free = text.endswith("\n")
        if self._jobs:
            self._draw()

    @property
    def is_shown(self) -> bool:
        """Is there something to show, and a terminal for it?"""
        return bool(self._jobs) and self.possible()

    @property
    def free(self) -> bool:
        """Does the next text begin a line?"""
        return self._free

    def _draw(self) -> None:
        if not self._free or not self.possible():
            return
        from rich.cells import cell_len

        # The last column stays empty: some terminals go on in the next line behind it.
        most = 1 if os.environ.get("TERM") == "dumb" else MOST_SHOWN
        found = rows(self._jobs, _columns() - 1, most)
        if most == 1:
            # It can't go up to a line above.
            found = found[:1]
        if found == self._there:
            return
        # What a single line before had more; several are drawn anew.
        before = self._widths[0] if len(self._widths) == len(found) == 1 else 0
        if not before:
            self.lift()
        widths = [len(bar) + cell_len(rest) for bar, rest in found]
        texts = [f"\r{self._paint(bar) if bar else ''}{rest}" for bar, rest in found]
        more = max(0, before - widths[-1])
        self._write("\n".join(texts) + " " * more)
        widths[-1] += more
        self._widths, self._there = widths, found

    @staticmethod
    def _write(text: str) -> None:
        # An ornament: that it can't be drawn ends nothing.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS
    except (OSError, ValueError):
        return _COLUMNS
