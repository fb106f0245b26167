"""Dispatcher events in full: from the journal row, the job's record and its logs.

The journal holds no log text; a frame is filled in when it is made. Since the record of an
ended command never changes, the same row gives the same frame today and after a year, as long
as the log is there; bytes that are gone are counted in a marker line.

Source: docs/protocol.md for the limits; how it is written is the dialect's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final

import msgspec

from dispatcher import events, logs, records
from dispatcher.events import Told
from dispatcher.records import Command
from server.delivery.byte_cache import ByteCache
from server.delivery.clipping import Piece, clip, marker
from server.delivery.job_sheet import Sheet, was_started
from server.dialects import Dialect
from server.dialects.documented import Commands
from sysadmd.events import SYSTEMS
from sysadmd.journal import Event

# All logs of one event together, as a multiple of event_log_limit.
LOGS_PER_EVENT: Final = 4
# Bytes of records, and of logs as JSON, that are kept for the next event of their jobs. A
# thousand jobs that were asked for at once have a thousand events between two of their own.
RECORDS_KEPT: Final = 4 * 1024 * 1024
LOGS_KEPT: Final = 4 * 1024 * 1024
# Bytes from its beginning that are read of a log without looking how long it is.
SHORT: Final = 4096
# Jobs with no more commands than this are read together.
SMALL: Final = 8
# As what the journal has its events.
_NUMBER: Final = SYSTEMS.index(events.SYSTEM)
# What one takes beside its text.
_LOG: Final = 300


class Shown(msgspec.Struct, frozen=True):
    """A command's log in one event, as JSON. `size` bytes of it are meant."""

    json: msgspec.Raw
    size: int

    @property
    def json_size(self) -> int:
        """Bytes of its JSON, but for the quotes."""
        return len(bytes(self.json)) - 2


_encode: Final = msgspec.json.Encoder().encode


def _shown(text: str, size: int) -> Shown:
    return Shown(msgspec.Raw(_encode(text)), size)


_NOTHING: Final = _shown("", 0)


