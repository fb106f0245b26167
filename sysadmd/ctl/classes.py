"""`sysadmctl pkg`, `update`, `vm`: what the server's classes do, and the jobs that they queue.

A job of a class is followed as one of `run`, and its status is ours. It is asked for once: the
same request again would be another job.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

from sysadmd.client import Client, Refused, Target, Unreachable, connect
from sysadmd.ctl.bar import mapping
from sysadmd.ctl.following import Follower
from sysadmd.ctl.ids import NOT_FOUND
from sysadmd.ctl.output import Printer
from sysadmd.ctl.run import Watch, exit_status
from sysadmd.errors import SysadmdError

# Source: the server's job ids. That of an update is told without what it begins with.
UPDATE_JOB: Final = "sysadm_update_runupdates::"
CHECK_JOB: Final = "sysadm_update_checkupdates"
# How often a check is followed: another client may begin the next one at once.
_CHECKS: Final = 3
# Columns of a table whose columns the server chooses.
_COLUMNS: Final = 12
_NOTHING: Final = 204
_STATUSES: Final = {
    "noupdates": "there are no updates",
    "updatesavailable": "updates are available",
    "rebootrequired": "a restart of the machine completes updates",
    "updaterunning": "an update is running",
    "checkingforupdates": "updates are being looked for",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """A request to a class. name: of the class; args: with the action."""

    name: str
    args: Mapping[str, object]

    @property
    def action(self) -> str:
        return str(self.args["action"])


async def run_class_job(target: Target, printer: Printer, order: Wish, wait: bool) -> int:
    """Ask for a job and, unless told not to, wait; returns the exit status.

    Raises: what the server refuses. Troubles after that are told, and are 125.
    """
    with Watch(printer) as watch:
        async with Follower(target, printer) as follower:
            try:
                reply = await follower.once(("sysadm", order.name), dict(order.args))
            except Unreachable:
                if follower.reached:
                    printer.note(watch.fate())
                raise
            id = _job_id(order, reply)
            watch.accept(id)
            if printer.as_json:
                printer.value(reply)
            elif not wait:
                printer.line(id)
            if not wait:
                return 0
            job = await follower.follow(id)
        _tell_end(printer, order.action, job)
        watch.status = exit_status(job)
    return watch.status


def _job_id(order: Wish, reply: Mapping[str, Any]) -> str:
    answer = _object(_answer(order.action, reply))
    id = answer["proc_id"] if "proc_id" in answer else answer["queueid"]
    if not isinstance(id, str):
        raise TypeError(f"the id of a job is {type(id).__name__}")
    bare = order.action == "startupdate" and not id.startswith(UPDATE_JOB)
    return UPDATE_JOB + id if bare else id


def _tell_end(printer: Printer, action: str, job: Mapping[str, Any]) -> None:
    """What a job has found, and its problems."""
    fields = mapping(job.get("fields"))
    if printer.as_json:
        printer.value({"job": job})
    else:
        summary = {"pkg_check_upgrade": newer, "pkg_audit": vulnerable}.get(action)
        if summary is not None:
            printer.line(summary(fields))
    _tell_problems(printer, fields)


def _tell_problems(printer: Printer, fields: Mapping[str, Any]) -> None:
    for problem in _texts(fields.get("problems")):
        printer.note(problem)


def newer(fields: Mapping[str, Any]) -> str:
    """Are there updates? In a sentence."""
    said = fields.get("updates_available")
    if said in ("true", True):
        return "updates are available"
    if said in ("false", False):
        return "no updates are available"
    return "it is not known whether updates are available"


def vulnerable(fields: Mapping[str, Any]) -> str:
    """Which packages have known holes? In a sentence."""
    said = fields.get("vulnerable_pkgs")
    if not isinstance(said, list | dict):
        return "it is not known which packages are vulnerable"
    names = _texts(cast("Any", said))
    # A list that is too long for an event is cut.
    more = fields.get("vulnerable_pkgs_left_out")
    if isinstance(more, int) and more > 0:
        names.append(f"and {more} more")
    return f"vulnerable packages: {', '.join(names)}" if names else "no vulnerable packages"


async def check_updates(target: Target, printer: Printer, force: bool) -> int:
    """Ask for updates, wait while they are looked for, and say what was found."""
    ask: dict[str, Any] = {"action": "checkupdates"}
    to = ("sysadm", "update")
    with Watch(printer) as watch:
        async with Follower(target, printer) as follower:
            reply = await follower.once(to, {**ask, "force": "true"} if force else ask)
            status = _object(_answer("checkupdates", reply))
            seen: object = None
            for _ in range(_CHECKS):
                if status["status"] != "checkingforupdates":
                    break
                watch.accept(CHECK_JOB)
                job = await _seen_through(follower)
                watch.leave()
                reply = await follower.ask(ask, to)
                status = _object(_answer("checkupdates", reply))
                if job is not None:
                    _tell_problems(printer, mapping(job.get("fields")))
                    if job["time_created"] == seen:
                        # It is over: who says that it goes on will say so for ever.
                        break
                    seen = job["time_created"]
        if printer.as_json:
            printer.value(reply)
        else:
            _print_status(printer, status)
    return watch.status


async def _seen_through(follower: Follower) -> dict[str, Any] | None:
    """The job of a check at its end; None: there is none to be seen, after a moment."""
    try:
        return await follower.follow(CHECK_JOB)
    except Refused as error:
        if error.number != NOT_FOUND:
            raise
        await asyncio.sleep(1)
        return None


def _print_status(printer: Printer, status: Mapping[str, Any]) -> None:
    word = str(status["status"])
    printer.line(_STATUSES.get(word, word))
    for key, value in status.items():
        if key == "status":
            continue
        if parts := mapping(value):
            value = ", ".join(f"{name} {part}" for name, part in parts.items())
        for line in str(value).splitlines():
            printer.line(line if key == "details" else f"{key} {line}")


async def do(target: Target, printer: Printer, name: str, args: Mapping[str, object]) -> int:
    """A request whose answer is that it is done."""
    reply, answer = await _ask(target, name, args)
    if printer.as_json:
        printer.value(reply)
        return 0
    result = _object(answer).get("result", "success")
    if result != "success":
        printer.line(str(result))
    return 0


async def list_names(
    target: Target, printer: Printer, name: str, args: Mapping[str, object]
) -> int:
    """A list of texts, one a line."""
    reply, answer = await _ask(target, name, args)
    names = _list(answer)
    if printer.as_json:
        printer.value(reply)
        return 0
    for item in names:
        printer.line(str(item))
    return 0


async def list_packages(target: Target, printer: Printer, args: Mapping[str, object]) -> int:
    """Packages by name, version and what they are, in the server's order, reply by reply."""
    rows: list[list[tuple[str, str | None]]] = []
    async with connect(target) as client:
        async for reply, answer in _pages(client, "pkg", args):
            of_page = _package_rows(_object(answer))
            if printer.as_json:
                printer.value(reply)
            else:
                rows += of_page
    if not printer.as_json:
        printer.table(["NAME", "VERSION", "ORIGIN", "COMMENT"], rows)
    return 0


