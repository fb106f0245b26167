"""`sysadmctl jobs`, `show`, `log`, `kill`, `queue`: jobs as they are now."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from sysadmd.client import Client, Target, connect
from sysadmd.ctl.following import Follower
from sysadmd.ctl.output import Printer

_COLOURS: Final = {"succeeded": "green", "running": "cyan", "pending": None}


async def list_jobs(
    target: Target, printer: Printer, everything: bool, queue: str | None
) -> int:
    """Active jobs and, with `everything`, finished ones."""
    async with connect(target) as client:
        found = [job async for job in _active(client)]
        if everything:
            found += [job async for job in _finished(client)]
    found = [job for job in found if queue in (None, job["queue"])]
    if printer.as_json:
        for job in found:
            printer.value(job)
        return 0
    rows: list[list[tuple[str, str | None]]] = []
    for job in found:
        state = job.get("result") or job["state"]
        text = " + ".join(job["commands"])
        shown = text if len(text) <= 60 else text[:57] + "..."
        fg = _COLOURS.get(state, "red")
        rows.append([(job["id"], None), (job["queue"], None), (state, fg), (shown, None)])
    printer.table(["ID", "QUEUE", "STATE", "COMMANDS"], rows)
    return 0


async def _active(client: Client) -> AsyncIterator[dict[str, Any]]:
    async for page in _pages(client, {"action": "list"}):
        for queue, jobs in page["jobs"].items():
            for id, job in jobs.items():
                yield {"id": id, "queue": queue, **job}


async def _finished(client: Client) -> AsyncIterator[dict[str, Any]]:
    async for page in _pages(client, {"action": "history"}):
        for job in page["jobs"]:
            yield {**job, "commands": [command["command"] for command in job["commands"]]}


async def _pages(client: Client, args: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    while True:
        page = await client.request("rpc", "dispatcher", args)
        yield page
        if "next" not in page:
            return
        args = {**args, "after": page["next"]}


async def show_job(target: Target, printer: Printer, id: str) -> int:
    """All that is known of a job."""
    async with connect(target) as client:
        reply = await client.request("rpc", "dispatcher", {"action": "show", "job_id": id})
    job = reply["job"]
    if printer.as_json:
        printer.value(job)
        return 0
    times = ("time_created", "time_started", "time_finished")
    for key in ("id", "queue", "state", "result", *times, "timeout", "cwd"):
        printer.line(f"{key:13} {job[key] if job[key] is not None else '-'}")
    for number, command in enumerate(job["commands"]):
        code = command["return_code"]
        ended = "" if code is None else f", return code {code}"
        printer.line(f"{number:4} {command['state']}{ended}: {command['command']}")
    return 0


async def print_log(
    target: Target, printer: Printer, id: str, command: int | None, follow: bool
) -> int:
    """The output of one command or of all; with `follow` until it is complete."""
    async with Follower(target, printer) as follower:
        if command is not None:
            await follower.print_log(id, command, follow=follow)
        elif follow:
            await follower.follow(id)
        else:
            for number in range(len((await follower.show(id))["commands"])):
                await follower.print_log(id, number, follow=False)
    return 0


async def kill_jobs(target: Target, printer: Printer, ids: Sequence[str]) -> int:
    """Kill jobs; 1 if one of them is not active."""
    async with connect(target) as client:
        ask = {"action": "kill", "job_id": list(ids)}
        killed = (await client.request("rpc", "dispatcher", ask))["killed"]["jobs"]
    if printer.as_json:
        printer.value({"killed": killed})
    missing = [id for id in ids if id not in killed]
    for id in missing:
        printer.note(f"there is no active job {id!r}")
    return 1 if missing else 0


async def change_queue(target: Target, printer: Printer, action: str, name: str) -> int:
    """Pause or resume a queue."""
    async with connect(target) as client:
        reply = await client.request("rpc", "dispatcher", {"action": action, "queue": name})
    if printer.as_json:
        printer.value(reply)
    return 0
