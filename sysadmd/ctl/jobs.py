"""`sysadmctl jobs`, `show`, `log`, `kill`: jobs as they are now."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sysadmd.backoff import backoff
from sysadmd.client import NotPermitted, Refused, Target, events
from sysadmd.ctl.following import LATEST, SOONEST, Follower, Stamps
from sysadmd.ctl.id_text import distinct, short_ids
from sysadmd.ctl.ids import (
    NOT_FOUND,
    AmbiguousId,
    NoSuchJob,
    active_jobs,
    find,
    find_active,
    finished_jobs,
)
from sysadmd.ctl.job_text import (
    command_lines,
    command_text,
    ended,
    how_far,
    sheet,
    shortened,
    state_colour,
    took,
)
from sysadmd.ctl.moments import age, since
from sysadmd.ctl.output import Printer
from sysadmd.ctl.queues import check_queue
from sysadmd.errors import SysadmdError

# Characters of commands in a table that a program reads.
_COMMANDS: Final = 60
# From so many columns on, so many characters of ids and commands stay at least; below that, of
# commands so many, and of ids what tells them apart.
_WIDE: Final = 60
_READABLE: Final = 20
_FEW: Final = 10
# Running jobs of which is asked how far they are.
_ASKED: Final = 64
# How often what is watched is drawn anew, at least and at most; s.
_REDRAW: Final = 5.0
_REST: Final = 0.3
_HEADS: Final = ["ID", "STATE", "AGE", "DURATION", "WHO", "QUEUE", "DONE", "COMMANDS"]


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are listed. failed: finished ones that did not succeed."""

    everything: bool = False
    failed: bool = False
    queue: str | None = None
    limit: int | None = None


def none_of(wanted: JobFilter) -> str:
    """What is said where there is nothing to list."""
    where = f" in {wanted.queue}" if wanted.queue is not None else ""
    if wanted.failed:
        return f"no job has failed{where}"
    if wanted.everything:
        return f"there is no job{where}"
    return f"no job runs or waits{where}; `sysadmctl jobs --all` lists finished ones, too"


async def list_jobs(target: Target, printer: Printer, wanted: JobFilter) -> int:
    """Active jobs, or finished ones too, or failed ones."""
    async with Follower(target, printer) as follower:
        await check_queue(follower, wanted.queue)
        found = await _jobs(follower, wanted)
        if not printer.as_json:
            await _ask_more(follower, found)
    if printer.as_json:
        for job in found:
            printer.value(job)
        return 0
    _print_table(printer, found, wanted)
    return 0


async def watch_jobs(target: Target, printer: Printer, wanted: JobFilter) -> int:
    """The same on a terminal, drawn anew when something happens, until Ctrl-C."""
    happened, drawn = asyncio.Event(), False
    async with Follower(target, printer) as follower:
        await check_queue(follower, wanted.queue)
        hearing = asyncio.create_task(_hear(target, happened))
        try:
            while True:
                happened.clear()
                found = await _jobs(follower, wanted)
                await _ask_more(follower, found)
                room = os.get_terminal_size(sys.stdout.fileno()).lines - 3
                (printer.again if drawn else printer.clear)()
                drawn = True
                shown = found[: max(1, room)]
                _print_table(printer, shown, wanted)
                if rest := len(found) - len(shown):
                    printer.line(f"and {rest} more")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_REDRAW):
                        await happened.wait()
                if hearing.done():
                    # It ends by an error alone.
                    hearing.result()
                await asyncio.sleep(_REST)
        finally:
            hearing.cancel()
            await asyncio.wait((hearing,))


async def _hear(target: Target, happened: asyncio.Event) -> None:
    stream = events(target, ["dispatcher"])
    try:
        async with contextlib.aclosing(stream):
            async for _ in stream:
                happened.set()
    finally:
        happened.set()


async def _jobs(follower: Follower, wanted: JobFilter) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def full() -> bool:
        return wanted.limit is not None and len(found) >= wanted.limit

    if not wanted.failed:
        async for job in active_jobs(follower.ask):
            if wanted.queue in (None, job["queue"]) and not full():
                found.append(job)
    if wanted.everything or wanted.failed:
        async for job in finished_jobs(follower.ask):
            if full():
                break
            if wanted.queue not in (None, job["queue"]):
                continue
            if not wanted.failed or job["result"] != "succeeded":
                found.append(job)
    return found


async def _ask_more(follower: Follower, jobs: list[dict[str, Any]]) -> None:
    """Of running jobs, how far they are: a list does not say it."""
    asked = 0
    for number, job in enumerate(jobs):
        if job["state"] == "running" and asked < _ASKED:
            asked += 1
            # It may have finished, and its record may be gone.
            with contextlib.suppress(Refused):
                jobs[number] = await follower.show(job["id"])


def _print_table(
    printer: Printer, jobs: Sequence[Mapping[str, Any]], wanted: JobFilter
) -> None:
    if not jobs and printer.on_terminal:
        printer.line(none_of(wanted))
        return
    now = datetime.now(UTC).astimezone()
    ids = [str(job["id"]) for job in jobs]
    width = printer.width
    if width is not None:
        ids = short_ids(ids)
    rows = [_row(job, id, now) for job, id in zip(jobs, ids, strict=True)]
    apart = distinct(ids)
    is_wide = width is None or width >= _WIDE
    gives = {7: _READABLE, 0: max(apart, _READABLE)} if is_wide else {7: _FEW, 0: apart}
    # The state is what one looks for: it never gives way.
    printer.table(_HEADS, rows, gives=gives, drops=(4, 5, 3, 6, 2), cut=(0,))


