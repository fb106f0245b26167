"""Requests to the classes that queue jobs: who may, and is the tool there.

What an action does is the class's (server/job_classes).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import Final, TypeVar

from dispatcher import logs, records
from dispatcher.orders import Order
from dispatcher.records import JobRow
from dispatcher.runner import Dispatcher
from server.delivery.clipping import Piece, clip
from server.job_classes.definition import Arguments, Asked, JobClass, told
from server.job_classes.tool import ToolAnswer, ask
from server.login import audit
from server.login.audit import Audit
from server.login.roles import Login, Role
from server.session import Session
from server.wire.protocol import Reply, Request
from sysadmd.apart import apart
from sysadmd.errors import Conflict, ToolFailed
from sysadmd.journal import Transaction
from sysadmd.settings import ClassSettings

T = TypeVar("T")

# Programs that are asked something at once for one account: each is a process, and its answer
# some MB.
ASKED_AT_ONCE: Final = 2
# How long it is remembered which tool is there, s: to look may take a process.
REMEMBERED: Final = 2.0
# How long a look may take until what was known before it is told, s.
PATIENCE: Final = 1.0
# Of a class's jobs so many are looked through.
MOST_JOBS: Final = 200
# Beyond the time that a program has: until its thread has seen to its end, s.
_GRACE: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Found:
    """A class's tool, as it was looked for at a time of the loop's, by these settings.

    before: what was found the last time, by the same settings; empty: nothing is known.
    """

    at: float
    settings: ClassSettings
    answer: asyncio.Future[str | None]
    before: tuple[str | None, ...] = ()

    @property
    def known(self) -> tuple[str | None, ...]:
        """What was found, or before, if this look has found nothing out (yet)."""
        if self.answer.done() and self.answer.exception() is None:
            return (self.answer.result(),)
        return self.before


class Tools:
    """What all classes share: the settings, the trail, turns at asking programs."""

    def __init__(
        self, settings: Callable[[], ClassSettings], trail: Audit, state_dir: Path
    ) -> None:
        self.settings = settings
        self.trail = trail
        self.state_dir = state_dir
        # By account, of which there are few.
        self._turns: defaultdict[Hashable, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(ASKED_AT_ONCE)
        )
        self._found: dict[str, _Found] = {}

    async def find(self, job_class: JobClass) -> str | None:
        """The class's tool, if it is on this machine. One that hangs holds up nobody twice."""
        found = self._found.get(job_class.name)
        now, settings = asyncio.get_running_loop().time(), self.settings()
        if found is None or found.settings is not settings:
            found = self._look(job_class, now, settings, ())
        elif found.answer.done() and now - found.at > REMEMBERED:
            found = self._look(job_class, now, settings, found.known)
        if found.before:
            await asyncio.wait((found.answer,), timeout=PATIENCE)
            return found.known[0]
        return await asyncio.shield(found.answer)

    def _look(
        self,
        job_class: JobClass,
        now: float,
        settings: ClassSettings,
        before: tuple[str | None, ...],
    ) -> _Found:
        answer = apart(partial(job_class.find, settings), "a class's tool")
        found = self._found[job_class.name] = _Found(now, settings, answer, before)
        return found

    async def here(self, classes: Sequence[JobClass]) -> list[str]:
        """Which of these classes there are on this machine."""
        found = await asyncio.gather(*map(self.find, classes), return_exceptions=True)
        return [
            one.name
            for one, tool in zip(classes, found, strict=True)
            # Of which nobody can tell is said when it is asked.
            if isinstance(tool, str | ToolFailed)
        ]

    async def ask(
        self, asker: Hashable, argv: Sequence[str], read: Callable[[ToolAnswer], T]
    ) -> T:
        """As `Asked.ask`, in turns for each account."""
        timeout, turns = self.settings().query_timeout, self._turns[asker]
        await turns.acquire()
        answer = apart(lambda: read(ask(argv, timeout)), "asking a tool")
        # One that hangs in the system keeps its turn.
        answer.add_done_callback(lambda _: turns.release())
        done, _ = await asyncio.wait((answer,), timeout=timeout + _GRACE)
        if not done:
            raise ToolFailed(f"{argv[0]} hangs in the system, and can't even be killed")
        return answer.result()


