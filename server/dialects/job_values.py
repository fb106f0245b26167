"""Jobs as JSON values: `show`, `history`, `list`, snapshots. No log text, no event."""

from __future__ import annotations

from typing import Any

from dispatcher.records import Command, Job
from server.dialects.timestamps import rfc3339
from sysadmd.settings import NO_QUEUE


def queue_name(queue: str | None) -> str:
    """A queue as the wire names it."""
    return NO_QUEUE if queue is None else queue


def job_value(job: Job) -> dict[str, Any]:
    """All that is known of a job. Values of `env` are never told, only names."""
    return {
        "id": job.id,
        "queue": queue_name(job.queue),
        "state": job.state,
        "result": job.result,
        "time_created": rfc3339(job.created),
        "time_started": _time(job.started),
        "time_finished": _time(job.finished),
        "timeout": job.timeout,
        "cwd": job.cwd,
        "env": sorted(job.env),
        "event_system": job.event_system,
        "commands": [command_value(command) for command in job.commands],
    }


def command_value(command: Command) -> dict[str, Any]:
    """One command as it is now, without its log."""
    code = command.return_code
    return {
        "command": command.text,
        "argv": list(command.argv),
        "state": command.state,
        "return_code": None if code is None else str(code),
        "log_size": command.log_size or 0,
        "time_started": _time(command.started),
        "time_finished": _time(command.finished),
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)
