"""The door of the room: jobs are handed in, killed, and kept going. Knows no client, no wire.

Which process may start a command: a starter (dispatcher/starter.py), to which the keeper hands
it (dispatcher/keeper.py), asked by the loop in dispatcher/advance.py after the commit. Where an
end is recorded: in the keeper's book (dispatcher/book.py), from there in the tables, with its
event, in one transaction. What happens if a process dies:

    daemon            commands go on, the book fills; the next daemon works it in (recover)
    starter           its command falls to the keeper, which tells its end
    keeper            starters tell the ends of what runs; the daemon starts a new pair
    keeper, starter   the command falls to the guard, which tells its end
    guard             the keeper takes nothing new and drains; the daemon starts a new pair
    all but daemon    what ran is watched until it is gone, and ends as `lost` (watching.py)

What that means for each command is decided in one place (dispatcher/fate.py). There are five
loops, each with what it alone changes: the mover has the jobs in memory (advance), the tender
the keepers (tending), the killer the jobs that are being ended (killing), the watcher nothing;
the rouser continues or ends guards and keepers that do not answer (rousing).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from dispatcher import acceptance, foreign, keepers, lent, logs, orders, records
from dispatcher.acceptance import Bundle, Doomed
from dispatcher.advance import GOING_DOWN, Mover
from dispatcher.hearing import Hearing
from dispatcher.intake import Intake
from dispatcher.killing import Killer
from dispatcher.orders import Order
from dispatcher.processes import boot_mark
from dispatcher.records import JobRow
from dispatcher.reports import Reporter
from dispatcher.rousing import Rouser
from dispatcher.running import Ending
from dispatcher.site import Site
from dispatcher.tending import Tender
from dispatcher.watching import Watcher
from sysadmd.apart import apart
from sysadmd.errors import BadRequest, NotFound, Stopping, StoreFull
from sysadmd.journal import Note, Transaction, no_note
from sysadmd.settings import NO_QUEUE, DispatcherSettings
from sysadmd.store import Store

__all__ = ["Dispatcher", "Order", "QueueState"]

T = TypeVar("T")

# A keeper announces a command when it is handed over, and is heard of again after 5 s, if its
# start hangs. One that has not been heard of for so long is stopped, s.
UNANSWERED: Final = 10.0
NO_LIMITS: Final[Mapping[int, tuple[int, int]]] = {}
NO_REPORTERS: Final[Mapping[str, Reporter]] = {}


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue as it is now. name: None: the jobs without a queue. used: it ever had a job.

    drains: it is no longer configured and takes nothing new.
    """

    name: str | None
    limit: int
    paused: bool
    drains: bool
    used: bool
    waiting: int
    running: int


@dataclass(frozen=True, slots=True)
class Killed:
    """What a request to kill led to. away: nothing, since jobs of these queues are lent."""

    jobs: Sequence[Doomed]
    away: frozenset[str | None]