class JobRequests:
    """Answers sysadm/pkg and its like."""

    # For programs of this machine, and servers of others.
    waits = True

    def __init__(self, job_class: JobClass, dispatcher: Dispatcher, tools: Tools) -> None:
        self.job_class = job_class
        self.dispatcher = dispatcher
        self.tools = tools
        self.turn = asyncio.Lock()

    def role(self, request: Request) -> Role | None:
        action = self.job_class.actions.get(request.action())
        return Role.LIMITED if action is not None and action.reading else Role.FULL

    async def answer(self, session: Session, request: Request) -> Reply | None:
        name, role = request.action(), self.role(request)
        assert role is not None
        login = session.require(request, role)
        tool = await self.tools.find(self.job_class)
        if tool is None:
            raise request.refuse(
                404, f"{self.job_class.name} needs {self.job_class.needs}, which is not here"
            )
        action = self.job_class.actions.get(name)
        if action is None:
            known = ", ".join(self.job_class.actions)
            raise request.refuse(404, f"{self.job_class.name} knows the actions {known}")
        asked = _Asked(session, request, login, self, tool)
        value = await action.answer(asked)
        if action.reading:
            session.require_still(request, login)
        return Reply(told(name, value))


class _Asked(Asked):
    """One request, as actions see it."""

    def __init__(
        self, session: Session, request: Request, login: Login, of: JobRequests, tool: str
    ) -> None:
        self._session = session
        self._request = request
        self._login = login
        # By the commit it may be somebody else.
        self._who = login.account, session.address
        self._of = of
        self._dispatcher = of.dispatcher
        self._tools = of.tools
        self._tool = tool
        self._args = Arguments(request.fields())

    @property
    def args(self) -> Arguments:
        return self._args

    @property
    def tool(self) -> str:
        return self._tool

    @property
    def settings(self) -> ClassSettings:
        return self._tools.settings()

    @property
    def turn(self) -> asyncio.Lock:
        return self._of.turn

    def _require_still(self) -> None:
        """Before anything is done: tools were asked meanwhile, and who asks may be out."""
        self._session.require_still(self._request, self._login)

    async def queue(self, order: Order) -> JobRow:
        self._require_still()

        def note(change: Transaction, jobs: Sequence[JobRow]) -> None:
            (job,) = jobs
            texts = "; ".join(spec.text for spec in order.commands)
            audit.write(change, *self._who, f"queue {job.id}: {texts}")

        queues = [queue.name for queue in self._dispatcher.queues()]
        if order.queue not in queues:
            raise Conflict(
                f"jobs of {self._of.job_class.name} wait in {order.queue}, which is not there:"
                f" add `{order.queue} = 1` to [dispatcher.queues]"
            )
        asked = replace(order, account=self._who[0])
        return (await self._dispatcher.submit([asked], note))[0]

    async def kill(self, id: str) -> bool:
        self._require_still()

        def note(change: Transaction, killed: Sequence[str]) -> None:
            audit.write(change, *self._who, "kill " + ", ".join(killed))

        return bool(await self._dispatcher.kill([id], note))

    async def ask(self, *argv: str, read: Callable[[ToolAnswer], T]) -> T:
        return await self._tools.ask(self._session.asker, argv, read)

    async def jobs(self, action: str | None = None) -> list[JobRow]:
        name = self._of.job_class.name

        def look(db: Connection) -> list[JobRow]:
            rows = records.of_class(db, name, MOST_JOBS)
            return [row for row in rows if action in (None, row.fields.get("action"))]

        return await self._session.read(look)

    async def output(self, job: JobRow, limit: int) -> str:
        def look(db: Connection) -> str:
            commands = records.commands(db, job.uid)
            each = limit // max(1, len(commands))
            return "".join(
                output(logs.path(self._tools.state_dir, job.uid, one.n), each)
                for one in commands
            )

        return await self._session.read(look)

    async def note(self, action: str) -> None:
        self._require_still()
        await self._tools.trail.note(*self._who, action)


def output(path: Path, limit: int) -> str:
    """A log as it is by now, at most `limit` bytes as JSON."""
    size = logs.size(path) or 0
    return clip(Piece(*logs.ends(path, 0, size, limit), size), limit)
