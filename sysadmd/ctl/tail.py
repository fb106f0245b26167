"""`sysadmctl tail`: events as they come, each once. What they say is decided elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import click

from sysadmd.client import EventFrame, NotPermitted, Refused, Target, events
from sysadmd.ctl.advice import UNAUTHORIZED
from sysadmd.ctl.bar import mapping
from sysadmd.ctl.cursor_file import keep_cursor, read_cursor
from sysadmd.ctl.event_text import EventText, describe, job_id
from sysadmd.ctl.id_text import begins, short_id
from sysadmd.ctl.job_lines import JobLines, JobNews
from sysadmd.ctl.layout import Columns, head, lay_out
from sysadmd.ctl.moments import moment
from sysadmd.ctl.output import Printer, coloured
from sysadmd.ctl.program_text import ProgramText
from sysadmd.ctl.tail_wanted import JOBS, MOST, Wanted, allowed
from sysadmd.errors import SysadmdError

# How often the place is kept; s.
_KEEP: Final = 1.0
# A connection that was lost is told of so late, unless why it can't be had again is known; s.
_PATIENCE: Final = 1.0
# Jobs whose unfinished line is kept.
_LINES_KEPT: Final = 256
# Characters of what is held back; of more the first is let go, and that is said.
_HELD: Final = 32 * 1024 * 1024


async def run_tail(target: Target, printer: Printer, wanted: Wanted) -> int:
    """Print events until there are enough, or Ctrl-C, and then say where it was.

    Raises: SysadmdError.
    """
    kept = None if wanted.cursor_file is None else read_cursor(wanted.cursor_file)
    since, last = (wanted.since, wanted.last) if kept is None else (kept, None)
    only_new = last == 0
    # Of those that are left out nobody knows how many there are.
    most = MOST if last and wanted.chooses else last
    contact = _Contact(printer)
    stream = events(
        target,
        wanted.systems,
        since="now" if only_new else since,
        last=most or None,
        caught_up=True,
        lost=contact.lost,
        again=contact.again,
    )
    shown = _Shown(printer, wanted, last if last and wanted.chooses else None)
    try:
        async with contextlib.aclosing(stream):
            await _follow(stream, shown, wanted)
    except asyncio.CancelledError:
        shown.end()
        if shown.cursor:
            printer.note(f"`--since {shown.cursor}` goes on from here")
        raise
    except NotPermitted as error:
        if not contact.begun or error.number != UNAUTHORIZED:
            raise
        said = f"{contact.why}. {error}"
        if target.key is None:
            said = "the token was revoked or has run out; log in again (`sysadmctl login`)"
        raise NotPermitted(error.number, error.message, said) from error
    except Refused as error:
        if shown.cursor or contact.begun or error.number != 400:
            raise
        raise Refused(error.number, error.message, _refused(error, wanted, kept)) from error
    finally:
        contact.close()
        shown.end()
    return 0


def _refused(error: Refused, wanted: Wanted, kept: str | None) -> str:
    if kept is not None:
        return f"{error}; {wanted.cursor_file} holds it: remove that file to begin anew"
    try:
        moment(wanted.since_text, datetime.now().astimezone())
    except ValueError as reason:
        if wanted.last is None and wanted.since_text not in ("now", "oldest"):
            return f"--since: {error}. {allowed(reason)}"
    return str(error)


async def _follow(
    stream: AsyncGenerator[EventFrame, None], shown: _Shown, wanted: Wanted
) -> None:
    """Show events until there are enough."""
    caught_up = False

    def due() -> float | None:
        """When there is something to do even if nothing comes; s from now."""
        waits = [shown.due()]
        if caught_up and wanted.until is not None:
            waits.append(max(0.0, wanted.until.timestamp() - time.time()))
        return min((wait for wait in waits if wait is not None), default=None)

    async for event in _with_pauses(stream, due):
        if event is None:
            shown.keep()
        elif event.name == "caught_up":
            caught_up = True
            if shown.release() or not wanted.follow:
                return
        elif _is_past(event.time, wanted.until) or shown.take(event):
            return
        if caught_up and wanted.until is not None and time.time() >= wanted.until.timestamp():
            return


def _is_past(told: str, until: datetime | None) -> bool:
    try:
        return until is not None and datetime.fromisoformat(told) > until
    except ValueError:
        return False


async def _with_pauses(
    stream: AsyncGenerator[EventFrame, None], due: Callable[[], float | None]
) -> AsyncGenerator[EventFrame | None, None]:
    """The events, and None when it is time for something else."""
    waiting: asyncio.Future[EventFrame] | None = None
    try:
        while True:
            if waiting is None:
                waiting = asyncio.ensure_future(anext(stream))
            done, _ = await asyncio.wait((waiting,), timeout=due())
            if not done:
                yield None
                continue
            event, waiting = waiting.result(), None
            yield event
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.wait((waiting,))


class _Contact:
    """The connection, as far as people are told of it."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._away = False
        self._timer: asyncio.TimerHandle | None = None
        self._text = ""
        # Why it was lost.
        self.why = ""
        # It was lost once: it had been there.
        self.begun = False

    def lost(self, error: SysadmdError, _wait: float) -> None:
        """It is lost, or could not be had again."""
        if self._away:
            return
        self._away = self.begun = True
        # If we are not let in any more, that is all there is to say.
        self.why = str(error)
        self._text = f"{error}; connecting again"
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._tell)

    def again(self) -> None:
        """It is there again."""
        self._tell()
        self._away = False
        self._printer.note("connected again")

    def close(self) -> None:
        """Say nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        self.close()
        text, self._text = self._text, ""
        if text:
            self._printer.note(text)


@dataclass(frozen=True, slots=True)
class _Unit:
    """What one event shows: its frame, or lines: text, colour, is it output."""

    frame: dict[str, Any] | None
    lines: list[tuple[str, str | None, bool]]
    time: str
    counts: bool


class _HeldBack:
    """The last of what was chosen, until all has been told."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._units: deque[tuple[_Unit, int]] = deque()
        self._size = 0
        self._too_long = False

    def add(self, unit: _Unit) -> None:
        """Hold one more; it takes the place of the first, if there are enough."""
        size = sum(len(text) for text, *_ in unit.lines)
        if unit.frame is not None:
            size += len(json.dumps(unit.frame))
        self._units.append((unit, size))
        self._size += size
        while len(self._units) > self._most or (self._size > _HELD and len(self._units) > 1):
            self._too_long |= len(self._units) <= self._most
            self._size -= self._units.popleft()[1]

    def units(self) -> list[_Unit]:
        """Those that are held."""
        return [unit for unit, _ in self._units]

    @property
    def lack(self) -> str:
        """Why there are fewer than were asked for; empty: there are not."""
        if not self._too_long or len(self._units) == self._most:
            return ""
        return (
            f"only the last {len(self._units)} are shown: they are too long for more to be held"
            " back; --since shows all from a time on"
        )


