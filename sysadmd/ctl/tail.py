"""`sysadmctl tail`: events as they come, each once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, cast

from sysadmd.client import EventFrame, Target, events
from sysadmd.ctl.bar import HowFar
from sysadmd.ctl.output import Printer, colour
from sysadmd.errors import SysadmdError


async def run_tail(
    target: Target, printer: Printer, systems: Sequence[str], since: str, count: int | None
) -> int:
    """Print events until `count` of them are printed, or Ctrl-C, and then say where it was.

    Reconnections are told on stderr.
    """

    away = False

    def lost(error: SysadmdError, wait: float) -> None:
        nonlocal away
        if not away:
            printer.note(f"{error}; connecting again")
        away = True

    def again() -> None:
        nonlocal away
        away = False
        printer.note("connected again")

    printed, cursor = 0, ""
    stream = events(target, systems, since=since, lost=lost, again=again)
    async with contextlib.aclosing(stream):
        try:
            async for event in stream:
                if printer.as_json:
                    printer.value(event.frame)
                else:
                    text, fg = describe(event)
                    printer.line(f"{event.time} {event.name}: {text}", fg)
                cursor = event.cursor
                printed += event.name != "gap"
                if printed == count:
                    return 0
        except asyncio.CancelledError:
            if cursor:
                printer.note(f"`--since {cursor}` goes on from here")
            raise
    return 0


def describe(event: EventFrame) -> tuple[str, str | None]:
    """An event in one line, and its colour."""
    args = event.args
    if event.name == "gap":
        return f"{args['count']} events are gone ({args['reason']})", "red"
    if event.name == "dispatcher":
        return _job(args)
    if event.name == "life_preserver":
        return f"[{args['priority']}] {args['message']}", colour(args["priority"])
    return f"[{args['priority']}] {state_text(args)}", colour(args["priority"])


def _job(args: dict[str, Any]) -> tuple[str, str | None]:
    details = args.get("process_details", {})
    id = args["process_id"] if "process_id" in args else details["process_id"]
    state = args["state"]
    if state == "finished":
        result = details.get("result", "")
        text = f"{id} finished: {result}{_problems(args.get('problems'))}"
        return text, "green" if result == "succeeded" else "red"
    current = details.get("current_cmd")
    far = HowFar.read(args)
    text = f"{id} {state}" + (f": {current}" if current else "")
    return text + (f" ({far})" if far is not None else ""), None


def _problems(said: object) -> str:
    """How many, if there are any."""
    if not isinstance(said, list) or not said:
        return ""
    number = len(cast("list[object]", said))
    return f", {number} problem{'s' if number > 1 else ''}"


def state_text(args: dict[str, Any]) -> str:
    """What a system-state event says, in one line."""
    parts = [f"host {args['hostname']}"]
    if args["hostnamechanged"] == "true":
        parts[0] += f" (was {args.get('previous_hostname', '?')})"
    parts += [
        f"{name} {pool['health']} {pool['capacity']}" for name, pool in args["zpools"].items()
    ]
    parts += [f"{name} vanished" for name in args.get("vanished", [])]
    if "error" in args:
        parts.append(str(args["error"]))
    return ", ".join(parts)
