"""What `sysadmctl` prints: for people, or one JSON object a line. No connection, no decision.

Text from a server may hold anything; what does not print is written out, not obeyed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import click

from sysadmd.ctl.bar import Bar, HowFar, mapping
from sysadmd.ctl.columns import widths
from sysadmd.ctl.id_text import short_id
from sysadmd.ctl.program_text import ProgramText
from sysadmd.text import printable

# Columns of a table that no terminal shows.
UNLIMITED: Final = 10_000
# Those of a terminal that does not say how wide it is; what is left of a column that gives way.
COLUMNS: Final = 80
_LEAST: Final = 10
_DOTS: Final = "..."


# A terminal that says it is narrower is not believed.
NARROWEST: Final = 20


class Printer:
    """Standard output in the form that was asked for."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._bar = Bar(lambda text: styled(text, "cyan"))
        # Of a job's output on a terminal: the line that has no end yet, as it is drawn, and
        # the columns that it has there.
        self._program = ProgramText(colours=coloured())
        self._drawn, self._width = "", 0

    @property
    def shows_progress(self) -> bool:
        """Is it any use to ask how far a job is?"""
        return self.as_json or Bar.possible()

    def progress(self, fields: object, of: str = "") -> None:
        """How far a job is, by its fields: a bar on a terminal, a line of JSON; None: ended.

        of: what it is called, where there may be several.
        """
        far = HowFar.read(fields)
        if not self.as_json:
            if far is None:
                self._print_begun()
            else:
                self._wipe()
            self._bar.show(far, of)
        elif far is not None:
            self.value({"progress": mapping(fields)["progress"]})

    def no_progress(self) -> None:
        """Show of no job any more how far it is."""
        self._print_begun()
        self._bar.clear()

    @contextlib.contextmanager
    def _beside_bar(self, text: str = "\n") -> Generator[None]:
        self._print_begun()
        self._bar.lift()
        yield
        self._bar.lower(text)

    def value(self, value: Any) -> None:
        """One JSON object on a line."""
        # ASCII, so that no terminal and no encoding is in the way; DEL is not JSON's to escape.
        text = json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")
        click.echo(text)

    def line(self, text: str, fg: str | None = None) -> None:
        """A line for people; coloured on a terminal."""
        with self._beside_bar():
            click.echo(("" if self._bar.free else "\n") + styled(printable(text), fg))

    def note(self, text: str) -> None:
        """A remark on standard error."""
        # Only on a terminal is it the line of standard output that it ends.
        below = Bar.possible()
        with self._beside_bar("\n" if below else ""):
            begin = "\n" if below and not self._bar.free else ""
            click.echo(f"{begin}sysadmctl: {printable(text)}", err=True)

    def clear(self) -> None:
        """Begin at the top of a terminal that is empty."""
        click.echo("\x1b[H\x1b[2J", nl=False)

    def again(self) -> None:
        """Begin at its top once more; unlike `clear`, that leaves no copy to scroll back to."""
        # From its very top on tmux would keep what is erased.
        click.echo("\x1b[H\x1b[K\x1b[2;1H\x1b[J\x1b[H", nl=False)

    def log(self, text: str) -> None:
        """Output of a job: as it is into a pipe, as a terminal has it in the end on one."""
        if not sys.stdout.isatty():
            self._write(text)
            return
        lines = self._program.feed(text)
        line = self._program.line
        if line == self._drawn and not lines:
            return
        self._wipe()
        if lines:
            self._write(lines)
        self._draw(line)

    def end_log(self) -> None:
        """What comes next is no output of that command."""
        self._print_begun()

    def _draw(self, line: str) -> None:
        """Show the line that has no end yet; it will be drawn anew."""
        self._drawn = line
        # Below it is no place for the bar, and some tools draw bars of dots for minutes.
        if not line or self._bar.is_shown or not self._bar.free:
            return
        from rich.cells import cell_len, set_cell_size

        plain = click.unstyle(line).expandtabs()
        # The last column stays empty: some terminals go on in the next line behind it.
        room = _columns() - 1
        if "\t" in line or cell_len(plain) > room:
            line = set_cell_size(plain, min(room, cell_len(plain)))
        self._width = min(room, cell_len(plain))
        sys.stdout.write(line)
        sys.stdout.flush()

    def _wipe(self) -> None:
        if self._width:
            sys.stdout.write("\r" + " " * self._width + "\r")
            sys.stdout.flush()
        self._width, self._drawn = 0, ""

    @property
    def on_terminal(self) -> bool:
        """Do people read it as it comes?"""
        return sys.stdout.isatty()

    @staticmethod
    def called(id: str) -> str:
        """What a job is called in a remark: short for people, as commands take it."""
        return short_id(id) if sys.stderr.isatty() else id

    @property
    def width(self) -> int | None:
        """Columns of the terminal; None: there is none."""
        if not self.on_terminal:
            return None
        return max(NARROWEST, _columns())

    def clock(self, told: str) -> str:
        """A time of the server's before a line; with its day where that is not told else."""
        try:
            when = datetime.fromisoformat(told).astimezone()
        except (ValueError, OverflowError):
            return self.clean(told)
        return f"{when:%H:%M:%S}" if self.on_terminal else f"{when:%Y-%m-%d %H:%M:%S}"

    def day(self, told: str) -> str:
        """The day of that time, here; empty where it need not be told."""
        if not self.on_terminal:
            return ""
        try:
            return f"{datetime.fromisoformat(told).astimezone():%Y-%m-%d}"
        except (ValueError, OverflowError):
            return ""

    @staticmethod
    def clean(text: str) -> str:
        """A text of a server's that can be printed."""
        return printable(text)

    def ready(self, text: str, fg: str | None = None) -> None:
        """A line, or several, that can be printed as they are."""
        with self._beside_bar():
            click.echo(("" if self._bar.free else "\n") + styled(text, fg))

    def _print_begun(self) -> None:
        self._wipe()
        rest = self._program.end()
        if rest:
            self._write(rest)

    def _write(self, text: str) -> None:
        if not text:
            return
        self._bar.lift()
        sys.stdout.buffer.write(text.encode("utf-8", "replace"))
        sys.stdout.flush()
        self._bar.lower(text)

    def table(
        self,
        columns: list[str],
        rows: list[list[tuple[str, str | None]]],
        gives: Mapping[int, int] | None = None,
        drops: Sequence[int] = (),
        cut: Sequence[int] = (),
    ) -> None:
        """Rows of (text, colour or None). On a terminal columns give way, the last one or:

        gives, drops: as `columns.widths` has them. cut: shortened without dots, for what is
        copied from there.
        """
        from rich.cells import cell_len, set_cell_size

        shown = [[(printable(text), fg) for text, fg in row] for row in rows]
        wanted = [
            max(cell_len(text) for text in (head, *(row[number][0] for row in shown)))
            for number, head in enumerate(columns)
        ]
        # Nothing is left out where a program reads.
        room = _columns() if sys.stdout.isatty() else UNLIMITED
        last = len(columns) - 1
        found = widths(wanted, room, {last: _LEAST} if gives is None else gives, drops)

        def fitted(number: int, text: str) -> str:
            width = found[number] or 0
            if cell_len(text) > width and number not in cut and width > len(_DOTS):
                text = set_cell_size(text, width - len(_DOTS)) + _DOTS
            return set_cell_size(text, width)

        heads: list[tuple[str, str | None]] = [(head, "bold") for head in columns]
        for row in (heads, *shown):
            cells = [
                (fitted(number, text), fg)
                for number, (text, fg) in enumerate(row)
                if found[number] is not None
            ]
            cells[-1] = (cells[-1][0].rstrip(), cells[-1][1])
            parts = [
                styled(text, None if fg == "bold" else fg, bold=fg == "bold")
                for text, fg in cells
            ]
            with self._beside_bar():
                click.echo("  ".join(parts).rstrip())


def styled(text: str, fg: str | None, *, bold: bool = False) -> str:
    """Coloured where colours are wanted: on a terminal, without NO_COLOR."""
    if not coloured() or not (fg or bold):
        return text
    return click.style(text, fg=fg, bold=bold or None)


def coloured() -> bool:
    """Are colours wanted?"""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _columns() -> int:
    return shutil.get_terminal_size((COLUMNS, 24)).columns
