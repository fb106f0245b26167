"""What an event says, for people: text, priority, details. Pure; one event at a time.

What a server says may be of any form: what makes no sense is left out, and never an error.
What was told before, and the output of jobs, is known in `job_lines`; how it stands in a
terminal is decided in `layout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, cast

from sysadmd.ctl.bar import HowFar, mapping
from sysadmd.ctl.id_text import short_id
from sysadmd.ctl.job_text import code_text, command_text, shortened, where_it_ended
from sysadmd.ctl.moments import span
from sysadmd.ctl.pool_text import (
    briefly,
    counted,
    device_rows,
    percent_used,
    pool_reasons,
    scan_text,
)
from sysadmd.ctl.priorities import category, colour_of, priority_of

if TYPE_CHECKING:
    from sysadmd.client import EventFrame

# A job that did not succeed counts so much; one whose end nobody knows, more.
_NOT_SUCCEEDED: Final = 3
_LOST: Final = 6
# Pools that are named where many have vanished.
_NAMED: Final = 3
# A gap is what nobody may miss.
_GAP: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class EventText:
    """An event for people. priority: 0 to 10. details: lines of their own."""

    system: str
    priority: int
    text: str
    colour: str | None
    details: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """What the priority is called."""
        return category(self.priority)


def system_name(name: str) -> str:
    """A system, a gap or a snapshot, as all commands spell it: `life-preserver`."""
    return name.replace("_", "-")


def describe(event: EventFrame, *, whole_ids: bool = False) -> EventText:
    """An event in one line, and its details. whole_ids: where a program reads."""
    args = mapping(event.args)
    system = system_name(event.name)
    if system == "gap":
        text = f"{_said(args.get('count'))} events are gone: {_said(args.get('reason'))}"
        return EventText(system=system, priority=_GAP, text=text, colour="red")
    if system == "dispatcher":
        return _of_job(args, whole_ids)
    priority = priority_of(args)
    if system == "system-state":
        text, details = state_text(args), tuple(_pools(args))
    else:
        text, details = _said(args.get("message")), ()
    return EventText(
        system=system,
        priority=priority,
        text=text,
        colour=colour_of(priority),
        details=details,
    )


def job_id(args: Mapping[str, Any]) -> str:
    """The id of the job that an event is of."""
    return _said(args.get("process_id", mapping(args.get("process_details")).get("process_id")))


def entries(args: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What an event of a job says of its commands, in order; may be empty."""
    found: object = mapping(args.get("process_details")).get("commands")
    if not isinstance(found, list):
        return []
    return [mapping(entry) for entry in cast("list[object]", found)]


def running(args: Mapping[str, Any]) -> int | None:
    """The number of the command that runs, from 0; None: that is not told."""
    states = [entry.get("state") for entry in entries(args)]
    return states.index("running") if "running" in states else None


