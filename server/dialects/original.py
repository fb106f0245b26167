"""What is said in the words of the original server, as its Qt client knows them.

Source: the original server of 2018, its defects excepted; docs/protocol.md, "Dialect".
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from collectors import lp_events
from dispatcher.events import Told
from dispatcher.records import JobRow
from server.dialects.documented import (
    Commands,
    Documented,
    class_fields,
    process_details,
)
from server.wire.envelope import error_args, frame
from server.wire.protocol import ProtocolError, Request
from sysadmd.events import SYSTEMS
from sysadmd.journal import Event

# Priorities of what tells how far something is; it never had a date.
_PROGRESS: Final = "0/"
# The id by which its client gives itself away in its first request.
CLIENT_ID: Final = "sysadm_client_identify"


class Original(Documented):
    """What it says otherwise than the document."""

    args_by_default = True
    lists_pending = True
    comes_again = True
    has_notices = True
    event_id = ""
    event_names = SYSTEMS

    def names(self, names: list[str]) -> list[str] | str:
        # It named the last one only; all are named, and a single one in its form.
        return names[0] if len(names) == 1 else names

    def reply(self, request: Request, args: Any) -> bytes:
        # A request without a string id was answered under its own name.
        name = "response" if request.numbered else request.name
        return frame(request.namespace, name, request.id, args)

    def error(self, error: ProtocolError) -> bytes:
        args = {**error_args(error), "code": str(error.code)}
        return frame("error", "error", error.id, args)

    def login_error(self, error: ProtocolError) -> ProtocolError:
        # Its client asks for a password again after this one, and after no other.
        return ProtocolError(401, error.detail, namespace=error.namespace, id=error.id)

    def system_state(self, body: bytes) -> bytes:
        args: dict[str, Any] = msgspec.json.decode(body)
        _write_priorities(args)
        if not args.get("zpools"):
            # An empty one would take back the client's warning of a pool that has vanished.
            args.pop("zpools", None)
        return msgspec.json.encode(args)

    def life_preserver(self, event: Event) -> bytes:
        told = lp_events.decode(event.body)
        date = told.date
        if not date and not told.priority.startswith(_PROGRESS):
            # Its line had none: without one the client takes it for the same as the last one.
            date = _c_date(event.time if event.wall is None else event.wall)
        args = {
            "message": f"{date}: {told.message}" if date else told.message,
            "priority": _spelled(told.priority),
            "class": told.kind,
        }
        return msgspec.json.encode(args)

    def tells(self, job: JobRow, told: Told) -> bool:
        # A start notice, all at the end; of a class's jobs everything.
        return bool(job.event_system) or told.is_start or told.state == "finished"

    def notice(self, job: JobRow, told: Told) -> dict[str, Any] | None:
        # The start of a class's job was told twice: as of any job, and as its class tells it.
        if job.event_system and told.is_start:
            return {"process_id": job.id, "state": "running"}
        return None

    def job_args(self, job: JobRow, told: Told, commands: Commands) -> dict[str, Any]:
        if job.event_system is None and told.is_start:
            return {"process_id": job.id, "state": "running"}
        details = _details(job, told, commands)
        if job.event_system is None:
            return details
        fields = class_fields(job, told, commands)
        return {**fields, "state": told.state, "process_details": details}


def _details(job: JobRow, told: Told, commands: Commands) -> dict[str, Any]:
    """No addition of ours, and local times."""
    if told.state == "pending":
        return {"state": "pending", "process_id": job.id, "cmd_list": commands.texts}
    details = process_details(job, told, commands)
    for key in ("commands", "result"):
        details.pop(key, None)
    details["time_started"] = _local_time(job.started or job.finished or job.created)
    if "time_finished" in details:
        details["time_finished"] = _local_time(job.finished or job.created)
    return details


def _local_time(ms: int) -> str:
    """Whole seconds, no offset."""
    moment = datetime.fromtimestamp(ms / 1000, UTC).astimezone()
    return moment.replace(tzinfo=None).isoformat(timespec="seconds")


def _c_date(ms: int) -> str:
    """As date(1) says it in the C locale, which is how most logs have it; local time."""
    moment = time.localtime(ms / 1000)
    # Of any locale; the zone it lacks.
    day, year = time.asctime(moment).rsplit(" ", 1)
    return f"{day} {time.strftime('%Z', moment)} {year}"


def _spelled(priority: str) -> str:
    """`9/Urgent` as `9 - Urgent`."""
    return priority.replace("/", " - ", 1)


def _write_priorities(args: dict[str, Any]) -> None:
    """Over all, and of each pool."""
    for key, value in args.items():
        if key == "priority" and isinstance(value, str):
            args[key] = _spelled(value)
        elif key == "zpools":
            for pool in value.values():
                _write_priorities(pool)
