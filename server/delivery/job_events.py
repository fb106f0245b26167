"""Dispatcher events as the document has them, from journal row, the job's record, its logs.

The journal holds no log text; a frame is filled in when it is made. Since the record of an
ended command never changes, the same row gives the same frame today and after a year, as long
as the log is there; bytes that are gone are counted in a marker line.

Source: events.rst "Dispatcher"; docs/protocol.md for `commands`, `result` and the limits.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from dispatcher import logs, records
from dispatcher.records import Command, Job
from server.delivery.clipping import Piece, clip, marker
from server.delivery.forms import Dialect
from server.dialects.timestamps import local_time, rfc3339
from sysadmd.journal import Event
from sysadmd.store import Store
from sysadmd.text import json_size

# Keys of process_details that are never a command's own.
RESERVED: Final = frozenset(
    (
        *("state", "process_id", "time_started", "time_finished"),
        *("cmd_list", "current_cmd", "commands", "result"),
    )
)
_RETURN_CODE: Final = "return_codes/"
# All logs of one event together, as a multiple of event_log_limit.
LOGS_PER_EVENT: Final = 4
# Finished jobs whose records are kept at hand: their next event needs them again. A thousand
# that were asked for at once have a thousand events between two of their own.
RECORDS_KEPT: Final = 1024


class Told(msgspec.Struct, frozen=True):
    """The journal's body of a dispatcher event.

    running: the commands before `command` have ended, it runs, and the bytes start..end of its
    log are new. finished: the record says all.
    """

    job: int
    state: str
    command: int = 0
    start: int = msgspec.field(default=0, name="from")
    end: int = msgspec.field(default=0, name="to")


class Shown(msgspec.Struct, frozen=True):
    """A command's log in one event; `size` bytes of it are meant, `text` shows them or some."""

    text: str
    size: int


_decode: Final = msgspec.json.Decoder(Told).decode
_encode: Final = msgspec.json.Encoder().encode


