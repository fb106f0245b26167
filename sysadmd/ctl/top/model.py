"""What `sysadmctl top` knows of a server, as its frames have told it. No clock, no terminal.

What a server says may be of any form, and hold anything: what makes no sense is left out, and
all texts but ids are harmless from here on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, cast

from sysadmd.client import EventFrame
from sysadmd.ctl.bar import HowFar, mapping
from sysadmd.ctl.event_text import describe
from sysadmd.ctl.id_text import short_id
from sysadmd.ctl.job_text import command_text
from sysadmd.ctl.program_text import harmless
from sysadmd.errors import GARBLED
from sysadmd.text import printable

# Jobs that have finished and are still shown; events that are. No screen has room for more.
DONE_KEPT: Final = 5
NEWS_KEPT: Final = 100
# Characters of a text that are kept: no row is longer.
TEXT_KEPT: Final = 512
# Clocks that differ by less are taken for right: it may be the way here; s.
CLOCKS_AGREE: Final = 2.0
PENDING: Final = "pending"
RUNNING: Final = "running"
FINISHED: Final = "finished"
# Queued for no queue, so that there is nothing to be paused.
NO_QUEUE: Final = "no_queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedJob:
    """A job as far as it was told.

    id: as the server has it, for requests; name: the same to be shown. serial: of no other job,
    even if an id is used again. queue: None if that was not told yet. number: of the command
    that runs, from 0; commands: how many there are. output: the last line of it.
    """

    id: str
    serial: int
    state: str
    result: str = ""
    queue: str | None = None
    started: str = ""
    finished: str = ""
    command: str = ""
    number: int = 0
    commands: int = 0
    output: str = ""
    far: HowFar | None = None

    @property
    def name(self) -> str:
        return shown(short_id(self.id))

    @property
    def is_over(self) -> bool:
        return self.state == FINISHED

    @property
    def word(self) -> str:
        """Its state or, at its end, its result."""
        return (self.result or self.state) if self.is_over else self.state


@dataclass(frozen=True, slots=True)
class NewsLine:
    """An event in one line. time: as the server told it; colour: None for none."""

    time: str
    text: str
    colour: str | None


class Model:
    """All that is known of a server. Bounded by the server's own bound of active jobs."""

    def __init__(self) -> None:
        self.host = ""
        # How the server is reached, to be shown beside it.
        self.server = ""
        self.state: Mapping[str, Any] = {}
        self.news: deque[NewsLine] = deque(maxlen=NEWS_KEPT)
        # Why there is no connection; empty while there is one.
        self.away = ""
        # How far our clock is ahead of the server's; s.
        self.skew = 0.0
        # Which queues are paused, as far as that is known.
        self.paused: Mapping[str, bool] = {}
        self._active: dict[str, WatchedJob] = {}
        self._done: deque[WatchedJob] = deque(maxlen=DONE_KEPT)
        self._serials = 0

    def jobs(self) -> list[WatchedJob]:
        """Those that run, by their starts; those that wait; finished ones, last first."""
        active = self._active.values()
        running = sorted((j for j in active if j.state == RUNNING), key=lambda j: j.started)
        return [*running, *(j for j in active if j.state != RUNNING), *self._done]

    def counts(self) -> tuple[int, int]:
        """How many jobs run, and wait."""
        running = sum(job.state == RUNNING for job in self._active.values())
        return running, len(self._active) - running

    def job(self, serial: int) -> WatchedJob | None:
        """The one with this serial, if it is still known."""
        return next((job for job in self.jobs() if job.serial == serial), None)

    def tell(self, event: EventFrame, now: datetime) -> None:
        """Take in what an event, a snapshot or a gap tells. now: with its zone."""
        if event.name == "snapshot":
            self._begin(event, now)
            return
        args: Mapping[str, Any] = mapping(event.args)
        if event.name == "dispatcher":
            if not self._told_of_job(args):
                return
        elif event.name == "system_state":
            self._take_state(args)
        self._add_news(event)

    def describe_job(self, said: object) -> None:
        """Take in of an active job what events do not tell: `show` does."""
        job = mapping(said)
        known = self._active.get(_id(job.get("id")))
        if known is not None:
            self._active[known.id] = replace(
                _read(known, job, job), state=known.state, queue=shown(job.get("queue"))
            )

    def give_up_describing(self, id: str) -> None:
        """Nothing more can be learnt of a job."""
        if id in self._active and self._active[id].queue is None:
            self._active[id] = replace(self._active[id], queue="")

    def remember(self, said: object) -> None:
        """Take in jobs that had finished before, newest first, as `history` has them."""
        found: list[object] = cast("list[object]", said) if isinstance(said, list) else []
        for one in found[: DONE_KEPT - len(self._done)]:
            job = mapping(one)
            if id := _id(job.get("id")):
                known = replace(self._new(id), queue=shown(job.get("queue")))
                self._done.append(replace(_read(known, job, job), state=FINISHED))

    def learn_queues(self, said: object) -> None:
        """Take in which queues are paused."""
        self.paused = {
            name: mapping(queue).get("paused") is True for name, queue in mapping(said).items()
        }

    def _begin(self, event: EventFrame, now: datetime) -> None:
        args = mapping(event.args)
        self._take_state(mapping(args.get("system_state")))
        try:
            skew = (now - datetime.fromisoformat(event.time)).total_seconds()
        except GARBLED:
            skew = 0.0
        self.skew = skew if abs(skew) >= CLOCKS_AGREE else 0.0
        before, self._active = self._active, {}
        jobs = args.get("jobs")
        for one in cast("list[object]", jobs) if isinstance(jobs, list) else []:
            job = mapping(one)
            if id := _id(job.get("id")):
                known = before.get(id) or self._new(id)
                state = RUNNING if job.get("state") == RUNNING else PENDING
                known = replace(known, state=state, queue=shown(job.get("queue")))
                self._active[id] = _read(known, job, job)

    def _take_state(self, said: Mapping[str, Any]) -> None:
        self.state = said
        self.host = shown(said.get("hostname")) or self.host

    def _told_of_job(self, args: Mapping[str, Any]) -> bool:
        """Take in a job's event; is it news, and not only how far the job is?"""
        details = mapping(args.get("process_details"))
        id = _id(args.get("process_id")) or _id(details.get("process_id"))
        state = args.get("state")
        if not id or state not in (PENDING, RUNNING, FINISHED):
            return False
        known = self._active.get(id)
        is_news = known is None or known.state != state
        # The id is used again.
        if known is None or (state == PENDING and known.state == RUNNING):
            known = self._new(id)
        job = replace(_read(known, args, details), state=str(state))
        if state == FINISHED:
            self._active.pop(id, None)
            self._done.appendleft(job)
        else:
            self._active[id] = job
        return is_news

    def _add_news(self, event: EventFrame) -> None:
        try:
            told = describe(event)
            text, colour = told.text, told.colour
        except GARBLED:
            text, colour = f"{event.name}: an event that makes no sense", "red"
        self.news.append(NewsLine(event.time, shown(text), colour))

    def _new(self, id: str) -> WatchedJob:
        self._serials += 1
        return WatchedJob(id=id, serial=self._serials, state=PENDING)


