"""Dispatcher events in full: from the journal row, the job's record and its logs.

The journal holds no log text; a frame is filled in when it is made. Since the record of an
ended command never changes, the same row gives the same frame today and after a year, as long
as the log is there; bytes that are gone are counted in a marker line.

Source: docs/protocol.md for the limits; how it is written is the dialect's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from dispatcher import events, logs, records
from dispatcher.events import Told
from dispatcher.records import Command, Job
from server.delivery.clipping import Piece, clip, marker
from server.dialects import Dialect
from server.dialects.documented import has_ended, shared_texts
from sysadmd.journal import Event
from sysadmd.store import Store
from sysadmd.text import json_size

# All logs of one event together, as a multiple of event_log_limit.
LOGS_PER_EVENT: Final = 4
# Finished jobs whose records are kept at hand: their next event needs them again. A thousand
# that were asked for at once have a thousand events between two of their own.
RECORDS_KEPT: Final = 1024


class Shown(msgspec.Struct, frozen=True):
    """A command's log in one event; `size` bytes of it are meant, `text` shows them or some."""

    text: str
    size: int


_encode: Final = msgspec.json.Encoder().encode


class JobEvents:
    """Renders dispatcher events; remembers the records of finished jobs."""

    def __init__(self, store: Store, state_dir: Path, log_limit: Callable[[], int]) -> None:
        self.epoch = store.epoch
        self._log_limit = log_limit
        self._store = store
        self._state_dir = state_dir
        self._records: OrderedDict[int, Job] = OrderedDict()

    def args(self, event: Event, dialect: Dialect, limit: int) -> bytes:
        """The JSON text of `args`, at most `limit` bytes; b"": no event in this dialect."""
        told = events.decode(event.body)
        job = self._job(told.job)
        if job is None:
            # Only a database edited by hand lacks it; the event is told all the same.
            return _encode({"state": told.state, "process_id": ""})
        if not dialect.tells(job, told):
            return b""
        shown = {} if told.state == "pending" else self._logs(job, told)

        def args() -> dict[str, Any]:
            texts = {number: log.text for number, log in shown.items()}
            return dialect.job_args(job, told, texts)

        encoded = _encode(args())
        # Too long: first the logs go, oldest first, down to their marker lines.
        for number in sorted(shown):
            if len(encoded) <= limit:
                return encoded
            short = Shown(marker(shown[number].size), shown[number].size)
            if json_size(short.text) < json_size(shown[number].text):
                shown[number] = short
                encoded = _encode(args())
        if len(encoded) > limit:
            shortened = args()
            dialect.shorten(shortened)
            encoded = _encode(shortened)
        return encoded

    def notable(self, event: Event, *, finished: bool) -> bool:
        """Is it a job's end or, unless `finished`, its start, or an event of a class?"""
        told = events.decode(event.body)
        if told.state == "finished" or finished:
            return told.state == "finished"
        job = None if told.is_start else self._job(told.job)
        return told.is_start or (job is not None and job.event_system is not None)

    def prepare(self, wanted: Iterable[Event]) -> None:
        """Read the records that these events need in one go."""
        uids = {events.decode(event.body).job for event in wanted if event.system == 0}
        for job in records.jobs(self._store.reader, uids - self._records.keys()):
            self._keep(job)

    def mergeable(self, page: Sequence[Event], at: int) -> int:
        """The length of the run of progress events of one command that begins at `at`."""
        first = _progress(page[at])
        if first is None:
            return 1
        run, last = 1, first
        for event in page[at + 1 :]:
            told = _progress(event)
            if told is None:
                break
            if (told.job, told.command, told.start) != (first.job, first.command, last.end):
                break
            run, last = run + 1, told
        return run

    def merge(self, run: Sequence[Event]) -> Event:
        """The last event, with the bytes of all of them."""
        first, last = events.decode(run[0].body), events.decode(run[-1].body)
        body = _encode(msgspec.structs.replace(last, start=first.start))
        return msgspec.structs.replace(run[-1], body=body)

    def _job(self, uid: int) -> Job | None:
        job = self._records.get(uid)
        if job is not None:
            self._records.move_to_end(uid)
            return job
        job = records.job(self._store.reader, uid)
        if job is not None:
            self._keep(job)
        return job

    def _keep(self, job: Job) -> None:
        # The record of a job that is not finished still changes.
        if job.state == "finished":
            self._records[job.uid] = job
            if len(self._records) > RECORDS_KEPT:
                self._records.popitem(last=False)

    def _logs(self, job: Job, told: Told) -> dict[int, Shown]:
        """The logs that the event shows, newest command first until the budget is spent."""
        log_limit = self._log_limit()
        budget = LOGS_PER_EVENT * log_limit
        shared = shared_texts(job)
        shown: dict[int, Shown] = {}
        for number, command in reversed(tuple(enumerate(job.commands))):
            start, end = _span(number, command, told)
            size = end - start
            if size <= 0:
                if has_ended(command, told, number):
                    shown[number] = Shown("", 0)
                continue
            # A log without a key of its own, or with a shared one, stands in `commands` too.
            copies = 2 if command.text in shared else 1
            room = min(log_limit, budget // copies)
            full = clip(self._piece(job, number, start, end, log_limit), log_limit)
            fits = json_size(full) <= room
            shown[number] = Shown(full if fits else marker(size), size)
            budget -= copies * json_size(shown[number].text)
        return shown

    def _piece(self, job: Job, number: int, start: int, end: int, limit: int) -> Piece:
        path = logs.path(self._state_dir, job.uid, number)
        return Piece(*logs.ends(path, start, end, limit), end - start)


def _progress(event: Event) -> Told | None:
    if event.system != 0:
        return None
    told = events.decode(event.body)
    return told if told.is_progress else None


def _span(number: int, command: Command, told: Told) -> tuple[int, int]:
    """The bytes of a command's log that the event shows; empty: none."""
    if has_ended(command, told, number):
        return 0, command.log_size or 0
    if told.state == "running" and number == told.command:
        return told.start, told.end
    return 0, 0
