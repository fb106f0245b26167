"""Hears what the jobs of classes say, and keeps a report on each while it runs.

Reads by offset what a starter has put down: output and events. The reports are the classes'
(dispatcher/reports.py); one that fails is a defect, which costs its job's fields and nothing
else. What is read is on the state directory's disk, and read in a thread. What a report watches
may be on any disk: nobody waits for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from dispatcher import job_files, logs, records
from dispatcher.identity import boot_clock
from dispatcher.reports import Fields, Report, Reporter
from dispatcher.side_channel import events_path
from dispatcher.site import Site
from sysadmd.apart import apart

log = logging.getLogger(__name__)

# At least between two events of one job that tell how far it is, s. Source: the contract.
PACE: Final = 1.0
# How long others wait for what a job says, s: while it runs, and at its end.
LINGER: Final = 0.05
PATIENCE: Final = 5.0
# Read and fed at once.
_PORTION: Final = 256 * 1024
# In one look, of each: all that a command's files can hold, as long as they are ours.
MOST: Final = 32 * 1024 * 1024
# Of fields, bytes as JSON: an event has 512 KiB, its logs half of them.
LONGEST: Final = 192 * 1024
# Of a line of events: what is longer is none.
_LONGEST_LINE: Final = 64 * 1024

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Heard:
    """What was heard of one job. n: the command that is read; told: the fields told last.

    output, events: bytes of that command's that were read. line: that has no end yet.
    """

    uid: int
    told: Fields
    # None: it could not be made.
    made: Report | None = None
    n: int = 0
    output: int = 0
    events: int = 0
    line: bytes = b""
    failed: bool = False
    # Its end is being written, in another thread; it is being read, in yet another.
    closing: bool = False
    reading: asyncio.Future[None] | None = None
    # At the watched file: its size, and when that was.
    look: asyncio.Future[tuple[int, float] | None] | None = None

    @property
    def report(self) -> Report:
        """For `_guarded` work alone: it has not failed."""
        assert self.made is not None
        return self.made

    @property
    def is_read(self) -> bool:
        """No thread reads it now."""
        return self.reading is None or self.reading.done()

    @property
    def is_at_rest(self) -> bool:
        """Nobody but the loop has to do with its report."""
        return self.is_read and not self.closing


class Hearing:
    """The reports on running jobs; belongs to the event loop."""

    def __init__(self, site: Site, reporters: Mapping[str, Reporter]) -> None:
        """reporters: by class."""
        self._site = site
        self._reporters = reporters
        self._jobs: dict[int, _Heard] = {}

    def hears(self, event_system: str | None) -> bool:
        """Is there a report on jobs of this class?"""
        return event_system in self._reporters

    def keep_only(self, running: Collection[int]) -> None:
        """Forget all but these jobs."""
        for uid in self._jobs.keys() - running:
            del self._jobs[uid]

    async def listen(self, jobs: Iterable[tuple[int, int]]) -> dict[int, Fields]:
        """Read on, each up to the command of this number; what is new, and to be told.

        Nobody waits long for one that has much to say: it is read meanwhile, and told of at the
        next time. Say `tell` when it is committed.
        """
        heard = [one for uid, n in jobs if (one := self._of(uid)) and self._read_on(one, n)]
        await _wait_for([*(one.reading for one in heard), *(one.look for one in heard)], LINGER)
        fields: dict[int, Fields] = {}
        for one in heard:
            if one.is_at_rest:
                one.reading = None
                _take_look(one)
                found = _ask(one, lambda report: report.fields())
                if found != one.told:
                    fields[one.uid] = found
        return fields

    def last_of(self, uid: int) -> Fields | None:
        """What was told of a job last; None: there is no report on it."""
        heard = self._jobs.get(uid)
        return None if heard is None else heard.told

    def tell(self, uid: int, fields: Fields) -> None:
        """These were told."""
        heard = self._jobs.get(uid)
        if heard is not None:
            heard.told = fields

    @contextlib.asynccontextmanager
    async def endings(
        self, jobs: Iterable[tuple[int, int]]
    ) -> AsyncGenerator[dict[int, Callable[[str], Fields]]]:
        """Read all that these jobs have said, up to their commands of these numbers.

        For each, what is told if it ends with a result. Until that is written they are not
        listened to.
        """
        heard = {one: n for uid, n in jobs if (one := self._of(uid))}
        for one in heard:
            one.closing = True
        try:
            await _wait_for((one.reading for one in heard), PATIENCE)
            for one, n in heard.items():
                if one.is_read:
                    self._begin_reading(one, n)
            await _wait_for((one.reading for one in heard), PATIENCE)
            for one in heard:
                if not (one.failed or one.is_read):
                    # It stops at its next portion.
                    one.failed = True
                    log.warning(
                        "job %d: it has said too much to be read in time; its end is told"
                        " without what it said last",
                        one.uid,
                    )
            yield {one.uid: partial(_ended, one) for one in heard}
        except BaseException:
            # It was not written, and they were told of an end that may come otherwise.
            for one in heard:
                one.failed = True
                self._jobs.pop(one.uid, None)
            raise
        finally:
            for one in heard:
                one.closing = False

    def _of(self, uid: int) -> _Heard | None:
        return self._jobs.get(uid) or self._begin(uid)

    def _read_on(self, heard: _Heard, n: int) -> bool:
        """Have it read, unless what was read is not looked at yet. False: its end is being
        written."""
        if heard.closing:
            return False
        if heard.reading is None:
            _begin_look(heard)
            self._begin_reading(heard, n)
        return True

    def _begin_reading(self, heard: _Heard, n: int) -> None:
        if not heard.failed:
            read = partial(_read, self._site.state_dir, heard, n)
            heard.reading = apart(partial(_guarded, heard, read, None), "what a job says")

    def _begin(self, uid: int) -> _Heard | None:
        row = records.row(self._site.store.reader, uid)
        reporter = self._reporters.get(row.event_system or "") if row else None
        if row is None or reporter is None:
            return None
        told = row.reported
        heard = self._jobs[uid] = _Heard(uid, told)
        heard.made = _guarded(heard, partial(reporter, row.fields, told), None)
        return heard


def _begin_look(heard: _Heard) -> None:
    """At the file that grows, unless the last look hangs."""
    path = _guarded(heard, lambda: heard.report.watched, None)
    if heard.look is None and path is not None:
        heard.look = apart(partial(_size, path), "a file that grows")


def _take_look(heard: _Heard) -> None:
    look = heard.look
    if look is not None and look.done():
        heard.look = None
        found = look.result()
        if found is not None:
            _guarded(heard, lambda: heard.report.grown(*found), None)


async def _wait_for(futures: Iterable[asyncio.Future[Any] | None], seconds: float) -> None:
    begun = [future for future in futures if future is not None]
    if begun:
        await asyncio.wait(begun, timeout=seconds)


def _guarded(heard: _Heard, work: Callable[[], T], otherwise: T) -> T:
    """The outer edge: a class's defect is its own, and what was told stays."""
    if heard.failed:
        return otherwise
    try:
        return work()
    except Exception:
        heard.failed = True
        log.exception("job %d: the report on it failed; it goes on without", heard.uid)
        return otherwise


