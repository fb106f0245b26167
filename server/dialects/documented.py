"""What is said in the document's words: replies, errors, events. Values in, JSON out.

Source: events.rst; docs/protocol.md for errors, `commands` and `result`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from dispatcher.events import Told
from dispatcher.records import Command, Job
from server.dialects.values import command_value, rfc3339
from server.wire.protocol import ProtocolError, Request
from sysadmd.events import SYSTEMS

# Characters of an error's detail: it may quote what was asked for.
DETAIL: Final = 1024
RETURN_CODE: Final = "return_codes/"
# Keys of process_details that are never a command's own.
RESERVED: Final = frozenset(
    (
        *("state", "process_id", "time_started", "time_finished"),
        *("cmd_list", "current_cmd", "commands", "result"),
    )
)

_encode: Final = msgspec.json.Encoder().encode


class Documented:
    """The dialect of events.rst, and what every other one is told apart by."""

    # Without `args` the request's whole object is taken for them.
    args_by_default = False
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

    def args(self, body: bytes) -> bytes:
        """`args` of an event that is not a job's, from its body in the journal: JSON texts."""
        return body

    def tells(self, job: Job, told: Told) -> bool:
        """Is there such an event of a job?"""
        return True

    def job_args(self, job: Job, told: Told, logs: Mapping[int, str]) -> dict[str, Any]:
        """`args` of a job's event. logs: the text shown of each command, by its number."""
        args: dict[str, Any] = {"state": told.state, "process_id": job.id}
        if job.event_system:
            args = {"event_system": job.event_system, **args, **job.fields}
        if told.state != "pending":
            args["process_details"] = process_details(job, told, logs)
        elif job.event_system:
            args["process_details"] = {"state": "pending", "process_id": job.id}
        return args

    def shorten(self, args: dict[str, Any]) -> None:
        """Take out of a job's event what `show` has, too."""
        args.get("process_details", args).pop("commands", None)


def frame(namespace: str, name: str, id: str, args: Any) -> bytes:
    """The JSON text of a frame with no more than the four keys."""
    return _encode({"namespace": namespace, "name": name, "id": id, "args": args})


def error_args(error: ProtocolError) -> dict[str, Any]:
    """`args` of an error."""
    phrase = HTTPStatus(error.code).phrase
    return {"code": error.code, "message": phrase, "detail": error.detail[:DETAIL]}


def process_details(job: Job, told: Told, logs: Mapping[int, str]) -> dict[str, Any]:
    """What an event says of a job's commands."""
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
    shared = shared_texts(job)
    codes: dict[str, str] = {}
    entries: list[dict[str, Any]] = []
    for number, command in enumerate(job.commands):
        text, log = command.text, logs.get(number)
        entry = command_value(_as_told(command, told, number))
        if log is not None:
            reserved = text in RESERVED or text.startswith(RETURN_CODE)
            if not reserved:
                details[text] = log
            if reserved or text in shared:
                entry["log"] = log
        if entry["return_code"] is not None:
            codes[RETURN_CODE + text] = entry["return_code"]
        entries.append(entry)
    details.update(codes)
    details["commands"] = entries
    return details


def shared_texts(job: Job) -> Collection[str]:
    """The texts that several of its commands have: as keys of an object they are one."""
    if len(job.commands) < 2:
        return ()
    counts = Counter(command.text for command in job.commands)
    return {text for text, count in counts.items() if count > 1}


def has_ended(command: Command, told: Told, number: int) -> bool:
    """Had the command ended, after having been started, when the event was told?"""
    if command.state in ("pending", "skipped"):
        return False
    return told.state == "finished" or number < told.command


def _as_told(command: Command, told: Told, number: int) -> Command:
    """The command as it was when the event was told: its record may say more by now."""
    if has_ended(command, told, number):
        return command
    running = told.state == "running" and number == told.command
    state = "running" if running else command.state if told.state == "finished" else "pending"
    return replace(
        command,
        state=state,
        return_code=None,
        started=command.started if running else None,
        finished=None,
        log_size=told.end if running else 0,
    )