def _row(job: Mapping[str, Any], id: str, now: datetime) -> list[tuple[str, str | None]]:
    state = str(job.get("result") or job["state"])
    commands: list[Any] = job["commands"]
    details = all(isinstance(command, Mapping) for command in commands)
    texts = [command_text(command) if details else str(command) for command in commands]
    since_made = since(str(job.get("time_created") or ""), now)
    return [
        (id, None),
        (state, state_colour(state)),
        ("-" if since_made is None else age(since_made), None),
        (took(job, now) or "-", None),
        (str(job.get("account") or "-"), None),
        (str(job["queue"]), None),
        (how_far(commands) if details else f"0/{len(commands)}", None),
        (shortened(" + ".join(texts), _COMMANDS), None),
    ]


async def show_job(target: Target, printer: Printer, wanted: str) -> int:
    """All that is known of a job."""
    async with Follower(target, printer) as follower:
        job = await find(follower.ask, wanted)
        queues = await follower.queues() if job["state"] == "pending" else None
    if printer.as_json:
        printer.value(job)
        return 0
    now = datetime.now(UTC).astimezone()
    for key, value in sheet(job, now, queues):
        printer.line(f"{key:9} {value}")
    for number, command in enumerate(job["commands"]):
        text, fares = command_lines(number, command, now)
        printer.line(text)
        printer.line(f"   {fares}")
    return 0


@dataclass(frozen=True, slots=True)
class LogPart:
    """What of a job's output is wanted. tail: the last so many lines, and what comes."""

    command: int | None = None
    follow: bool = False
    tail: int | None = None
    timestamps: bool = False


async def print_log(target: Target, printer: Printer, wanted: str, part: LogPart) -> int:
    """The output of one command or of all; with `follow` until it is complete."""
    async with Follower(target, printer) as follower:
        if part.command is not None:
            # Nothing else has to be known of the job.
            try:
                await _print_logs(follower, printer, wanted, part, [part.command])
            except Refused as error:
                if isinstance(error, NotPermitted) or error.number != NOT_FOUND:
                    raise
                id = str((await find(follower.ask, wanted))["id"])
                if id == wanted:
                    raise
                await _print_logs(follower, printer, id, part, [part.command])
            return 0
        job = await find(follower.ask, wanted)
        if part == LogPart(follow=True):
            await follower.follow(str(job["id"]), job)
            return 0
        commands = job["commands"]
        numbers = list(range(len(commands)))
        if part.tail is not None:
            begun = [n for n in numbers if commands[n]["time_started"] is not None]
            last = begun[-1] if begun else 0
            numbers = numbers[last:] if part.follow else [last]
        await _print_logs(follower, printer, str(job["id"]), part, numbers)
    return 0


async def _print_logs(
    follower: Follower, printer: Printer, id: str, part: LogPart, numbers: Sequence[int]
) -> None:
    for number in numbers:
        stamps = Stamps() if part.timestamps else None
        tail = part.tail if number == numbers[0] else None
        end = await follower.print_log(id, number, follow=part.follow, tail=tail, stamps=stamps)
        printer.end_log()
        if end == 0 and part.command is not None and printer.on_terminal:
            # Numbers begin with 0: it may be another that is meant.
            job = await follower.show(id)
            command, now = job["commands"][number], datetime.now(UTC).astimezone()
            text, fares = command_lines(number, command, now)
            printer.note(f"no output of command {text.replace('  ', ': ', 1)} ({fares})")


async def kill_jobs(target: Target, printer: Printer, wanted: Sequence[str], wait: bool) -> int:
    """Kill jobs and, unless told not to, wait until they have ended.

    1 if one of them is not active.
    """
    status = 0
    ids: list[str] = []
    async with Follower(target, printer) as follower:
        # Whole ids first: who may not kill is told so before anything is looked for.
        killed = await _kill(follower, list(dict.fromkeys(wanted)))
        for word in wanted:
            if word in killed:
                continue
            try:
                ids.append(await find_active(follower.ask, word))
            except (NoSuchJob, AmbiguousId) as error:
                printer.note(str(error))
                status = 1
        killed += await _kill(follower, list(dict.fromkeys(ids)))
        if printer.as_json:
            printer.value({"killed": killed})
        for id in ids:
            if id not in killed:
                printer.note(f"the job {id} ended before it was killed")
                status = 1
        if not printer.as_json:
            for id in killed:
                printer.note(f"TERM to {id}; KILL after kill_grace")
        if wait:
            await _see_them_end(follower, printer, killed)
    return status


async def _kill(follower: Follower, ids: list[str]) -> list[str]:
    if not ids:
        return []
    reply = await follower.ask({"action": "kill", "job_id": ids})
    killed: list[str] = reply["killed"]["jobs"]
    return killed


async def _see_them_end(follower: Follower, printer: Printer, ids: list[str]) -> None:
    waits = backoff(SOONEST, LATEST)
    left = list(ids)
    try:
        while left:
            for id in tuple(left):
                job = await follower.show(id)
                if job["state"] != "finished":
                    continue
                left.remove(id)
                if printer.as_json:
                    printer.value({"job": job})
                else:
                    printer.line(ended(job))
            if left:
                await asyncio.sleep(next(waits))
    except asyncio.CancelledError:
        printer.note(f"not waiting any more; they are killed all the same: {', '.join(left)}")
        raise
    except Refused as error:
        raise SysadmdError(f"killed; how it ended can't be seen: {error}") from error