def _ask(heard: _Heard, question: Callable[[Report], Fields]) -> Fields:
    """Its fields, if they can be written and told; else what was told last."""

    def asked() -> Fields:
        text = msgspec.json.encode(question(heard.report))
        if len(text) > LONGEST:
            raise ValueError(f"fields of {len(text)} bytes; allowed: {LONGEST}")
        fields: Fields = msgspec.json.decode(text)
        return fields

    return _guarded(heard, asked, heard.told)


def _ended(heard: _Heard, result: str) -> Fields:
    return _ask(heard, lambda report: report.ended(result))


def _size(path: str) -> tuple[int, float] | None:
    try:
        return Path(path).stat().st_size, boot_clock()
    except (OSError, ValueError):
        return None


def _read(state_dir: Path, heard: _Heard, n: int) -> None:
    """All that is there by now, up to command `n`'s. In a thread."""
    while True:
        _read_output(state_dir, heard)
        _read_events(state_dir, heard)
        if heard.n >= n:
            return
        heard.n += 1
        heard.output = heard.events = 0
        heard.line = b""


def _read_output(state_dir: Path, heard: _Heard) -> None:
    path, left = logs.path(state_dir, heard.uid, heard.n), MOST
    while left > 0 and not heard.failed:
        start, data = logs.read(path, heard.output, _PORTION)
        if not data:
            return
        left -= len(data)
        heard.report.output(heard.n, data)
        heard.output = start + len(data)


def _read_events(state_dir: Path, heard: _Heard) -> None:
    path = state_dir / events_path(heard.uid, heard.n)
    try:
        file = job_files.open_file(path)
    except OSError:
        # It has no socket, or was never begun.
        return
    try:
        left = MOST
        while (
            left > 0 and not heard.failed and (data := os.pread(file, _PORTION, heard.events))
        ):
            left -= len(data)
            heard.events += len(data)
            *lines, rest = (heard.line + data).split(b"\n")
            heard.line = rest[:_LONGEST_LINE]
            for line in lines:
                heard.report.event(line)
    finally:
        os.close(file)
