"""`sysadmctl queue`: queues as they are, paused and let go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sysadmd.client import Target
from sysadmd.ctl.following import Follower
from sysadmd.ctl.output import Printer
from sysadmd.errors import SysadmdError


class NoSuchQueue(SysadmdError):
    """No queue is called so."""

    code = "no-such-queue"


async def list_queues(target: Target, printer: Printer) -> int:
    """Each queue: how many at once, is it paused, who runs and who waits."""
    async with Follower(target, printer) as follower:
        found = (await follower.ask({"action": "queues"}))["queues"]
    if printer.as_json:
        for name, queue in found.items():
            printer.value({"queue": name, **queue})
        return 0
    rows: list[list[tuple[str, str | None]]] = []
    for name, queue in found.items():
        state, fg = ("paused", "yellow") if queue["paused"] else ("open", "green")
        if queue.get("drains"):
            state, fg = f"{state}, ends when it is empty", "yellow"
        numbers = (str(queue[key]) for key in ("limit", "running", "waiting"))
        rows.append([(name, None), *((number, None) for number in numbers), (state, fg)])
    printer.table(["QUEUE", "LIMIT", "RUN", "WAIT", "STATE"], rows, gives={4: 6, 0: 8})
    return 0


async def check_queue(follower: Follower, name: str | None) -> None:
    """Raises: NoSuchQueue, where the server tells which there are."""
    found = None if name is None else await follower.queues()
    if found is not None and name not in found:
        raise NoSuchQueue(f"there is no queue {name!r}; there are: {', '.join(sorted(found))}")


async def change_queue(target: Target, printer: Printer, action: str, name: str) -> int:
    """Pause or resume a queue."""
    async with Follower(target, printer) as follower:
        reply = await follower.ask({"action": action, "queue": name})
        queue = None if printer.as_json else (await follower.queues() or {}).get(name)
    if printer.as_json:
        printer.value(reply)
    else:
        printer.line(changed_text(name, action, queue))
    return 0


def changed_text(name: str, action: str, queue: Mapping[str, Any] | None) -> str:
    """What has come of it. queue: as it is now, if that is told."""
    text = f"queue {name} {'is paused' if action == 'pause' else 'goes on'}"
    if queue is None:
        return text
    run, wait = queue["running"], queue["waiting"]
    if not run and not wait:
        return f"{text}; no job runs or waits in it"
    return f"{text}; {run} running, {wait} waiting"