class Dispatcher:
    """All jobs of the machine. One instance; belongs to the event loop."""

    def __init__(
        self,
        store: Store,
        settings: DispatcherSettings,
        state_dir: Path,
        *,
        limits: keepers.Limits = NO_LIMITS,
        reporters: Mapping[str, Reporter] = NO_REPORTERS,
    ) -> None:
        """limits: those that commands get (RLIMIT_…: soft, hard); else the daemon's own.
        reporters: by class, what makes fields of what its jobs say."""
        self.stopping = False
        self._site = Site(store, settings, state_dir, limits, boot_mark())
        self._tender = Tender(self._site)
        self._rouser = Rouser(self._site, self._tender.pairs)
        hearing = Hearing(self._site, reporters)
        self._mover = Mover(self._site, self._tender, hearing)
        self._intake = Intake(self._site, self._mover)
        self._killer = Killer(self._site, self._mover, self._tender)
        self._watcher = Watcher(self._site, self._mover, self._killer, hearing)

    async def recover(self) -> None:
        """Make everything true again after whatever end the last daemon had. Before `run`.

        Fast, since nobody is served before it is through: of waiting jobs it reads the uids
        alone, and a keeper that does not answer is left for later.
        Raises: OSError if the state directory can't be used.
        """
        for name in ("jobs", "keeper"):
            (self._site.state_dir / name).mkdir(mode=0o700, exist_ok=True)
        await foreign.part_from_another_state(self._site)
        await self._tender.find()
        self._mover.load()
        await self._mover.settle()
        self._killer.resume()

    def look_again(self) -> None:
        """The state directory was away: read what was written into its books meanwhile."""
        self._mover.wake()

    async def run(self) -> None:
        """Keep jobs going until cancelled; running ones are then left alone."""
        parts: tuple[Coroutine[Any, Any, None], ...] = (
            self._tender.run(),
            self._rouser.run(),
            self._mover.run(),
            self._killer.run(),
            self._watcher.run(),
            self._remove_orphaned_logs(),
        )
        try:
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    group.create_task(part)
        finally:
            self.stopping = True

    def reconfigure(self, settings: DispatcherSettings) -> None:
        """Take new settings; a queue that is gone from them drains."""
        self._site.settings = settings
        self._mover.configure()

    async def submit(
        self,
        wanted: Sequence[Order],
        note: Callable[[Transaction, Sequence[JobRow]], object] = no_note,
    ) -> list[JobRow]:
        """Accept all of these, or none; returns once they are committed, in the same order.

        An active job's id with the same commands, or a known key with them, gives that job.
        note: committed together with them. Raises: BadRequest, Conflict, Stopping, StoreFull.
        """
        return await self.begin_submit(wanted, note)

    def begin_submit(
        self,
        wanted: Sequence[Order],
        note: Callable[[Transaction, Sequence[JobRow]], object] = no_note,
    ) -> asyncio.Future[list[JobRow]]:
        """As `submit`, but queued at once. Raises: BadRequest, Stopping; the rest is raised by
        what is returned."""
        for order in wanted:
            orders.check(order)
            self._check_queue(order.queue)
        self._check_going_on()
        return self._intake.begin(Bundle(wanted, note))

    async def kill(
        self,
        ids: Sequence[str],
        note: Callable[[Transaction, Sequence[str]], object] = no_note,
    ) -> list[str]:
        """Kill the active jobs of these ids; returns the ids of those that there are.

        A waiting job is then finished, a running one on its way: no command of it begins any
        more. While the disk is full only running ones can be killed. note: committed together
        with the decision, of those that there are. Raises: Stopping, StoreFull if there is
        none.
        """
        site, mover = self._site, self._mover
        barred: list[asyncio.Future[None]] = []

        def change(change: Transaction) -> Killed:
            away = lent.queues(change.db, ids)
            # One that has been lent may have begun.
            jobs = [] if away else acceptance.kill(change, site.now(), ids)
            if jobs:
                note(change, [job.id for job in jobs])
            return Killed(jobs, away)

        def killed(done: Killed) -> None:
            for job in done.jobs:
                if job.n is None:
                    mover.withdrawn(job.queue, job.uid)
                else:
                    barred.append(self._killer.kill(job.uid, job.n))

        try:
            async with AsyncExitStack() as held:
                while (done := await self._change(change, killed)).away:
                    await held.enter_async_context(mover.nothing_lent(done.away))
            named = [job.id for job in done.jobs]
        except StoreFull:
            running = acceptance.running(site.store.reader, ids)
            if not running:
                raise
            for id, (uid, n) in running.items():
                mover.decide(uid, Ending("killed", partial(_of_one, note, id)))
                barred.append(self._killer.kill(uid, n))
            named = list(running)
        if barred:
            await asyncio.wait(barred)
        return named

    async def pause(self, queue: str | None, note: Note = no_note) -> None:
        """Start nothing more of it, over restarts, until `resume`. Raises: NotFound."""
        await self._set_paused(queue, True, note)

    async def resume(self, queue: str | None, note: Note = no_note) -> None:
        """Undo `pause`. Raises: NotFound."""
        await self._set_paused(queue, False, note)

    @property
    def troubles(self) -> list[str]:
        """What keeps jobs from going on as they should, a line each."""
        found = self._rouser.troubles
        if self._tender.is_without:
            found.append("accepted jobs can't be started: there is no keeper; the log says why")
        elif self._is_waited_for():
            found.append("accepted jobs can't be started: the keeper does not take them")
        return found

    def _is_waited_for(self) -> bool:
        """Are there commands that the keeper was given long ago, and does not start?"""
        late = asyncio.get_running_loop().time() - UNANSWERED
        for job in self._mover.running.values():
            given = job.identity is None and job.heard < late
            if given and not records.is_announced(self._site.store.reader, job.uid, job.n):
                return True
        return False

    def queues(self) -> list[QueueState]:
        """All queues, that of the jobs without one first."""
        return [
            QueueState(
                name=name,
                limit=lane.limit,
                paused=lane.paused,
                drains=lane.drains,
                used=name in self._mover.used,
                waiting=len(lane.waiting),
                running=len(lane.running),
            )
            for name, lane in self._mover.queues.lanes.items()
        ]

    def position(self, uid: int) -> int | None:
        """A job's place in its queue, from 0, running ones first; None: it is not active."""
        for name in self._mover.queues.lanes:
            place = self._mover.queues.position(name, uid)
            if place is not None:
                return place
        return None

    async def _set_paused(self, queue: str | None, paused: bool, note: Note) -> None:
        if queue not in self._mover.queues.lanes:
            raise NotFound(f"there is no queue {queue!r}; there are: {self._queue_names()}")

        def change(change: Transaction) -> None:
            change.db.execute(
                "INSERT INTO queues (name, paused) VALUES (?, ?)"
                " ON CONFLICT DO UPDATE SET paused = ?",
                (queue or "", paused, paused),
            )
            note(change)

        if not paused:
            await self._change(change, lambda _: self._mover.paused(queue, paused))
            return
        async with self._mover.nothing_lent([queue]):
            await self._change(change, lambda _: self._mover.paused(queue, paused))

    async def _change(self, change: Callable[[Transaction], T], then: Callable[[T], None]) -> T:
        """Commit a change; `then` brings the memory up to it. Raises: Stopping, StoreFull."""
        self._check_going_on()
        # Who asks for a job after a kill does not want that one killed.
        self._intake.close()
        return await self._site.store.write(change, then)

    def _check_going_on(self) -> None:
        if self.stopping:
            raise Stopping(GOING_DOWN)

    def _check_queue(self, queue: str | None) -> None:
        lane = self._mover.queues.lanes.get(queue)
        if lane is None or lane.drains:
            raise BadRequest(
                f"queue {queue!r} is not configured; allowed: {self._queue_names()}"
            )

    def _queue_names(self) -> str:
        lanes = self._mover.queues.lanes.items()
        names = [name or NO_QUEUE for name, lane in lanes if not lane.drains]
        return ", ".join(sorted(names))

    async def _remove_orphaned_logs(self) -> None:
        """Delete what an earlier daemon had no time to: logs of jobs whose records are gone."""
        state_dir = self._site.state_dir
        there = await apart(partial(logs.uids, state_dir), "old logs")
        gone = records.unknown(self._site.store.reader, there)
        await apart(partial(logs.remove, state_dir, gone), "old logs")


def _of_one(
    note: Callable[[Transaction, Sequence[str]], object], id: str, change: Transaction
) -> None:
    note(change, [id])
