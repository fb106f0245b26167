"""`sysadmctl run`: one job, its output as it comes, its status as ours."""

from __future__ import annotations

import asyncio
import secrets
import signal
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
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


class Watch:
    """A job that is waited for: what an interruption or a trouble of our own means for it.

    Use as a context around all of it; `status` is then the exit status. Ctrl-C cancels the task
    inside. id: known before anybody answers, where it is us who name the job.
    Raises: NotPermitted, Unreachable; what a server refuses, where nothing is known of a job.
    """

    def __init__(self, printer: Printer, id: str | None = None) -> None:
        self.id = id
        self.status = 0
        self.accepted = False
        self._printer = printer

    def accept(self, id: str) -> None:
        """From now on the job goes on without us."""
        self.id, self.accepted = id, True

    def leave(self) -> None:
        """The job is over: it is no job that we wait for now."""
        self.id, self.accepted = None, False

    def __enter__(self) -> Watch:
        task = asyncio.current_task()
        assert task is not None
        # Ignored in the background of a script: the Ctrl-C there is for others.
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if isinstance(error, asyncio.CancelledError):
            self.status = INTERRUPTED
            self._printer.note(self.fate())
            return True
        if isinstance(error, NotPermitted | Unreachable) or self.id is None:
            return False
        if not isinstance(error, SysadmdError | OSError):
            return False
        if not isinstance(error, BrokenPipeError):
            self._printer.note(str(error))
        if self.accepted:
            self._printer.note(self.fate())
        self.status = OWN_TROUBLE
        return True

    def fate(self) -> str:
        """What becomes of the job, as far as we know, and what to do."""
        id = self.id
        if id is None:
            return "it is not known whether a job was accepted; `sysadmctl jobs` lists them"
        hints = f"`sysadmctl log --follow {id!r}` follows it, `sysadmctl kill {id!r}` ends it"
        if self.accepted:
            return f"the job {id} goes on; {hints}"
        return f"it is not known whether the job {id} was accepted; if so, {hints}"


async def run_job(target: Target, printer: Printer, order: Submission, wait: bool) -> int:
    """Submit and, unless told not to, wait; returns the exit status.

    Raises: NotPermitted, Unreachable. Any other trouble is told, and is 125: the statuses below
    belong to the job.
    """
    # Known before anybody answers: an interrupted submission can be asked after.
    id = str(uuid.uuid4()) if order.id is None else order.id
    with Watch(printer, id) as watch:
        async with Follower(target, printer) as follower:
            reply = await follower.ask({"action": "submit", "job": _job(id, order)})
            submitted = reply["job"]
            watch.accept(id)
            if printer.as_json:
                printer.value({"job": submitted})
            elif not wait:
                printer.line(submitted["id"])
            if not wait:
                return 0
            job = await follower.follow(submitted["id"])
        if printer.as_json:
            printer.value({"job": job})
        watch.status = exit_status(job)
    return watch.status


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
