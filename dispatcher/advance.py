"""The loop that moves jobs forward, one commit at a time. The only place where jobs start.

It owns what the daemon holds in memory of its jobs: who waits, who runs. A copy of what is
committed, changed only after the commit, and small on purpose: of a waiting job the uid, all
else is in the tables. Each turn takes what is new in the books, what was found out, and what
may start; commits all of it together; and only then hands the started commands to the keeper.
Turns never overlap, so what came meanwhile is the next turn's group: the busier, the more to a
sync.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dispatcher import lent, logs, records
from dispatcher.fate import Pair
from dispatcher.handing_over import hand_over
from dispatcher.hearing import Hearing
from dispatcher.identity import Identity
from dispatcher.keepers import KeeperPair, Link
from dispatcher.lending import Lending
from dispatcher.processes import is_same_boot
from dispatcher.queue import IllegalMove, Queues
from dispatcher.records import PENDING, RUNNING
from dispatcher.running import Ending, Running
from dispatcher.site import Site
from dispatcher.steps import NO_ENDINGS, Endings, Facts, Finding, Outcome, Start
from dispatcher.tending import Tender
from dispatcher.transitions import Advance, mark
from dispatcher.words import Barred, Began, Dead, End, Fact, Left, Next
from sysadmd.errors import Stopping, StoreFull
from sysadmd.journal import Transaction

log = logging.getLogger(__name__)

# Between two attempts on a disk that is full, s. Nothing is lost meanwhile: the books have it.
RETRY: Final = 1.0
# How long it may take until it is in the tables that a command has begun, s: the book has it.
PUT_OFF: Final = 0.1
# What is said to who wants something when there are no more turns.
GOING_DOWN: Final = "the daemon is going down; ask again when it is back"
# What a book says of a command that does not run any more.
_ENDS: Final = (End, Barred, Left)


@dataclass(frozen=True, slots=True)
class Company:
    """A turn in the company of orders: what of them may start does so where they are accepted.

    queues: as of its beginning. keeper, link: who starts it.
    """

    mover: Mover
    queues: Queues
    keeper: str
    link: Link | None

    def start(self, change: Transaction, accepted: Iterable[tuple[str | None, int]]) -> Outcome:
        """Start what may start by now. accepted: queues and uids, in this transaction. In the
        store's writer thread."""
        queues = self.queues
        for queue, uid in accepted:
            queues = queues.adopt(queue, (uid,), ())
        step = self.mover.step(change, self.keeper, NO_ENDINGS)
        step.start(queues)
        return step.outcome

    def committed(self, outcome: Outcome) -> None:
        """The jobs are queued: bring the memory up to what became of them."""
        self.mover.remember(outcome, self.link)

    def over(self) -> None:
        """Let others have their turns, whether or not it was committed."""
        self.mover.end_turn()