def _package_rows(answer: dict[str, Any]) -> list[list[tuple[str, str | None]]]:
    found = {key: value for key, value in answer.items() if key != "results_order"}
    order = _texts(answer.get("results_order"))
    keys = dict.fromkeys([*(key for key in order if key in found), *found])
    rows: list[list[tuple[str, str | None]]] = []
    for key in keys:
        package = mapping(found[key])
        texts = [str(package.get(column, "-")) for column in ("version", "origin", "comment")]
        rows.append([(str(package.get("name", key)), None), *((text, None) for text in texts)])
    return rows


async def list_machines(target: Target, printer: Printer) -> int:
    """Virtual machines, with all that is said of each."""
    reply, answer = await _ask(target, "iohyve", {"action": "listvms"})
    machines = {name: _object(machine) for name, machine in _object(answer).items()}
    if printer.as_json:
        printer.value(reply)
        return 0
    keys = dict.fromkeys(key for machine in machines.values() for key in machine)
    columns = list(keys)[:_COLUMNS]
    rows: list[list[tuple[str, str | None]]] = [
        [(name, None), *((str(machine.get(key, "-")), None) for key in columns)]
        for name, machine in machines.items()
    ]
    printer.table(["NAME", *(key.upper() for key in columns)], rows)
    return 0


