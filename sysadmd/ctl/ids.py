"""Which job is meant: a whole id, `last`, or how an id begins. No output.

Exact ids win, so nothing that a job is called changes its meaning. Lists are only asked for
when no job has the id.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from sysadmd.client import NotPermitted, Refused
from sysadmd.ctl.id_text import begins
from sysadmd.errors import SysadmdError

# Asks `rpc/dispatcher`, and gives the reply's args.
Ask = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
LAST: Final = "last"
NOT_FOUND: Final = 404
# Jobs that are named where a beginning fits several.
_NAMED: Final = 5


class NoSuchJob(SysadmdError):
    """No job, or no active one, is called so."""

    code = "no-such-job"


class AmbiguousId(SysadmdError):
    """Several jobs have ids that begin so."""

    code = "ambiguous-id"


async def find(ask: Ask, wanted: str) -> dict[str, Any]:
    """The job, as `show` has it. Raises: NoSuchJob, AmbiguousId; what `ask` raises."""
    try:
        return await _show(ask, wanted)
    except Refused as error:
        if isinstance(error, NotPermitted) or error.number != NOT_FOUND:
            raise
    active = [job async for job in active_jobs(ask)]
    if wanted == LAST:
        finished = (await ask({"action": "history", "limit": 100}))["jobs"]
        id = await _newest(ask, active, finished)
    else:
        # Of a long history no more than names it.
        finished = [
            {"id": job["id"], "state": job["state"], "result": job.get("result")}
            async for job in finished_jobs(ask)
        ]
        id = chosen(wanted, [*active, *finished])
    return await _show(ask, id)


async def find_active(ask: Ask, wanted: str) -> str:
    """The id of an active job. Raises: NoSuchJob, AmbiguousId; what `ask` raises."""
    active = [job async for job in active_jobs(ask)]
    if wanted == LAST and all(job["id"] != LAST for job in active):
        if not active:
            raise NoSuchJob("no job is active; `sysadmctl jobs --all` lists finished ones")
        return await _newest(ask, active, [])
    try:
        return chosen(wanted, active)
    except NoSuchJob:
        raise NoSuchJob(await _why_not_active(ask, wanted)) from None


async def _why_not_active(ask: Ask, wanted: str) -> str:
    """Has it ended, or is there none?"""
    try:
        job = await find(ask, wanted)
    except (NoSuchJob, AmbiguousId):
        return f"there is no active job {wanted!r}; `sysadmctl jobs` lists them"
    result = job.get("result")
    return f"the job {job['id']} has ended already" + (f": {result}" if result else "")


def chosen(wanted: str, jobs: Sequence[Mapping[str, Any]]) -> str:
    """The one id that is this, or begins so. Raises: NoSuchJob, AmbiguousId."""
    states = {str(job["id"]): str(job.get("result") or job["state"]) for job in reversed(jobs)}
    if wanted in states:
        return wanted
    fitting = [id for id in reversed(states) if begins(id, wanted)]
    if not fitting:
        raise NoSuchJob(f"there is no job {wanted!r}; `sysadmctl jobs --all` lists them")
    if len(fitting) > 1:
        named = ", ".join(f"{id} ({states[id]})" for id in fitting[:_NAMED])
        more = len(fitting) - _NAMED
        rest = f" and {more} more" if more > 0 else ""
        raise AmbiguousId(
            f"{len(fitting)} jobs have ids that begin with {wanted!r}: {named}{rest};"
            " write more of the one that is meant"
        )
    return fitting[0]


async def active_jobs(ask: Ask) -> AsyncIterator[dict[str, Any]]:
    """Jobs that run or wait, as `list` has them, with `id` and `queue`."""
    async for page in _pages(ask, {"action": "list"}):
        for queue, jobs in page["jobs"].items():
            for id, job in jobs.items():
                yield {"id": id, "queue": queue, **job}


async def finished_jobs(ask: Ask) -> AsyncIterator[dict[str, Any]]:
    """Finished jobs, newest first, as `history` has them."""
    async for page in _pages(ask, {"action": "history"}):
        for job in page["jobs"]:
            yield job


async def _newest(
    ask: Ask, active: Sequence[Mapping[str, Any]], finished: Sequence[Mapping[str, Any]]
) -> str:
    found: list[tuple[str, str]] = [(str(j["time_created"]), str(j["id"])) for j in finished]
    for job in active:
        created = job.get("time_created")
        if created is None:
            # A server whose list has no times.
            created = (await _show(ask, str(job["id"])))["time_created"]
        found.append((str(created), str(job["id"])))
    if not found:
        raise NoSuchJob("there is no job yet; `sysadmctl run` makes one")
    return max(found)[1]


async def _show(ask: Ask, id: str) -> dict[str, Any]:
    job: dict[str, Any] = (await ask({"action": "show", "job_id": id}))["job"]
    return job


async def _pages(ask: Ask, args: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    while True:
        page = await ask(args)
        yield page
        if "next" not in page:
            return
        if page["next"] == args.get("after"):
            raise ValueError("a page leads to itself")
        args = {**args, "after": page["next"]}