class _Shown:
    """Events on their way to standard output."""

    def __init__(self, printer: Printer, wanted: Wanted, last: int | None) -> None:
        """last: of what was chosen, begin with so many once all has been told."""
        self._printer = printer
        self._wanted = wanted
        self._jobs = JobLines()
        self._programs: OrderedDict[str, ProgramText] = OrderedDict()
        self._held = None if last is None else _HeldBack(last)
        self._day = ""
        self._number = 0
        self.cursor = ""
        self._seen = ""
        self._kept = ""
        self._kept_at = 0.0

    def take(self, event: EventFrame) -> bool:
        """Show what is to be shown of an event. True: that was enough."""
        unit = self._unit(event)
        self._seen = event.cursor
        if unit is not None and self._held is not None:
            self._held.add(unit)
            return False
        enough = unit is not None and self._put(unit)
        if self._held is None:
            self.cursor = self._seen
            self.keep()
        return enough

    def release(self) -> bool:
        """Show what was held back until all had been told. True: that was enough."""
        held, self._held = self._held, None
        if held is None:
            return False
        enough = False
        if held.lack:
            self._printer.note(held.lack)
        for unit in held.units():
            enough = self._put(unit)
            if enough:
                break
        if self._seen and not enough:
            self.cursor = self._seen
        self.keep()
        return enough

    def due(self) -> float | None:
        """When the place is to be kept; s from now."""
        if self._wanted.cursor_file is None or self.cursor == self._kept:
            return None
        return max(0.0, self._kept_at + _KEEP - time.monotonic())

    def keep(self, *, at_once: bool = False) -> None:
        """Keep the place, if it is time."""
        file, wait = self._wanted.cursor_file, self.due()
        if file is not None and wait is not None and (at_once or wait == 0):
            keep_cursor(file, self.cursor)
            self._kept, self._kept_at = self.cursor, time.monotonic()

    def end(self) -> None:
        """Show the lines that have not ended, and keep the place."""
        for id, program in self._programs.items():
            if rest := program.end():
                self._printer.ready(self._output_line(id, rest))
        self._programs.clear()
        self._printer.no_progress()
        self.keep(at_once=True)

    def _unit(self, event: EventFrame) -> _Unit | None:
        """What an event shows; None: nothing."""
        wanted, args = self._wanted, mapping(event.args)
        is_job, is_gap = event.name == JOBS, event.name == "gap"
        news = self._jobs.take(args) if is_job else None
        told = describe(event, whole_ids=not self._printer.on_terminal)
        if not is_gap:
            if told.priority < wanted.priority:
                return None
            if wanted.job is not None and not begins(job_id(args), wanted.job):
                return None
        lines: list[tuple[str, str | None, bool]] = []
        if news is None or news.is_line:
            lines = self._event_lines(event, told)
        if news is not None:
            output = self._output(news)
            lines = output + lines if news.ended else lines + output
            self._progress(news, args)
        grep = None if is_gap else wanted.grep
        if grep is not None:
            lines = [line for line in lines if grep.search(click.unstyle(line[0]))]
        if self._printer.as_json:
            found = grep is None or bool(lines)
            return _Unit(event.frame, [], event.time, not is_gap) if found else None
        return _Unit(None, lines, event.time, not is_gap) if lines else None

    def _event_lines(
        self, event: EventFrame, told: EventText
    ) -> list[tuple[str, str | None, bool]]:
        width = self._printer.width
        when = self._printer.clock(event.time)
        system = self._printer.clean(told.system)
        columns = Columns(time=when, system=system, word=told.word)
        text = lay_out(head(columns, width), self._printer.clean(told.text), width)
        lines: list[tuple[str, str | None, bool]] = [("\n".join(text), told.colour, False)]
        if self._wanted.verbose:
            for detail in (*told.details, f"cursor {event.cursor}"):
                rows = lay_out("    ", self._printer.clean(detail), width)
                lines.append(("\n".join(rows), None, False))
        return lines

    def _output(self, news: JobNews) -> list[tuple[str, str | None, bool]]:
        """The lines of output that have ended, and what is to be said of the others."""
        if not self._wanted.output:
            return []
        lines: list[str] = []
        id = self._shown_id(news.id)
        if news.missing:
            lines.append(f"(output before this is not shown: `sysadmctl log {id}`)")
        program = self._programs.pop(news.id, None)
        if program is None:
            program = ProgramText(colours=coloured())
        lines += program.feed(news.output).splitlines()
        # What is kept in a file as told has to have been printed.
        if news.ended or self._wanted.cursor_file is not None:
            if rest := program.end():
                lines.append(rest)
        elif program.line:
            self._programs[news.id] = program
            if len(self._programs) > _LINES_KEPT:
                _, oldest = self._programs.popitem(last=False)
                lines.append(oldest.end())
        return [(self._output_line(id, line), None, True) for line in lines]

    def _output_line(self, id: str, line: str) -> str:
        return f"  {self._shown_id(id)}| {line}"

    def _shown_id(self, id: str) -> str:
        return self._printer.clean(short_id(id) if self._printer.on_terminal else id)

    def _progress(self, news: JobNews, args: Any) -> None:
        if not self._printer.as_json and self._held is None:
            fields = None if args.get("state") == "finished" else args
            self._printer.progress(fields, of=short_id(news.id))

    def _put(self, unit: _Unit) -> bool:
        if unit.frame is not None:
            self._printer.value(unit.frame)
        day = self._printer.day(unit.time)
        if unit.lines and day != self._day and not all(output for *_, output in unit.lines):
            self._day = day
            self._printer.ready(f"-- {day} --")
        for text, fg, _ in unit.lines:
            self._printer.ready(text, fg)
        self._number += unit.counts
        return self._number == self._wanted.count
