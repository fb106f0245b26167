"""Times, jobs and commands as JSON values, as every dialect has them. No log text, no event."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import msgspec

from dispatcher.records import Command, JobRow
from sysadmd.settings import NO_QUEUE

_encode: Final = msgspec.json.Encoder().encode
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# What a year of four digits has, from 0001 to 9999; ms since 1970.
_FIRST: Final = -62_135_596_800_000
_LAST: Final = 253_402_300_799_999
_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,20})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


class CommandEntry(msgspec.Struct, frozen=True):
    """One command as an event tells it. value: its JSON, but for the log."""

    text: str
    return_code: str | None
    value: msgspec.Raw


# Events of one commit share their moment, those of one job its times.
@lru_cache(maxsize=4096)
def rfc3339(ms: int) -> str:
    """Milliseconds since 1970 as `2026-11-24T18:00:02.123Z`; the first or last moment that has
    a year of four digits, for what lies beyond."""
    moment = _EPOCH + timedelta(milliseconds=min(max(ms, _FIRST), _LAST))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_rfc3339(text: str) -> int | None:
    """The first millisecond since 1970 that is not before this time; None: it is none.

    Source: RFC 3339, 5.6; leap seconds are none, and below a microsecond nothing counts.
    """
    if _RFC3339.fullmatch(text) is None:
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    return -((_EPOCH - moment) // timedelta(milliseconds=1))


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


def queue_name(queue: str | None) -> str:
    """A queue as the wire names it."""
    return NO_QUEUE if queue is None else queue


# A report may be long: its values are handed on as they are written.
_shallow: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def told_by_class(job: JobRow) -> dict[str, msgspec.Raw]:
    """What a job's class tells of it now, or told at its end."""
    return _shallow(job.report)


def job_value(job: JobRow, commands: Iterable[Command]) -> dict[str, Any]:
    """All that is known of a job. Values of `env` are never told, only names."""
    return {
        "id": job.id,
        "queue": queue_name(job.queue),
        "account": job.account,
        "state": job.state,
        "result": job.result,
        "time_created": rfc3339(job.created),
        "time_started": _time(job.started),
        "time_finished": _time(job.finished),
        "timeout": job.timeout,
        "cwd": job.cwd,
        "env": sorted(job.env),
        "event_system": job.event_system,
        "fields": {**job.fields, **told_by_class(job)},
        "commands": [command_value(command) for command in commands],
    }


def list_value(job: JobRow, texts: Sequence[str], position: int | None) -> dict[str, Any]:
    """An active job as `list` shows it. texts: of its commands. position: in its queue."""
    value: dict[str, Any] = {
        "commands": texts,
        "state": job.state,
        "position": position,
        "time_created": rfc3339(job.created),
        "time_started": _time(job.started),
        "account": job.account,
    }
    if job.queue is not None and position is not None:
        # The original's key.
        value["queue_position"] = str(position)
    return value


def command_value(command: Command) -> dict[str, Any]:
    """One command, without its log. Of one that runs it is told how far that was told."""
    code = command.return_code
    size = command.told if command.log_size is None else command.log_size
    return {
        "command": command.text,
        "argv": msgspec.Raw(command.argv),
        "state": command.state,
        "return_code": None if code is None else str(code),
        "log_size": size,
        "time_started": _time(command.started),
        "time_finished": _time(command.finished),
    }


def entry(command: Command) -> CommandEntry:
    """One command for events."""
    value = command_value(command)
    return CommandEntry(command.text, value["return_code"], msgspec.Raw(_encode(value)))


def with_log(value: msgspec.Raw, log: msgspec.Raw) -> msgspec.Raw:
    """A command's JSON object, and in it its log, which is JSON, too."""
    return msgspec.Raw(b'%s,"log":%s}' % (bytes(value)[:-1], bytes(log)))