def shown(value: object) -> str:
    """A text to be shown in a row: harmless, not longer than any row; empty if it is none."""
    return printable(value[:TEXT_KEPT]) if isinstance(value, str) else ""


def last_line(output: str) -> str:
    """The last line of a program's output that has something in it."""
    lines = harmless(output[-TEXT_KEPT:], colours=False).rstrip().rpartition("\n")
    return shown(lines[2].expandtabs()).strip()


def _id(value: object) -> str:
    return value if isinstance(value, str) else ""


def _read(job: WatchedJob, fields: Mapping[str, Any], details: Mapping[str, Any]) -> WatchedJob:
    """The job with what was said of it. details: what has its times and commands."""
    commands = details.get("commands")
    listed: Sequence[object] = (
        cast("list[object]", commands) if isinstance(commands, list) else ()
    )
    number, command = _current([mapping(one) for one in listed])
    said = command.get("log", details.get(str(command.get("command"))))
    output = last_line(said) if isinstance(said, str) else ""
    far = HowFar.read(fields) or HowFar.read(fields.get("fields"))
    same = number == job.number
    return replace(
        job,
        result=shown(details.get("result")) or job.result,
        started=shown(details.get("time_started")) or job.started,
        finished=shown(details.get("time_finished")) or job.finished,
        command=shown(command_text(command)) or job.command,
        number=number if listed else job.number,
        commands=len(listed) or job.commands,
        # Of a command that writes nothing for a while the last line stays.
        output=output or (job.output if same else ""),
        far=far or job.far,
    )


def _current(commands: Sequence[Mapping[str, Any]]) -> tuple[int, Mapping[str, Any]]:
    """The command that runs, or ran last, and its number; before the first, that one."""
    begun = [n for n, one in enumerate(commands) if one.get("state") in (RUNNING, FINISHED)]
    number = begun[-1] if begun else 0
    return number, commands[number] if commands else {}
