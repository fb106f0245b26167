"""`sysadmctl run`: one job, its output as it comes, its status as ours."""

from __future__ import annotations

import asyncio
import secrets
import shlex
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final

from sysadmd.client import NotPermitted, Target, Unreachable
from sysadmd.ctl.following import Follower
from sysadmd.ctl.ids import find
from sysadmd.ctl.job_text import ended, one_word, shell_words
from sysadmd.ctl.output import Printer
from sysadmd.errors import SysadmdError

# Statuses of our own. 125: as timeout(1) and docker-run(1) have it for trouble of the tool.
TIMED_OUT: Final = 124
OWN_TROUBLE: Final = 125
KILLED: Final = 137
INTERRUPTED: Final = 130
# Ids of jobs that are named by a key.
_ONCE: Final = uuid.UUID("6f3bd8e4-4f0b-4c5e-9b3f-1f6f5b8a7c21")
# What asks a class for its jobs.
_CLASSES: Final = {"sysadm/pkg": "pkg", "sysadm/update": "update", "sysadm/iohyve": "vm"}


class NotRerun(SysadmdError):
    """What a job did can't be asked for again."""

    code = "not-rerun"


@dataclass(frozen=True, slots=True)
class Submission:
    """What is to be run."""

    id: str | None
    queue: str | None
    timeout: float | None
    commands: Sequence[Sequence[str]]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    cwd: str | None = None
    # The idempotency key; made up otherwise.
    once: str | None = None


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
        if self.id is None:
            return "it is not known whether a job was accepted; `sysadmctl jobs` lists them"
        id = self._printer.called(self.id)
        word = shlex.quote(id)
        hints = f"`sysadmctl log -f {word}` follows it, `sysadmctl kill {word}` ends it"
        if self.accepted:
            return f"the job {id} goes on; {hints}"
        return f"it is not known whether the job {id} was accepted; if so, {hints}"


async def run_job(
    target: Target, printer: Printer, order: Submission, wait: bool, quiet: bool = False
) -> int:
    """Submit and, unless told not to, wait; returns the exit status. quiet: no remarks.

    Raises: NotPermitted, Unreachable. Any other trouble is told, and is 125: the statuses below
    belong to the job.
    """
    # Known before anybody answers: an interrupted submission can be asked after.
    id = order.id
    if id is None:
        # The same key is the same job only if it asks for the same id.
        id = str(uuid.uuid4() if order.once is None else uuid.uuid5(_ONCE, order.once))
    if not quiet and (remark := shell_words(order.commands)):
        printer.note(remark)
    with Watch(printer, id) as watch:
        async with Follower(target, printer) as follower:
            follower.tells_waiting = not quiet
            reply = await follower.ask({"action": "submit", "job": _job(id, order)})
            submitted = reply["job"]
            watch.accept(submitted["id"])
            if printer.as_json:
                printer.value({"job": submitted})
            elif not wait:
                printer.line(submitted["id"])
            if not wait:
                return 0
            job = await follower.follow(submitted["id"])
        if printer.as_json:
            printer.value({"job": job})
        elif not quiet:
            _close(printer, job)
        watch.status = exit_status(job)
    return watch.status


def _close(printer: Printer, job: Mapping[str, Any]) -> None:
    """Say how it ended; of a success only on a terminal: a script's errors stay empty."""
    if job["result"] != "succeeded" or sys.stderr.isatty():
        printer.note(ended(job, printer.called(str(job["id"]))))
    if remark := one_word(job):
        printer.note(remark)


async def rerun_job(
    target: Target, printer: Printer, wanted: str, changes: Submission, wait: bool, quiet: bool
) -> int:
    """Run what a job has run, as a new one. changes: what is given in place of the old.

    Raises: NoSuchJob, AmbiguousId, NotRerun; what `run_job` raises.
    """
    async with Follower(target, printer) as follower:
        job = await find(follower.ask, wanted)
    order = again(job, changes)
    return await run_job(target, printer, order, wait, quiet)


def again(job: Mapping[str, Any], changes: Submission) -> Submission:
    """The same job once more. Raises: NotRerun."""
    system = job.get("event_system")
    if system:
        name = _CLASSES.get(str(system), "")
        raise NotRerun(
            f"{job['id']} is a job of {system}, which alone knows what it does beside its"
            f" commands; ask it again: `sysadmctl {name}`"
        )
    names: list[str] = job.get("env") or []
    lacking = [name for name in names if name not in changes.env]
    if lacking:
        options = " ".join(f"--env {name}=..." for name in lacking)
        raise NotRerun(
            f"{job['id']} had values in its environment that are not kept; give them again:"
            f" {options}"
        )
    return replace(
        changes,
        queue=changes.queue or job["queue"],
        timeout=changes.timeout or job["timeout"],
        cwd=changes.cwd or job["cwd"],
        commands=[command["argv"] for command in job["commands"]],
    )


def _job(id: str, order: Submission) -> dict[str, Any]:
    job: dict[str, Any] = {
        "id": id,
        "commands": [list(command) for command in order.commands],
        # The same request again gives the same job: a reply that was lost can be asked for.
        "key": order.once or secrets.token_hex(16),
    }
    if order.env:
        job["env"] = dict(order.env)
    for key, value in (
        ("queue", order.queue),
        ("timeout", order.timeout),
        ("cwd", order.cwd),
    ):
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
