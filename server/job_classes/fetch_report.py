"""What fetch(1) says of a job of sysadm/iohyve, and how its file grows. No file, no process.

Source: usr.bin/fetch/fetch.c of FreeBSD 13.2. Into a pipe it writes the file's name when it
begins, 46 wide, and size, rate and time when it ends; on a terminal a line once a second.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Any, Final

from dispatcher.reports import Fields
from server.job_classes.progress import ALMOST, JobProgress
from sysadmd.text import printable

# Of a line only its beginning is kept: a path has 1024 bytes, a URL in an error not many more.
_LINE: Final = 4096
# The name's column. A longer name is cut on a terminal, and shifts the others in a pipe.
_NAME: Final = 46
_PATH: Final = 1024
# Problems that are kept, and characters of each.
_MOST: Final = 50
_LENGTH: Final = 500
# s between two looks at the file from which a rate is made.
_RATE_OVER: Final = 0.5
# No file is larger.
_LARGEST: Final = 2**63

_RATE: Final = rb"(?P<rate>\d{1,6} [ kMGTP]Bps|\?\? Bps)"
# After the name: percent of a size; or the size so far, which is also how the last line is.
_PART: Final = re.compile(
    rb" {0,2}(?P<percent>\d{1,3})% of {1,4}\d{1,6} [ kMGTP]B(?: {1,4}" + _RATE + rb")?"
)
_SIZE: Final = re.compile(
    rb"(?P<name>.*) {8} {0,3}\d{1,6} [ kMGTP]B {1,4}" + _RATE + rb"(?: {1,8}\S{1,16})? {0,8}"
)


@dataclass(frozen=True, slots=True)
class _FetchLine:
    """What one line says. An empty name: nothing. percent: 0..100."""

    name: bytes = b""
    percent: int | None = None
    rate: str | None = None


_NOTHING: Final = _FetchLine()


class FetchReport:
    """A `Report` of one fetch(1), by `vm iso URL` or `iohyve fetch URL`."""

    def __init__(self, accepted: Fields, told: Fields) -> None:
        """accepted["size"]: bytes that the file will have; absent: not known."""
        size = accepted.get("size")
        known = isinstance(size, int) and not isinstance(size, bool) and size > 0
        self._expected = size if known else None
        self._progress = JobProgress(told)
        self._progress.count(0, 1)
        self._percent = _percent_told(told)
        self._succeeded = False
        self._command = 0
        self._line = bytearray()
        # The line was begun by a carriage return: it is one of a terminal.
        self._returned = self._terminal = False
        self._said = _NOTHING
        self._problems: dict[str, None] = {}
        self._size: int | None = None
        self._grows = False
        # Size and moment from which the next rate is made; the rate that was made last.
        self._since: tuple[int, float] | None = None
        self._rate: str | None = None

    @property
    def watched(self) -> str | None:
        """The file that is written, by an absolute path."""
        name = self._now().name
        cut = self._terminal_now() and len(name) == _NAME
        return os.fsdecode(name) if name[:1] == b"/" and b"\0" not in name and not cut else None

    def event(self, line: bytes) -> None:
        """fetch(1) has none."""

    def output(self, command: int, data: bytes) -> None:
        """More output of this command of the job."""
        if command != self._command:
            self._end_line(b"\n")
            self._command = command
        for piece in re.split(rb"([\r\n])", data):
            if piece in (b"\r", b"\n"):
                self._end_line(piece)
            else:
                self._line += piece[: max(0, _LINE - len(self._line))]

    def grown(self, size: int, at: float) -> None:
        """How large the file is. Where there is one of this name already, fetch(1) writes to
        another, so it says nothing before it has grown."""
        if size < 0 or not math.isfinite(at):
            return
        self._grows = size == 0 if self._size is None else self._grows or size > self._size
        self._size = size = min(size, _LARGEST)
        if self._terminal_now() or not self._grows:
            self._since = size, at
            return
        if self._expected is not None:
            self._reached(size * 100 // self._expected)
        before, then = self._since or (size, at)
        if size < before or at < then or self._since is None:
            self._since = size, at
        elif at - then >= _RATE_OVER:
            self._rate = _rate((size - before) / (at - then))
            self._since = size, at

    def fields(self) -> dict[str, Any]:
        """`progress`; as soon as they are known `filename`, `percent_done`, `download_rate`."""
        now = self._now()
        name = printable(now.name.decode(errors="replace"))[:_PATH]
        if now.percent is not None:
            self._reached(now.percent)
        if name and not self._succeeded:
            self._progress.phase = "fetch"
        self._progress.package = name
        told: dict[str, Any] = {"progress": self._progress.value()}
        if name:
            told["filename"] = name
        if self._percent is not None:
            told["percent_done"] = f"{self._percent}%"
        rate = now.rate or self._rate
        if rate is not None:
            told["download_rate"] = rate
        return told

    def ended(self, result: str) -> dict[str, Any]:
        """The same at the end, with `problems`, what it complained about, if anything."""
        if self._line:
            # What it was stopped in, for what is known of it.
            now = self._now()
            self._end_line(b"\n")
            self._said = now
        if result == "succeeded":
            self._succeeded = True
            self._percent = 100
            self._progress.count(1, 1)
            self._progress.succeeded()
        ended = self.fields()
        if self._problems:
            ended["problems"] = list(self._problems)
        return ended

    def _reached(self, percent: int) -> None:
        if self._succeeded:
            return
        self._percent = max(self._percent or 0, min(ALMOST, percent))
        # In the middle of the percent: of its share itself a float may fall short.
        self._progress.at((self._percent + 0.5) / 100)

    def _now(self) -> _FetchLine:
        """What is known by the lines that have ended and by what has come of the next."""
        return _begun(bytes(self._line), terminal=self._returned) or self._said

    def _terminal_now(self) -> bool:
        return self._terminal or (self._returned and len(self._line) >= _NAME)

    def _end_line(self, end: bytes) -> None:
        line, returned = bytes(self._line), self._returned
        self._line.clear()
        self._returned = end == b"\r"
        if not line:
            return
        if _complains(line):
            if len(self._problems) < _MOST:
                text = printable(line.decode(errors="replace").strip())
                self._problems.setdefault(text[:_LENGTH])
            return
        said = _whole(line)
        if said is not None:
            self._said = said
            self._terminal = self._terminal or returned
            if said.percent is not None:
                self._reached(said.percent)


def _percent_told(told: Fields) -> int | None:
    value = told.get("percent_done")
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,3}%", value):
        return None
    return min(ALMOST, int(value[:-1]))


def _complains(line: bytes) -> bool:
    """fetch(1), iohyve, which then exits with 0, or vm."""
    return line.startswith((b"fetch: ", b"cannot fetch ISO: ")) or b": ERROR: " in line


def _whole(line: bytes) -> _FetchLine | None:
    """What a line says of a file; None: nothing."""
    part = _PART.match(line, _NAME)
    if part is not None:
        return _FetchLine(line[:_NAME].rstrip(b" "), int(part["percent"]), _text(part["rate"]))
    size = _SIZE.fullmatch(line)
    if size is None or size.end("name") < _NAME:
        return None
    return _FetchLine(size["name"].rstrip(b" ")[:_PATH], None, _text(size["rate"]))


def _begun(line: bytes, *, terminal: bool) -> _FetchLine | None:
    """What a line says that may go on; None: nothing yet."""
    if len(line) < _NAME or _complains(line):
        return None
    said = _whole(line)
    if said is not None:
        return said
    name = (line[:_NAME] if terminal else line).rstrip(b" ")
    # One that is not absolute is known by the blanks after it.
    padded = len(name) < _NAME and not line[_NAME:].strip(b" ")
    return _FetchLine(name[:_PATH]) if name and (line[:1] == b"/" or padded) else None


def _text(rate: bytes | None) -> str | None:
    return None if rate is None else rate.decode()


def _rate(per_second: float) -> str:
    """As fetch(1) writes it, without the blanks before it. Source: stat_bytes, stat_bps."""
    number, prefixes = int(min(per_second, 1e18)), " kMGTP"
    while number > 9999 and len(prefixes) > 1:
        number //= 1024
        prefixes = prefixes[1:]
    return f"{number} {prefixes[0]}Bps"