class Mover:
    """The jobs in memory, and the loop that moves them."""

    def __init__(self, site: Site, tender: Tender, hearing: Hearing) -> None:
        self._site = site
        self._tender = tender
        self._hearing = hearing
        self._full: StoreFull | None = None
        self.queues = Queues()
        # Queues that ever had a job.
        self.used: set[str | None] = set()
        self.running: dict[int, Running] = {}
        # Something runs: time and progress are to be looked at.
        self.busy = asyncio.Event()
        # No turn is under way.
        self._free = asyncio.Event()
        self._free.set()
        self._lending = Lending(tender.recall, self._free)
        # Commands committed as running that no keeper has been asked to start.
        self._unsent: list[tuple[int, int]] = []
        self._findings: list[Finding] = []
        # Of running jobs, decided while the disk was full; committed with the next turn.
        self._endings: dict[int, Ending] = {}
        # When beginnings that were put off are worked in at the latest; if they are with the
        # next turn.
        self._latest: asyncio.TimerHandle | None = None
        self._hurries = False
        # Done with the next turn, or when there is none any more.
        self._next: asyncio.Future[None] | None = None
        self._over = False

    def load(self) -> None:
        """Take up all that is not finished, as the tables have it. Before the first turn."""
        db = self._site.store.reader
        waiting: dict[str | None, list[int]] = {}
        running: dict[str | None, list[int]] = {}
        for uid, queue, state in db.execute(
            "SELECT uid, queue, state FROM jobs WHERE state < 2 ORDER BY uid"
        ):
            (waiting if state == PENDING else running).setdefault(queue, []).append(uid)
        away = lent.everything(db)
        queues = self.queues.configure(self._site.limits_of_queues())
        for queue in waiting.keys() | running.keys():
            line = waiting.get(queue, ())
            queues = queues.adopt(
                queue, line, running.get(queue, ()), [uid for uid in line if uid in away]
            )
        self.queues = queues
        self._lending.watch(queues)
        for keeper in {*away.values()}:
            self._tender.miss(keeper)
        marks = records.queue_marks(db)
        self.used = {queue for queue, (_, used) in marks.items() if used}
        self._pause_as_written()
        heard = asyncio.get_running_loop().time()
        for uid, queue, n, deadline, told, keeper, pid, next_at, began_at, system in db.execute(
            "SELECT uid, queue, n, deadline, told, keeper, pid, next_at, began_at, event_system"
            " FROM commands JOIN jobs ON job = uid WHERE commands.state = ?",
            (RUNNING,),
        ).fetchall():
            identity = None if began_at is None else Identity(pid, next_at, began_at)
            self.running[uid] = Running(
                *(uid, queue, n, deadline, identity),
                heard=heard,
                size=told,
                event_system=system,
            )
            if keeper is None:
                self._unsent.append((uid, n))
            else:
                self._tender.miss(keeper)
        if self.running:
            self.busy.set()
        self.wake()

    def configure(self) -> None:
        """Take the queues of new settings; one that is gone from them drains."""
        self._lending.call_all_back()
        self.queues = self.queues.configure(self._site.limits_of_queues())
        self._pause_as_written()
        self.wake()

    def accepted(
        self, used: Iterable[str | None], jobs: Iterable[tuple[str | None, int]]
    ) -> None:
        """Queue committed jobs: their queues and uids. used: queues that were named."""
        self.used.update(used)
        for queue, uid in jobs:
            # The queue may be gone from the settings by now: it drains, then.
            self.queues = self.queues.adopt(queue, (uid,), ())

    def begin_company(self, named: Iterable[str | None]) -> Company | None:
        """A turn for orders that are about to be written: to be ended. None: they have to wait
        for one, or for others in the queues that they name."""
        taker = self._tender.taker()
        if taker is None or not self._free.is_set() or self._tender.news.is_set():
            return None
        if not any(self.queues.has_room(queue) for queue in named):
            return None
        self._free.clear()
        return Company(self, self.queues, taker.id, taker.link)

    def end_turn(self) -> None:
        """None is under way any more."""
        self._free.set()
        self._lending.tell()

    def withdrawn(self, queue: str | None, uid: int) -> None:
        """Forget a job that waited, and is committed as finished. A turn that is under way may
        have counted on it: then there is room for others."""
        self.queues = self.queues.remove(queue, uid)
        self.wake_for((queue,))

    def paused(self, queue: str | None, paused: bool) -> None:
        """Start nothing more of a queue, or again; it is committed."""
        try:
            self.queues = self.queues.pause(queue, paused)
        except IllegalMove:
            # It drained and is gone meanwhile.
            return
        self.wake()

    def found(self, finding: Finding) -> None:
        """Book this with the next turn."""
        self._findings.append(finding)
        self.wake()

    def decide(self, uid: int, ending: Ending) -> None:
        """Let a running job end so, with the next turn for which there is room on the disk."""
        if uid in self.running:
            self._endings.setdefault(uid, ending)
            self.wake()

    def is_decided(self, uid: int) -> bool:
        """Is the job's end one that can't be written yet?"""
        return uid in self._endings

    @contextlib.asynccontextmanager
    async def nothing_lent(self, queues: Collection[str | None]) -> AsyncGenerator[None]:
        """Within, no job of these can begin without us. Raises: StoreFull, Stopping."""
        self._lending.hold(queues)
        try:
            # A turn that is under way may lend.
            await self._free.wait()
            while self._lending.call_back(queues):
                if self._over:
                    raise Stopping(GOING_DOWN)
                if self._full is not None:
                    raise self._full.with_traceback(None)
                if self._next is None:
                    self._next = asyncio.get_running_loop().create_future()
                await asyncio.shield(self._next)
            yield
        finally:
            self._lending.release(queues)

    def wake(self) -> None:
        """Take a turn: there may be something new."""
        self._tender.news.set()

    def wake_for(self, queues: Iterable[str | None]) -> None:
        """Take a turn if a job that now waits in one of these may start. Else who makes room,
        or resumes the queue, does so; but for a turn that began before it waited."""
        lanes, under_way = self.queues.lanes, not self._free.is_set()
        if any(queue in lanes and (under_way or lanes[queue].has_room) for queue in queues):
            self.wake()

    def hurry(self) -> None:
        """Take a turn, and put nothing off."""
        if self._latest is not None:
            self._latest.cancel()
            self._latest = None
        self._hurries = True
        self.wake()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self._tender.news.wait()
                await self._free.wait()
                self._tender.news.clear()
                full, before = await self._try_turn(), self._full
                self._full = full
                self._turned()
                if full is not None:
                    if before is None:
                        log.error("jobs stand still: %s", full)
                    await asyncio.sleep(RETRY)
                    self.wake()
        finally:
            self._over = True
            self._turned()

    def _turned(self) -> None:
        """Who waits for the next turn looks what has come of it."""
        if self._next is not None:
            self._next.set_result(None)
            self._next = None

    async def _try_turn(self) -> StoreFull | None:
        """A turn that no other one overlaps; why nothing came of it."""
        self._free.clear()
        try:
            await self._turn()
        except StoreFull as error:
            return error
        finally:
            self.end_turn()
        return None

    async def settle(self) -> None:
        """Turns until there is nothing new: the daemon's first moments."""
        while self._tender.news.is_set():
            self._tender.news.clear()
            self._hurries = True
            if await self._try_turn() is not None:
                # Nothing is lost: the loop goes on with it when there is room.
                self.wake()
                return

    async def _turn(self) -> None:
        """One step forward. Raises: StoreFull; all is then as it was."""
        tender = self._tender
        facts = [entry for pair in tender.pairs.values() if (entry := self._read(pair))]
        self._hurries = False
        findings, unsent = self._findings[:], self._unsent[:]
        endings = dict(self._endings)
        taker = tender.taker()
        if taker is None:
            unsent = []
        queues = self.queues
        starts = taker is not None and bool(queues.start_ready()[1])
        if not (facts or findings or unsent or starts or endings):
            return
        keeper = None if taker is None else taker.id
        link = None if taker is None else taker.link
        terms = self._lending.terms(link)

        def change(change: Transaction) -> Outcome:
            step = self.step(change, keeper, reports)
            for uid, ending in endings.items():
                mark(change, uid, ending.word)
                ending.note(change)
            for entry in facts:
                step.facts(entry)
            for finding in findings:
                step.finding(finding)
            for uid, n in unsent:
                step.unsent(uid, n)
            step.start(queues, terms)
            return step.outcome

        def committed(outcome: Outcome) -> None:
            for uid in endings:
                del self._endings[uid]
            del self._findings[: len(findings)]
            del self._unsent[: len(unsent)]
            self.remember(outcome, link)
            for entry in facts:
                tender.worked_in(entry)

        try:
            async with self._ends_of_classes(facts, findings) as reports:
                await self._site.store.write(change, committed)
        except StoreFull:
            for entry in facts:
                pair = tender.pairs[entry.keeper]
                pair.settle |= entry.pair is not Pair.STARTS
                pair.dead |= entry.pair is Pair.DEAD
            raise

    @contextlib.asynccontextmanager
    async def _ends_of_classes(
        self, facts: Sequence[Facts], findings: Sequence[Finding]
    ) -> AsyncGenerator[Endings]:
        """What classes tell of the jobs of theirs that may end now; until that is written."""
        hearing, running = self._hearing, self.running
        if all(entry.pair is Pair.STARTS for entry in facts):
            lines = [line for entry in facts for line in entry.lines if isinstance(line, _ENDS)]
            ending = {line.job[0] for line in lines} | {one.uid for one in findings}
        else:
            ending = set(running)
        jobs = [running[uid] for uid in ending if uid in running]
        asked = [(job.uid, job.n) for job in jobs if hearing.hears(job.event_system)]
        if not asked:
            yield NO_ENDINGS
            return
        async with hearing.endings(asked) as endings:
            yield endings

    def step(self, change: Transaction, keeper: str | None, endings: Endings) -> Advance:
        """One in this transaction; keeper: as in `Advance`."""
        site = self._site
        files = logs.LogFiles(site.state_dir)
        return Advance(change, site.now(), keeper, files, self._is_this_boot, endings)

    def _is_this_boot(self, mark: str) -> bool:
        return is_same_boot(mark, self._site.boot_id)

    def _read(self, pair: KeeperPair) -> Facts | None:
        # In this order: what is true of the writers now is so of all that is read after it.
        state = pair.state
        lines, generation, position = pair.book.read()
        if pair.book.strange:
            self._tender.mistrust(pair)
        if (generation, position) != (pair.book.generation, pair.book.position):
            if state is Pair.STARTS and self._put_off(lines):
                return None
            if state is not Pair.STARTS or not pair.book.is_whole:
                # What is true of the writers is said when nothing more is read. What they add
                # meanwhile, they tell.
                self.wake()
            if any(isinstance(line, Dead) for line in lines):
                # It is known by the book before its silence is.
                pair.takes = False
            return Facts(pair.id, lines, generation, position, alive=not pair.over)
        if state is Pair.STARTS:
            return None
        # It may be wanted anew while this one is being committed.
        pair.settle = pair.dead = False
        return Facts(pair.id, (), generation, position, state, alive=not pair.over)

    def _put_off(self, lines: Sequence[Fact]) -> bool:
        """Can this wait? What has begun is written down with its end, if that comes soon: a
        commit for each would take as long as a short command."""
        if self._hurries or not all(
            isinstance(line, Next | Began) and line.job[0] in self.running for line in lines
        ):
            return False
        if self._latest is None:
            self._latest = asyncio.get_running_loop().call_later(PUT_OFF, self.hurry)
        return True

    def remember(self, outcome: Outcome, link: Link | None) -> None:
        """Bring the memory up to what is now committed; send the starts.

        link: to the keeper that they were given to. If it is gone by now, the book lacks the
        commands, and settling starts them again: another link to it would start them twice.
        """
        for job in outcome.promoted:
            self._runs(job.uid, job.queue, job.deadline)
        if outcome.returned:
            self.queues = self.queues.give_back(outcome.returned)
        for queue, uid in outcome.finished:
            self.queues = self.queues.finish(queue, uid)
            self.running.pop(uid, None)
        for queue in outcome.paused & self.queues.lanes.keys():
            self.queues = self.queues.pause(queue, True)
        for queue, uid in outcome.withdrawn:
            self.withdrawn(queue, uid)
        for start in outcome.starts:
            self._started(start)
        for start in outcome.lent:
            self.queues = self.queues.lend(start.queue, start.uid)
        if link is not None:
            settings = self._site.settings
            hand_over(link, outcome, self.queues, settings.command_log_limit)
        for uid, n in outcome.unsent:
            self._present(self.running[uid], n)
            self._unsent.append((uid, n))
        for uid, n, identity in outcome.began:
            running = self.running.get(uid)
            if running is not None and running.n == n:
                running.identity = identity
        for orphan in outcome.orphans:
            running = self.running[orphan.uid]
            running.identity, running.orphaned = orphan.identity, True
        if outcome.finished:
            self._hearing.keep_only(self.running.keys())
        if self.running:
            self.busy.set()
        else:
            self.busy.clear()
        self._lending.watch(self.queues)

    def _started(self, start: Start) -> None:
        if start.uid in self.running:
            self._present(self.running[start.uid], start.n)
        else:
            self._runs(start.uid, start.queue, start.deadline)
            self.running[start.uid].event_system = start.event_system

    def _runs(self, uid: int, queue: str | None, deadline: float | None) -> None:
        """It waited, and now its first command runs."""
        self.queues = self.queues.begin(queue, uid)
        self.running[uid] = Running(uid, queue, 0, deadline)
        self._present(self.running[uid], 0)

    def _present(self, running: Running, n: int) -> None:
        if running.n != n:
            running.size = 0
        running.n = n
        running.identity = None
        running.orphaned = False
        running.heard = asyncio.get_running_loop().time()

    def _pause_as_written(self) -> None:
        """A queue is paused until it is resumed, over restarts and other configurations."""
        for queue, (paused, _) in records.queue_marks(self._site.store.reader).items():
            if paused and queue in self.queues.lanes:
                self.queues = self.queues.pause(queue, True)
