"""What is said in the document's words: replies, errors, events. Values in, JSON out.

Source: events.rst; docs/protocol.md for errors, `commands` and `result`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from collectors import lp_events
from dispatcher.events import Told
from dispatcher.records import JobRow
from server.dialects.values import CommandEntry, rfc3339, told_by_class, with_log
from server.wire.envelope import error_args, frame
from server.wire.protocol import ProtocolError, Request
from sysadmd.events import SYSTEMS
from sysadmd.journal import Event

RETURN_CODE: Final = "return_codes/"
# Keys of process_details that are never a command's own.
RESERVED: Final = frozenset(
    (
        *("state", "process_id", "time_started", "time_finished"),
        *("cmd_list", "current_cmd", "commands", "result"),
    )
)

_encode: Final = msgspec.json.Encoder().encode
_NO_TEXT: Final = msgspec.Raw(b'""')


@dataclass(frozen=True, slots=True)
class Commands:
    """A job's commands as an event tells them. texts: a JSON list; logs: JSON texts by number.

    shared: the texts that several of them have.
    """

    texts: msgspec.Raw
    entries: Sequence[CommandEntry]
    shared: Collection[str]
    logs: Mapping[int, msgspec.Raw]


class Documented:
    """The dialect of events.rst, and what every other one is told apart by."""

    # Without `args` the request's whole object is taken for them.
    args_by_default = False
    # What waits is told with its commands.
    lists_pending = False
    # Its client connects again by itself when the connection ends, and never after an error.
    comes_again = False
    # Some events have a notice before them.
    has_notices = False
    # Of events: their `id`, and their names in the order of SYSTEMS.
    event_id = "none"
    event_names = tuple(system.replace("-", "_") for system in SYSTEMS)

    def names(self, names: list[str]) -> list[str] | str:
        """The systems in the reply to a subscription."""
        return names

    def reply(self, request: Request, args: Any) -> bytes:
        """A reply's frame."""
        return frame(request.namespace, "response", request.id, args)

    def error(self, error: ProtocolError) -> bytes:
        """An error's frame."""
        return frame(error.namespace, "error", error.id, error_args(error))

    def login_error(self, error: ProtocolError) -> ProtocolError:
        """How a login is refused that this is wrong with."""
        return error

    def system_state(self, body: bytes) -> bytes:
        """`args` of such an event, from its body in the journal: JSON texts."""
        return body

    def life_preserver(self, event: Event) -> bytes:
        """`args` of such an event: a JSON text."""
        return lp_events.documented(event.body)

    def tells(self, job: JobRow, told: Told) -> bool:
        """Is there such an event of a job?"""
        return True

    def job_args(self, job: JobRow, told: Told, commands: Commands) -> dict[str, Any]:
        """`args` of a job's event."""
        args: dict[str, Any] = {"state": told.state, "process_id": job.id}
        if job.event_system:
            args = {**class_fields(job, told, commands), **args}
        if told.state != "pending":
            args["process_details"] = process_details(job, told, commands)
        elif job.event_system:
            args["process_details"] = {"state": "pending", "process_id": job.id}
        return args

    def notice(self, job: JobRow, told: Told) -> dict[str, Any] | None:
        """`args` of a frame that goes before an event's own, where that is no resumed one."""
        return None

    def shorten(self, args: dict[str, Any]) -> None:
        """Take out of a job's event what `show` has, too."""
        args.get("process_details", args).pop("commands", None)


def class_fields(job: JobRow, told: Told, commands: Commands) -> dict[str, Any]:
    """What the class that queued a job has told of it, and the present command's output."""
    fields: dict[str, Any] = {"event_system": job.event_system, **job.fields}
    if told.state == "finished":
        fields.update(told_by_class(job))
    elif told.fields is not None:
        fields.update(told.fields)
    if job.log_field:
        # At the end that of the last command that was run.
        number = max(commands.logs, default=0) if told.state == "finished" else told.command
        fields[job.log_field] = commands.logs.get(number, _NO_TEXT)
    return fields


def process_details(job: JobRow, told: Told, commands: Commands) -> dict[str, Any]:
    """What an event says of a job's commands."""
    finished = told.state == "finished"
    # A job that never ran was started and finished at one moment: the document wants both keys.
    started = job.started or job.finished or job.created
    details: dict[str, Any] = {
        "state": told.state,
        "process_id": job.id,
        "time_started": rfc3339(started),
        "cmd_list": commands.texts,
    }
    if finished:
        details["time_finished"] = rfc3339(job.finished or started)
        details["result"] = job.result
    elif commands.entries:
        details["current_cmd"] = commands.entries[told.command].text
    codes: dict[str, str] = {}
    values: list[msgspec.Raw] = []
    for number, entry in enumerate(commands.entries):
        text, value, log = entry.text, entry.value, commands.logs.get(number)
        if log is not None:
            reserved = text in RESERVED or text.startswith(RETURN_CODE)
            if not reserved:
                details[text] = log
            if reserved or text in commands.shared:
                value = with_log(value, log)
        if entry.return_code is not None:
            codes[RETURN_CODE + text] = entry.return_code
        values.append(value)
    details.update(codes)
    details["commands"] = values
    return details
