"""What a shell offers at Tab that only a server or a file knows: ids, queues, pools, profiles.

Each is a `shell_complete=` of click's, by the options that stand on the line already. Nobody is
asked anything and nothing is said: what can't be learnt in time is not offered.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Container, Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final, cast

import click
from click.shell_completion import CompletionItem

from sysadmd.ctl.options import Context
from sysadmd.events import SYSTEMS
from sysadmd.text import printable

# How long a Tab may take in all, whatever hangs; s.
LIMIT: Final = 2.0
# Finished jobs, newest first, that are offered behind the active ones.
FINISHED_OFFERED: Final = 50
# Characters of what is said of a job.
_SAID: Final = 60

Items = list[CompletionItem[str]]


def job_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Active jobs, then the last that have finished."""
    return _offered(ctx, param, incomplete, lambda context: _jobs(context, FINISHED_OFFERED))


def active_job_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Jobs that run or wait."""
    return _offered(ctx, param, incomplete, lambda context: _jobs(context, 0))


def queues(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Queues that are configured, and `no_queue`."""
    return _offered(ctx, param, incomplete, _queues)


def pausable_queues(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Queues that can be paused: not `no_queue`."""
    found = _offered(ctx, param, incomplete, _queues)
    return [item for item in found if item.value != "no_queue"]


def pools(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Pools of the machine."""
    return _offered(ctx, param, incomplete, _pools)


def profiles(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Profiles that `login` has kept."""
    return _offered(ctx, param, incomplete, lambda context: _profiles())


def systems(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """What events are of, spelled as it was begun: `life-preserver`, `life_preserver`."""
    names = [name.replace("-", "_") if "_" in incomplete else name for name in SYSTEMS]
    return _offered(ctx, param, incomplete, lambda context: ((name, "") for name in names))


Found = Iterable[tuple[str, str]]


def _offered(
    ctx: click.Context,
    param: click.Parameter,
    incomplete: str,
    find: Callable[[Context], Found],
) -> Items:
    """Of what was found what goes on from the word, and is not on the line already."""
    # Of several that are taken those before; of one nothing.
    named: Any = ctx.params.get(param.name or "")
    several = param.nargs == -1 and named
    already: Container[str] = cast("Container[str]", named) if several else ()
    context = ctx.ensure_object(Context)
    # Which server it is on need not be told.
    context.as_json = True
    with _in_time():
        try:
            found = list(find(context))
        except Exception:  # noqa: BLE001 - a Tab is no place for any message
            return []
    return [
        CompletionItem(value, help=printable(said)[:_SAID] or None)
        for value, said in found
        # A line break or an escape can't be typed, and none is to get into a shell.
        if value.startswith(incomplete) and value.isprintable() and value not in already
    ]


@contextmanager
def _in_time() -> Generator[None]:
    """End the program without a word when the time is up: names are looked up for long."""
    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _give_up(number: int, frame: object) -> None:
    os._exit(0)


def _jobs(context: Context, finished: int) -> Found:
    listed = _ask(context, {"action": "list"})["jobs"]
    for jobs in listed.values():
        for id, job in jobs.items():
            yield id, f"{job['state']}: {' + '.join(job['commands'])}"
    if finished:
        for job in _ask(context, {"action": "history", "limit": finished})["jobs"]:
            commands = " + ".join(command["command"] for command in job["commands"])
            yield job["id"], f"{job['result']}: {commands}"


def _queues(context: Context) -> Found:
    for name, queue in _ask(context, {"action": "queues"})["queues"].items():
        paused = ", paused" if queue["paused"] else ""
        yield name, f"{queue['running']} running, {queue['waiting']} waiting{paused}"


def _pools(context: Context) -> Found:
    import asyncio

    async def first() -> dict[str, Any]:
        from contextlib import aclosing

        from sysadmd.client import events

        stream = events(context.target(), ["system-state"], snapshot=True)
        async with aclosing(stream):
            event = await anext(stream)
        found: dict[str, Any] = event.args["system_state"]["zpools"]
        return found

    return [(name, str(pool["health"])) for name, pool in asyncio.run(first()).items()]


def _profiles() -> Found:
    from sysadmd.ctl import profile

    return [(name, one.url) for name, one in profile.load().kept.items()]


def _ask(context: Context, args: dict[str, Any]) -> dict[str, Any]:
    import asyncio

    async def ask() -> dict[str, Any]:
        from sysadmd.client import connect

        async with connect(context.target()) as client:
            reply: dict[str, Any] = await client.request("rpc", "dispatcher", args)
        return reply

    return asyncio.run(ask())