class JobEvents:
    """Renders dispatcher events; remembers the records of finished jobs."""

    def __init__(self, store: Store, state_dir: Path, log_limit: int) -> None:
        self.epoch = store.epoch
        self.log_limit = log_limit
        self._store = store
        self._state_dir = state_dir
        self._records: OrderedDict[int, Job] = OrderedDict()

    def args(self, event: Event, dialect: Dialect, limit: int) -> bytes:
        """The JSON text of `args`, at most `limit` bytes; b"": no event in this dialect."""
        told = _decode(event.body)
        job = self._job(told.job)
        if job is None:
            # Only a database edited by hand lacks it; the event is told all the same.
            return _encode({"state": told.state, "process_id": ""})
        if dialect == "sysadm-client":
            return self._original(job, told, limit)
        if told.state == "pending":
            return _encode(_pending(job))
        shown = self._logs(job, told)
        encoded = _encode(_args(job, told, shown))
        # Too long: first the logs go, oldest first, down to their marker lines.
        for number in sorted(shown):
            if len(encoded) <= limit:
                return encoded
            short = Shown(marker(shown[number].size), shown[number].size)
            if json_size(short.text) < json_size(shown[number].text):
                shown[number] = short
                encoded = _encode(_args(job, told, shown))
        if len(encoded) > limit:
            args = _args(job, told, shown)
            del args["process_details"]["commands"]
            encoded = _encode(args)
        return encoded

    def _original(self, job: Job, told: Told, limit: int) -> bytes:
        """As the original server told it: a start notice, class events, and at the end all."""
        if job.event_system is None:
            if told.state == "running" and not told.command and not told.end:
                return _encode({"process_id": job.id, "state": "running"})
            if told.state != "finished":
                return b""
        shown = self._logs(job, told) if told.state != "pending" else {}
        encoded = _encode(_original_args(job, told, shown))
        for number in sorted(shown):
            if len(encoded) <= limit:
                break
            shown[number] = Shown(marker(shown[number].size), shown[number].size)
            encoded = _encode(_original_args(job, told, shown))
        return encoded

    def notable(self, event: Event, *, finished: bool) -> bool:
        """Is it a job's end or, unless `finished`, its start, or an event of a class?"""
        told = _decode(event.body)
        if told.state == "finished" or finished:
            return told.state == "finished"
        start = told.state == "running" and not told.command and not told.end
        job = None if start else self._job(told.job)
        return start or (job is not None and job.event_system is not None)

    def prepare(self, events: Iterable[Event]) -> None:
        """Read the records that these events need in one go."""
        wanted = {_decode(event.body).job for event in events if event.system == 0}
        for job in records.jobs(self._store.reader, wanted - self._records.keys()):
            self._keep(job)

    def mergeable(self, events: Sequence[Event], at: int) -> int:
        """The length of the run of progress events of one command that begins at `at`."""
        first = _progress(events[at])
        if first is None:
            return 1
        run, last = 1, first
        for event in events[at + 1 :]:
            told = _progress(event)
            if told is None:
                break
            if (told.job, told.command, told.start) != (first.job, first.command, last.end):
                break
            run, last = run + 1, told
        return run

    def merge(self, events: Sequence[Event]) -> Event:
        """The last event, with the bytes of all of them."""
        first, last = _decode(events[0].body), _decode(events[-1].body)
        body = _encode(msgspec.structs.replace(last, start=first.start))
        return msgspec.structs.replace(events[-1], body=body)

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
        budget = LOGS_PER_EVENT * self.log_limit
        shared = _shared(job)
        shown: dict[int, Shown] = {}
        for number, command in reversed(tuple(enumerate(job.commands))):
            start, end = _span(number, command, told)
            size = end - start
            if size <= 0:
                if _ended(number, command, told):
                    shown[number] = Shown("", 0)
                continue
            # A log without a key of its own, or with a shared one, stands in `commands` too.
            copies = 2 if command.text in shared else 1
            room = min(self.log_limit, budget // copies)
            full = clip(self._piece(job, number, start, end), self.log_limit)
            fits = json_size(full) <= room
            shown[number] = Shown(full if fits else marker(size), size)
            budget -= copies * json_size(shown[number].text)
        return shown

    def _piece(self, job: Job, number: int, start: int, end: int) -> Piece:
        path = logs.path(self._state_dir, job.uid, number)
        size, half = end - start, self.log_limit // 2
        if size <= self.log_limit:
            return Piece(logs.read(path, start, size), b"", size)
        return Piece(logs.read(path, start, half), logs.read(path, end - half, half), size)


def _shared(job: Job) -> Collection[str]:
    """The texts that several of its commands have: as keys of an object they are one."""
    if len(job.commands) < 2:
        return ()
    counts = Counter(command.text for command in job.commands)
    return {text for text, count in counts.items() if count > 1}


def _progress(event: Event) -> Told | None:
    if event.system != 0:
        return None
    told = _decode(event.body)
    return told if told.state == "running" and told.end > told.start else None


def _ended(number: int, command: Command, told: Told) -> bool:
    """Had the command ended, after having been started, when the event was told?"""
    if command.state in ("pending", "skipped"):
        return False
    return told.state == "finished" or number < told.command


def _span(number: int, command: Command, told: Told) -> tuple[int, int]:
    """The bytes of a command's log that the event shows; empty: none."""
    if _ended(number, command, told):
        return 0, command.log_size or 0
    if told.state == "running" and number == told.command:
        return told.start, told.end
    return 0, 0


def _pending(job: Job) -> dict[str, Any]:
    args: dict[str, Any] = {"state": "pending", "process_id": job.id}
    if job.event_system:
        args = {"event_system": job.event_system, **args, **job.fields}
        args["process_details"] = {"state": "pending", "process_id": job.id}
    return args


def _args(job: Job, told: Told, shown: Mapping[int, Shown]) -> dict[str, Any]:
    details = _process_details(job, told, shown)
    args: dict[str, Any] = {"state": told.state, "process_id": job.id}
    if job.event_system:
        args = {"event_system": job.event_system, **args, **job.fields}
    args["process_details"] = details
    return args


def _original_args(job: Job, told: Told, shown: Mapping[int, Shown]) -> dict[str, Any]:
    """`args` in the dialect of the Qt client: local times, no addition of ours."""
    if told.state == "pending":
        details: dict[str, Any] = {"state": "pending", "process_id": job.id}
    else:
        details = _process_details(job, told, shown)
        for key in ("commands", "result"):
            details.pop(key, None)
        details["time_started"] = local_time(job.started or job.finished or job.created)
        if "time_finished" in details:
            details["time_finished"] = local_time(job.finished or job.created)
    if job.event_system is None:
        return details
    return {
        "event_system": job.event_system,
        "state": told.state,
        **job.fields,
        "process_details": details,
    }


def _process_details(job: Job, told: Told, shown: Mapping[int, Shown]) -> dict[str, Any]:
    finished = told.state == "finished"
    # A job that never ran was started and finished at one moment: the document wants both keys.
    started = job.started or job.finished or job.created
    details: dict[str, Any] = {
        "state": told.state,
        "process_id": job.id,
        "time_started": rfc3339(started),
        "cmd_list": [command.text for command in job.commands],
    }
    if finished:
        details["time_finished"] = rfc3339(job.finished or started)
        details["result"] = job.result
    elif job.commands:
        details["current_cmd"] = job.commands[told.command].text
    shared = _shared(job)
    codes: dict[str, str] = {}
    entries: list[dict[str, Any]] = []
    for number, command in enumerate(job.commands):
        text, log = command.text, shown.get(number)
        entry = _entry(command, told, number)
        if log is not None:
            reserved = _reserved(text)
            if not reserved:
                details[text] = log.text
            if reserved or text in shared:
                entry["log"] = log.text
        if entry["return_code"] is not None:
            codes[_RETURN_CODE + text] = entry["return_code"]
        entries.append(entry)
    details.update(codes)
    details["commands"] = entries
    return details


def _reserved(text: str) -> bool:
    return text in RESERVED or text.startswith(_RETURN_CODE)


def _entry(command: Command, told: Told, number: int) -> dict[str, Any]:
    """One command of `commands`, as it was when the event was told."""
    entry: dict[str, Any] = {
        "command": command.text,
        "argv": command.argv,
        "state": "pending" if told.state != "finished" else command.state,
        "return_code": None,
        "log_size": 0,
        "time_started": None,
        "time_finished": None,
    }
    ended = _ended(number, command, told)
    running = told.state == "running" and number == told.command
    if command.started and (ended or running):
        entry["time_started"] = rfc3339(command.started)
    if ended:
        entry["state"] = command.state
        entry["log_size"] = command.log_size or 0
        if command.return_code is not None:
            entry["return_code"] = str(command.return_code)
        if command.finished:
            entry["time_finished"] = rfc3339(command.finished)
    elif running:
        entry["state"] = "running"
        entry["log_size"] = told.end
    return entry
