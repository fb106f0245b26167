"""Fetches a job's output for `sysadmctl top`: its end, and what comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sysadmd.backoff import backoff
from sysadmd.client import Target
from sysadmd.ctl.following import LATEST, SOONEST, Follower
from sysadmd.ctl.output import Printer
from sysadmd.ctl.top.log_lines import LogLines, beginning
from sysadmd.ctl.top.model import FINISHED, PENDING, shown
from sysadmd.errors import GARBLED, SysadmdError


class Silent(Printer):
    """Says nothing: the screen is not to be written over."""

    def note(self, text: str) -> None:
        pass


async def feed(target: Target, id: str, log: LogLines, changed: Callable[[], None]) -> None:
    """Put a job's output into `log` until there is no more; trouble is said there, too."""
    try:
        async with Follower(target, Silent(False)) as follower:
            await _fill(follower, id, log, changed)
    except (SysadmdError, *GARBLED) as error:
        log.note = shown(str(error)) or "can't be read"
        changed()


async def _fill(
    follower: Follower, id: str, log: LogLines, changed: Callable[[], None]
) -> None:
    job = await follower.show(id)
    commands = job["commands"]
    number, offset = await _begin(follower, id, commands)
    log.note = "(the end of it)" if number or offset else ""
    waits = backoff(SOONEST, LATEST)
    if len(commands) > 1:
        log.rule(_title(commands, number))
    while number < len(commands):
        ask = {"action": "log", "job_id": id, "command": number, "offset": offset}
        reply = await follower.ask(ask)
        log.add(reply["text"])
        if "detail" in reply:
            log.rule(shown(reply["detail"]))
        changed()
        progressed, offset = reply["next"] > offset, reply["next"]
        if reply["complete"]:
            number, offset = number + 1, 0
            if number < len(commands):
                log.rule(_title(commands, number))
        elif progressed:
            waits = backoff(SOONEST, LATEST)
        else:
            await asyncio.sleep(next(waits))
    for wait in backoff(SOONEST, LATEST):
        job = await follower.show(id)
        if job["state"] == FINISHED:
            break
        await asyncio.sleep(wait)
    log.rule(shown(job["result"]))
    changed()


async def _begin(
    follower: Follower, id: str, commands: list[dict[str, Any]]
) -> tuple[int, int]:
    """The command, and the byte of its log, from where on it is shown."""
    begun = [n for n, one in enumerate(commands) if one["state"] not in (PENDING, "skipped")]
    current = begun[-1] if begun else 0
    sizes = [int(one["log_size"]) for one in commands]
    if commands:
        # Of one that runs the log itself knows best.
        ask = {"action": "log", "job_id": id, "command": current, "offset": 0, "limit": 1}
        sizes[current] = int((await follower.ask(ask))["size"])
    return beginning(sizes, current)


def _title(commands: list[dict[str, Any]], number: int) -> str:
    return f"{number + 1}/{len(commands)} {shown(commands[number]['command'])}"
