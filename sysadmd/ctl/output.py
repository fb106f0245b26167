"""What `sysadmctl` prints: for people, or one JSON object a line. No connection, no decision.

Text from a server may hold anything; what does not print is written out, not obeyed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Generator
from typing import Any, Final

import click

from sysadmd.ctl.bar import Bar, HowFar, mapping
from sysadmd.text import printable

# Columns of a table that no terminal shows.
UNLIMITED: Final = 10_000
# Characters of a line that is kept until its end comes.
LONGEST_LINE: Final = 4096
COLOURS: Final = ((9, "red"), (6, "bright_red"), (3, "yellow"), (0, "green"))


def colour(priority: str) -> str:
    """The colour of `7/Critical`."""
    number = priority.partition("/")[0]
    value = int(number) if number.isdecimal() else 0
    return next(name for least, name in COLOURS if value >= least)


class Printer:
    """Standard output in the form that was asked for."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._bar = Bar(lambda text: styled(text, "cyan"))
        # Of a job's output the line that has no end yet: below it is no place for the bar, and
        # some tools draw bars of dots for minutes.
        self._begun = ""

    @property
    def shows_progress(self) -> bool:
        """Is it any use to ask how far a job is?"""
        return self.as_json or Bar.possible()

    def progress(self, fields: object) -> None:
        """How far a job is, by its fields: a bar on a terminal, a line of JSON; None: ended."""
        far = HowFar.read(fields)
        if not self.as_json:
            if far is None:
                self._print_begun()
            self._bar.show(far)
        elif far is not None:
            self.value({"progress": mapping(fields)["progress"]})

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

    def log(self, text: str) -> None:
        """Output of a job: as it is into a pipe, harmless on a terminal."""
        shown = text
        if sys.stdout.isatty():
            # A line that is written over itself is shown as several.
            shown = printable(text.replace("\r\n", "\n").replace("\r", "\n"), lines=True)
        if self._bar.is_shown:
            whole, newline, rest = (self._begun + shown).rpartition("\n")
            shown, self._begun = whole + newline, rest
            if len(rest) > LONGEST_LINE:
                shown, self._begun = shown + rest, ""
        if shown:
            self._write(shown)

    def _print_begun(self) -> None:
        begun, self._begun = self._begun, ""
        if begun:
            self._write(begun)

    def _write(self, text: str) -> None:
        self._bar.lift()
        sys.stdout.buffer.write(text.encode("utf-8", "replace"))
        sys.stdout.flush()
        self._bar.lower(text)

    def table(self, columns: list[str], rows: list[list[tuple[str, str | None]]]) -> None:
        """Rows of (text, colour or None). Only the last column gives way on a terminal."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        shown = [[Text(printable(text), style=fg or "") for text, fg in row] for row in rows]
        for number, column in enumerate(columns[:-1]):
            widest = max([len(column), *(row[number].cell_len for row in shown)])
            table.add_column(column, no_wrap=True, min_width=widest)
        table.add_column(columns[-1], no_wrap=True)
        for row in shown:
            table.add_row(*row)
        # Nothing is left out where a program reads.
        width = None if sys.stdout.isatty() else UNLIMITED
        with self._beside_bar():
            Console(highlight=False, width=width).print(table)


def styled(text: str, fg: str | None) -> str:
    """Coloured where colours are wanted: on a terminal, without NO_COLOR."""
    if fg is None or os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return click.style(text, fg=fg)
