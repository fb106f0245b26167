"""`sysadmctl run`: one job, its output as it comes, its status as ours."""

from __future__ import annotations

import asyncio
import secrets
import signal
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sysadmd.client import NotPermitted, Target, Unreachable
from sysadmd.ctl.following import Follower
from sysadmd.ctl.output import Printer
from sysadmd.errors import SysadmdError

# Statuses of our own. 125: as timeout(1) and docker-run(1) have it for trouble of the tool.
TIMED_OUT: Final = 124
OWN_TROUBLE: Final = 125
KILLED: Final = 137
INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True)
class Submission:
    """What is to be run."""

    id: str | None
    queue: str | None
    timeout: float | None
    commands: Sequence[Sequence[str]]


async def run_job(target: Target, printer: Printer, order: Submission, wait: bool) -> int:
    """Submit and, unless told not to, wait; returns the exit status.

    Raises: NotPermitted, Unreachable. Any other trouble is told, and is 125: the statuses below
    belong to the job.
    """
    # Known before anybody answers: an interrupted submission can be asked after.
    id = str(uuid.uuid4()) if order.id is None else order.id
    task = asyncio.current_task()
    assert task is not None
    # Ignored in the background of a script: the Ctrl-C there is for others.
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    hints = f"`sysadmctl log --follow {id!r}` follows it, `sysadmctl kill {id!r}` ends it"
    accepted = False
    try:
        async with Follower(target, printer) as follower:
            reply = await follower.ask({"action": "submit", "job": _job(id, order)})
            submitted, accepted = reply["job"], True
            if printer.as_json:
                printer.value({"job": submitted})
            elif not wait:
                printer.line(submitted["id"])
            if not wait:
                return 0
            job = await follower.follow(submitted["id"])
        if printer.as_json:
            printer.value({"job": job})
        return exit_status(job)
    except asyncio.CancelledError:
        if accepted:
            printer.note(f"the job {id} goes on; {hints}")
        else:
            printer.note(f"it is not known whether the job {id} was accepted; if so, {hints}")
        return INTERRUPTED
    except (NotPermitted, Unreachable):
        raise
    except (SysadmdError, OSError) as error:
        if not isinstance(error, BrokenPipeError):
            printer.note(str(error))
        if accepted:
            printer.note(f"the job {id} goes on; {hints}")
        return OWN_TROUBLE


def _job(id: str, order: Submission) -> dict[str, Any]:
    job: dict[str, Any] = {
        "id": id,
        "commands": [list(command) for command in order.commands],
        # The same request again gives the same job: a reply that was lost can be asked for.
        "key": secrets.token_hex(16),
    }
    for key, value in (("queue", order.queue), ("timeout", order.timeout)):
        if value is not None:
            job[key] = value
    return job


def exit_status(job: dict[str, Any]) -> int:
    """The failed command's code, 128 + signal, or our word for how it ended."""
    special = {
        "succeeded": 0,
        "killed": KILLED,
        "timed-out": TIMED_OUT,
        "lost": OWN_TROUBLE,
    }
    if job["result"] in special:
        return special[job["result"]]
    codes = [int(c["return_code"]) for c in job["commands"] if c["return_code"] is not None]
    code = next((code for code in codes if code), OWN_TROUBLE)
    return 128 - code if code < 0 else code