async def show_settings(target: Target, printer: Printer) -> int:
    """How updates are made."""
    reply, answer = await _ask(target, "update", {"action": "listsettings"})
    settings = _object(answer)
    if printer.as_json:
        printer.value(reply)
        return 0
    for key, value in settings.items():
        printer.line(f"{key:19} {value}")
    return 0


async def list_update_logs(target: Target, printer: Printer) -> int:
    """Logs of updates, and when each was written."""
    reply, answer = await _ask(target, "update", {"action": "listlogs"})
    logs = {name: _object(log) for name, log in _object(answer).items()}
    if printer.as_json:
        printer.value(reply)
        return 0
    rows: list[list[tuple[str, str | None]]] = [
        [(name, None), *((_moment(log.get(key)), None) for key in ("started", "finished"))]
        for name, log in logs.items()
    ]
    printer.table(["NAME", "STARTED", "FINISHED"], rows)
    return 0


async def print_update_log(target: Target, printer: Printer, name: str) -> int:
    """One log, as it is."""
    reply, answer = await _ask(target, "update", {"action": "readlogs", "logs": [name]})
    logs = _object(answer)
    if name not in logs:
        raise SysadmdError(f"there is no log {name!r}")
    if printer.as_json:
        printer.value(reply)
    else:
        printer.log(str(logs[name]))
    return 0


async def _ask(target: Target, name: str, args: Mapping[str, object]) -> tuple[Any, Any]:
    """The reply's args, and in them what the action gives. Raises: what the server refuses."""
    async with connect(target) as client:
        return await _ask_once(client, name, args)


async def _ask_once(client: Client, name: str, args: Mapping[str, object]) -> tuple[Any, Any]:
    try:
        reply = await client.request("sysadm", name, dict(args))
    except Refused as error:
        if error.number == _NOTHING and not error.detail:
            raise SysadmdError("nothing was found") from error
        raise
    return reply, _answer(str(args["action"]), reply)


async def _pages(
    client: Client, name: str, args: Mapping[str, object]
) -> AsyncIterator[tuple[Any, Any]]:
    """As `_ask`, until a reply is the last. Raises: SysadmdError if they lead nowhere."""
    while True:
        reply, answer = await _ask_once(client, name, args)
        yield reply, answer
        following = reply.get("next")
        if following is None:
            return
        # Each `next` is a greater number.
        if not _is_further(following, args.get("after", "0")):
            raise SysadmdError("the server's replies do not go on: its next is no later place")
        args = {**args, "after": following}


def _is_further(place: object, than: object) -> bool:
    said = str(place)
    return said.isascii() and said.isdigit() and len(said) < 20 and int(said) > int(str(than))


def _answer(action: str, reply: Mapping[str, Any]) -> Any:
    """What an action gives. Raises: SysadmdError where that is an error."""
    answer = reply[action]
    if isinstance(answer, dict):
        said = cast("dict[str, object]", answer)
        error, result = said.get("error"), said.get("result")
        if isinstance(error, str):
            raise SysadmdError(error)
        if isinstance(result, str) and result.startswith("error"):
            detail = said.get("detail")
            raise SysadmdError(detail if isinstance(detail, str) else result)
    return cast("Any", answer)


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"an object is expected, not {type(value).__name__}")
    return cast("dict[str, Any]", value)


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"a list is expected, not {type(value).__name__}")
    return cast("list[object]", value)


def _texts(value: object) -> list[str]:
    """The texts in a list; what is none is left out."""
    if not isinstance(value, list | dict):
        return []
    return [item for item in cast("list[object]", value) if isinstance(item, str)]


def _moment(said: object) -> str:
    """Seconds since 1970 as a date; anything else as it is."""
    text = "-" if said is None else str(said)
    try:
        return datetime.fromtimestamp(int(text), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return text