class JobEvents:
    """Renders dispatcher events; keeps what their next ones need. Not for two threads at once:
    each has one of its own, with its own connection."""

    def __init__(
        self, db: Connection, epoch: str, state_dir: Path, log_limit: Callable[[], int]
    ) -> None:
        self.epoch = epoch
        self._log_limit = log_limit
        self._db = db
        self._state_dir = state_dir
        self._sheets: ByteCache[int, Sheet] = ByteCache(RECORDS_KEPT)
        # Logs of ended commands; by job, number and limit.
        self._texts: ByteCache[tuple[int, int, int], Shown] = ByteCache(LOGS_KEPT)

    def prepare(self, page: Iterable[Event]) -> None:
        """Read together what small jobs need whose events are told next."""
        told = {events.decode(event.body).job for event in page if event.system == _NUMBER}
        uids = [uid for uid in told if uid not in self._sheets]
        if len(uids) > 1:
            for job, commands in records.small(self._db, uids, SMALL):
                sheet = Sheet(job)
                sheet.have(commands)
                self._sheets.put(job.uid, sheet, sheet.size)

    def args(self, event: Event, dialect: Dialect, limit: int) -> bytes:
        """The JSON text of `args`, at most `limit` bytes; b"": no event in this dialect."""
        told = events.decode(event.body)
        sheet = self._sheet(told.job)
        if sheet is None:
            # Only a database edited by hand lacks it; the event is told all the same.
            return _encode({"state": told.state, "process_id": ""})
        if not dialect.tells(sheet.job, told):
            return b""
        size = sheet.size
        if dialect.lists_pending:
            sheet.begin(self._db)
        entries = sheet.entries(self._db, told)
        # By now it may have its commands.
        if sheet.size != size:
            self._sheets.put(told.job, sheet, sheet.size)
        job = sheet.job
        shown = {} if told.state == "pending" else self._logs(sheet, told)

        def args(texts: Mapping[int, Shown]) -> dict[str, Any]:
            logs = {n: log.json for n, log in texts.items()}
            return dialect.job_args(
                job, told, Commands(sheet.texts, entries, sheet.shared, logs)
            )

        encoded = _encode(args(shown))
        return encoded if len(encoded) <= limit else _shorten(args, shown, dialect, limit)

    def notice(self, event: Event, dialect: Dialect) -> bytes:
        """The JSON text of `args` of a frame that goes before it; b"": there is none."""
        told = events.decode(event.body)
        sheet = self._sheet(told.job) if told.is_start else None
        notice = None if sheet is None else dialect.notice(sheet.job, told)
        return b"" if notice is None else _encode(notice)

    def notable(self, event: Event, *, finished: bool) -> bool:
        """Is it a job's end or, unless `finished`, its start, or an event of a class?"""
        told = events.decode(event.body)
        if told.state == "finished" or finished:
            return told.state == "finished"
        sheet = None if told.is_start else self._sheet(told.job)
        return told.is_start or (sheet is not None and sheet.job.event_system is not None)

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
        """The last event, with the bytes and fields of all of them."""
        all_told = [events.decode(event.body) for event in run]
        last, fields = all_told[-1], dict[str, Any]()
        for told in all_told:
            fields.update(told.fields or {})
        merged = fields if last.fields is not None else None
        body = _encode(msgspec.structs.replace(last, start=all_told[0].start, fields=merged))
        return msgspec.structs.replace(run[-1], body=body)

    def _sheet(self, uid: int) -> Sheet | None:
        sheet = self._sheets.get(uid)
        if sheet is None:
            job = records.row(self._db, uid)
            if job is not None:
                sheet = Sheet(job)
                self._sheets.put(uid, sheet, sheet.size)
        return sheet

    def _logs(self, sheet: Sheet, told: Told) -> dict[int, Shown]:
        """The logs that the event shows, newest command first until the budget is spent."""
        limit, job = self._log_limit(), sheet.job
        uid = job.uid
        budget = LOGS_PER_EVENT * limit
        shown: dict[int, Shown] = {}
        if told.end > told.start:
            command = sheet.commands[told.command]
            n, copies = command.n, _copies(sheet, command) + (job.log_field is not None)
            shown[n] = self._read(uid, n, told.start, told.end, limit)
            budget -= copies * shown[n].json_size
        for command in reversed(sheet.ended(told)):
            if not was_started(command):
                continue
            size = command.log_size or 0
            if not size:
                shown[command.n] = _NOTHING
                continue
            copies = _copies(sheet, command)
            if job.log_field is not None and told.state == "finished" and not shown:
                # The last one, which its class shows too.
                copies += 1
            room = min(limit, budget // copies)
            log = None
            # As JSON no text is shorter; and what is cut to `limit` fits into no less.
            if size <= room or room == limit:
                log = self._whole(uid, command, size, limit)
            if log is None or log.json_size > room:
                log = _shown(marker(size), size)
            shown[command.n] = log
            budget -= copies * log.json_size
        return shown

    def _whole(self, uid: int, command: Command, size: int, limit: int) -> Shown:
        """The log of a command that has ended."""
        n = command.n
        if command.reason is not None:
            # It could not be written.
            piece = Piece(command.reason.encode(), b"", size)
            return _shown(clip(piece, limit), size)
        log = self._texts.get((uid, n, limit))
        if log is None:
            log = self._read(uid, n, 0, size, limit)
            self._texts.put((uid, n, limit), log, log.json_size + _LOG)
        return log

    def _read(self, uid: int, n: int, start: int, end: int, limit: int) -> Shown:
        size = end - start
        path = logs.path(self._state_dir, uid, n)
        data = logs.beginning(path, end)[start:] if end <= min(limit, SHORT) else b""
        if len(data) == size:
            piece = Piece(data, b"", size)
        else:
            piece = Piece(*logs.ends(path, start, end, limit), size)
        return _shown(clip(piece, limit), size)


def _copies(sheet: Sheet, command: Command) -> int:
    """How often its log stands in an event: one with a shared key is in `commands`, too."""
    return 1 + (command.text in sheet.shared)


def _shorten(
    args: Callable[[Mapping[int, Shown]], dict[str, Any]],
    shown: Mapping[int, Shown],
    dialect: Dialect,
    limit: int,
) -> bytes:
    """Of an event that is too long the logs go, oldest first, down to their markers."""
    markers = {n: _shown(marker(log.size), log.size) for n, log in sorted(shown.items())}
    oldest = [n for n, short in markers.items() if short.json_size < shown[n].json_size]

    def without(count: int) -> dict[str, Any]:
        return args({**shown, **{n: markers[n] for n in oldest[:count]}})

    # The fewest that are enough, if any number is.
    few = bisect_left(
        range(len(oldest)), True, key=lambda count: len(_encode(without(count))) <= limit
    )
    shortened = without(few)
    encoded = _encode(shortened)
    if len(encoded) > limit:
        dialect.shorten(shortened)
        encoded = _encode(shortened)
    return encoded


def _progress(event: Event) -> Told | None:
    if event.system != 0:
        return None
    told = events.decode(event.body)
    return told if told.is_progress else None