def took(entry: Mapping[str, Any]) -> float | None:
    """How long a job or command ran, s; None: that is not told."""
    try:
        start, end = (
            datetime.fromisoformat(_said(entry.get(key)))
            for key in ("time_started", "time_finished")
        )
        return max(0.0, (end - start).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _of_job(args: Mapping[str, Any], whole_ids: bool) -> EventText:
    id = job_id(args) if whole_ids else short_id(job_id(args))
    details = mapping(args.get("process_details"))
    state = _said(args.get("state"))
    if state == "finished":
        result = _said(details.get("result"))
        text, priority, colour = _end(args, details), _NOT_SUCCEEDED, "red"
        if result == "succeeded":
            priority, colour = 0, "green"
        elif result == "lost":
            priority = _LOST
    else:
        text, priority, colour = _going_on(args, details, state), 0, None
    return EventText(
        system="dispatcher",
        priority=priority,
        text=f"{id} {text}",
        colour=colour,
        details=tuple(_commands(args)),
    )


def _going_on(args: Mapping[str, Any], details: Mapping[str, Any], state: str) -> str:
    number, count = running(args), len(entries(args))
    text = state
    if number is not None and count > 1:
        text += f" {number + 1} of {count}"
    command = command_text(entries(args)[number]) if number is not None else ""
    command = command or _said(details.get("current_cmd"))
    if command:
        text += f": {command}"
    far = HowFar.read(args)
    return text + (f" ({far})" if far is not None else "")


def _end(args: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    result, commands = _said(details.get("result")), entries(args)
    text = f"finished: {result}"
    length = took(details)
    started = any(entry.get("time_started") for entry in commands) or not commands
    if length is not None and started:
        text += f" after {span(length)}"
    elif commands:
        text += " before it started"
    problems = args.get("problems")
    if isinstance(problems, list) and problems:
        text += f", {counted(len(cast('list[object]', problems)), 'problem')}"
    if not commands or not started:
        return text
    if result == "succeeded":
        names = shortened(" + ".join(map(command_text, commands)))
        return f"{text} ({names})" if names else text
    if where := where_it_ended(commands, result):
        text += f"; {where}"
    skipped = sum(entry.get("state") == "skipped" for entry in commands)
    return f"{text}; {skipped} skipped" if skipped else text


def _commands(args: Mapping[str, Any]) -> list[str]:
    """A line for each command."""
    commands = entries(args)
    lines: list[str] = []
    for number, entry in enumerate(commands, 1):
        parts = [f"{number} of {len(commands)}", _said(entry.get("state"))]
        if code := _said(entry.get("return_code")):
            parts[-1] = code_text(code)
        if (length := took(entry)) is not None:
            parts.append(f"after {span(length)}")
        lines.append(f"{' '.join(parts)}: {command_text(entry)}")
    return lines


def state_text(args: Mapping[str, Any]) -> str:
    """What a system-state event says, in one line: what is not fine, and how many pools are."""
    parts: list[str] = []
    host = _said(args.get("hostname"))
    if args.get("hostnamechanged") == "true":
        was = _said(args.get("previous_hostname"))
        parts.append(f"host {host}" + (f" (was {was})" if was else ""))
    fine = 0
    for name, pool in mapping(args.get("zpools")).items():
        # Errors of a device leave the pool's own priority at 0.
        if priority_of(mapping(pool)) or pool_reasons(mapping(pool), name):
            parts.append(pool_text(name, mapping(pool)))
        else:
            fine += 1
    vanished = _vanished(args)
    if len(vanished) > _NAMED:
        parts.append(f"{len(vanished)} pools vanished: {briefly(vanished, _NAMED)}")
    else:
        parts += [f"{name} vanished" for name in vanished]
    if "error" in args:
        parts.append(_said(args["error"]))
    if fine:
        parts.append(f"{counted(fine, 'pool')} fine")
    return ", ".join(parts) if parts else f"host {host}"


def pool_text(name: str, pool: Mapping[str, Any]) -> str:
    """A pool in one line: `tank ONLINE 50 %: ada1 has 574 checksum errors`."""
    used = percent_used(pool)
    text = f"{name} {_said(pool.get('health'))}" + (f" {used} %" if used is not None else "")
    reasons = pool_reasons(pool, name)
    return text + (f": {briefly(reasons)}" if reasons else "")


def _vanished(args: Mapping[str, Any]) -> list[str]:
    """Pools that are not there any more."""
    found: object = args.get("vanished")
    if not isinstance(found, list):
        return []
    return [_said(name) for name in cast("list[object]", found)]


def _pools(args: Mapping[str, Any]) -> list[str]:
    """A line for the host, for each pool, and for each device that is not well."""
    lines = [f"host {host}"] if (host := _said(args.get("hostname"))) else []
    for name, found in mapping(args.get("zpools")).items():
        pool = mapping(found)
        scan = scan_text(pool)
        lines.append(pool_text(name, pool) + (f"; {scan}" if scan else ""))
        for device, state, read, write, checksum, note in device_rows(pool):
            text = f"  {device} {state}, errors: read {read}, write {write}, cksum {checksum}"
            lines.append(text + (f" ({note})" if note else ""))
    return lines + [f"{name} vanished" for name in _vanished(args)]


def _said(value: object) -> str:
    """A text, or a number as one; empty for whatever else came in its place."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
