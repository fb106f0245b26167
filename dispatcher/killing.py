"""Ends jobs that were decided to end. First of all what has not begun is kept from beginning:
its log is made before it could. What has begun gets TERM, with all that belongs to it; later
KILL.

The decision is in the tables before anything is done, so a daemon that dies in between goes on
with it at its next start. Records nothing itself: the end comes by the keeper's book.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from dispatcher import dye, keepers, logs
from dispatcher.advance import Mover
from dispatcher.identity import Identity
from dispatcher.processes import Family, is_it, look_at
from dispatcher.site import Site
from dispatcher.steps import Finding
from dispatcher.tending import Tender
from dispatcher.words import Began, End, Next
from dispatcher.writers import Writers
from sysadmd.apart import Reserve, apart
from sysadmd.backoff import backoff

log = logging.getLogger(__name__)

T = TypeVar("T")

# Between two looks for the process that is to end, and whether it has, s: short at first.
FIRST_LOOK: Final = 0.02
LONGEST_LOOK: Final = 0.5
# A start that has led to no process after this hangs: its starter gets KILL, s. There is nobody
# who could use a grace.
STUCK: Final = 0.5


class Killer:
    """The jobs that are being ended, and the loop that ends them."""

    def __init__(self, site: Site, mover: Mover, tender: Tender) -> None:
        self._site = site
        self._mover = mover
        self._tender = tender
        # By uid; the future: what had not begun is kept from it.
        self._doomed: dict[int, asyncio.Future[None]] = {}
        self._todo: list[tuple[int, int]] = []
        self._wake = asyncio.Event()
        # What is to be killed may be what has used up all threads.
        self._reserve = Reserve()
        # Tells our jobs' marks from those of another daemon.
        self._place = site.state_dir.stat().st_ino
        # If a job has started this daemon, what the daemon starts is not that job's.
        dye.wash()

    def kill(self, uid: int, n: int) -> asyncio.Future[None]:
        """End this running job, whose command `n` is the last that may have begun.

        Its mark is committed. Done when nothing of it begins any more that has not.
        """
        if uid not in self._doomed:
            self._doomed[uid] = asyncio.get_running_loop().create_future()
            self._todo.append((uid, n))
            self._wake.set()
        return self._doomed[uid]

    def ends(self, uid: int) -> bool:
        """Is this job being ended?"""
        return uid in self._doomed

    def resume(self) -> None:
        """Go on with what an earlier daemon had decided."""
        for uid, n in self._site.store.reader.execute(
            "SELECT uid, n FROM jobs JOIN commands ON job = uid"
            " WHERE jobs.state = 1 AND ending IS NOT NULL AND commands.state = 1"
        ).fetchall():
            self.kill(uid, n)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._wake.wait()
                    self._wake.clear()
                    # At most one for each running job, of which the queues' limits are the
                    # bound.
                    while self._todo:
                        group.create_task(self._end(*self._todo.pop()))
        finally:
            self._reserve.close()

    def _apart(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return apart(work, "kill", self._reserve)

    async def _end(self, uid: int, n: int) -> None:
        try:
            barred = await self._bar(uid, n)
            leader = None if barred else await self._leader(uid)
            starter = None if leader is None else self._parent(leader)
            if leader is not None or n > 0:
                # Commands before this one may have left somebody.
                await self._end_family(self._family(uid, leader))
            if starter is not None:
                await self._free(uid, starter)
        finally:
            # Who waits for the bar waits no longer, if we are cancelled before it.
            self._doomed.pop(uid).cancel()

    async def _bar(self, uid: int, n: int) -> bool:
        """Keep a command from beginning. False: it has begun."""
        try:
            barred = await self._apart(partial(logs.bar, self._site.log(uid, n)))
        except OSError:
            # The disk is full. What becomes of it is seen when it has begun.
            barred = False
        if barred:
            self._mover.found(Finding(uid, n, barred=True))
        if not self._doomed[uid].done():
            self._doomed[uid].set_result(None)
        return barred

    async def _end_family(self, family: Family) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._site.settings.kill_grace
        left = await self._apart(partial(self._ask, family))
        waits = backoff(FIRST_LOOK, LONGEST_LOOK)
        while left and (rest := until - loop.time()) > 0:
            await asyncio.sleep(min(next(waits), rest))
            left = await self._apart(family.look)
        waits = backoff(FIRST_LOOK, LONGEST_LOOK)
        while left:
            left = await self._apart(family.kill)
            if left:
                # Killed, but not gone: caught in the kernel, or forking against us.
                await asyncio.sleep(next(waits))

    def _parent(self, leader: Identity) -> int | None:
        """The starter that is to tell the command's end; None: it is dead."""
        stat = look_at(leader.pid)
        if stat is None or not is_it(leader, stat):
            return None
        return stat.parent if keepers.is_of_pair(self._site.state_dir, stat.parent) else None

    async def _free(self, uid: int, starter: int) -> None:
        """Let the end be told, also if the starter is stopped: if it can't be continued, by who
        takes over from a dead one."""
        for number in (signal.SIGCONT, signal.SIGKILL):
            stat = look_at(starter)
            ours = uid in self._mover.running and keepers.is_of_pair(
                self._site.state_dir, starter
            )
            if stat is None or not stat.stopped or not ours:
                return
            with suppress(OSError):
                os.kill(starter, number)
            await asyncio.sleep(STUCK)

    def _family(self, uid: int, leader: Identity | None) -> Family:
        db, state_dir = self._site.store.reader, self._site.state_dir
        # A mark that was given out again tells nothing.
        (newest,) = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchone()
        announced = db.execute(
            "SELECT n, next_at, pid FROM commands WHERE job = ? AND next_at IS NOT NULL", (uid,)
        ).fetchall()
        since = math.inf if leader is None else leader.earliest
        return Family(
            leader,
            since=min([since, *(at for _, at, _ in announced)]),
            mark=dye.mark(uid, self._place) if newest - uid < dye.MARKS else None,
            # A command that an earlier version has begun has its log itself.
            files=[
                file
                for n, _, _ in announced
                for file in (logs.path(state_dir, uid, n), logs.pipe(state_dir, uid, n))
            ],
            pids=[pid for _, _, pid in announced if pid],
            spare=partial(keepers.is_of_pair, state_dir),
        )

    @staticmethod
    def _ask(family: Family) -> bool:
        left = family.look()
        if left:
            family.terminate()
        return left

    async def _leader(self, uid: int) -> Identity | None:
        """The process of the job's present command; None: the job has ended."""
        loop = asyncio.get_running_loop()
        until = loop.time() + STUCK
        waits = backoff(FIRST_LOOK, LONGEST_LOOK)
        while (running := self._mover.running.get(uid)) is not None:
            if running.identity is not None:
                return running.identity
            if self._mover.is_decided(uid):
                # The book can't be worked in: the disk is full.
                identity = self._in_books(uid, running.n)
                if identity is not None:
                    return identity
            # It may stand in the book by now.
            self._mover.hurry()
            if loop.time() > until:
                identity = self._in_books(uid, running.n)
                if identity is not None:
                    # It only takes long until that is committed.
                    return identity
                starter = self._starter(uid, running.n)
                end_start = partial(self._end_start, uid, running.n, starter)
                if not await self._apart(end_start):
                    # Nobody knows who it is; who has its output is known all the same.
                    await self._end_family(self._family(uid, None))
                until = loop.time() + LONGEST_LOOK
            await asyncio.sleep(next(waits))
        return None

    def _starter(self, uid: int, n: int) -> int | None:
        """The pid of who was told to begin the job's present command."""
        for pair in self._tender.pairs.values():
            for fact in pair.book.read()[0]:
                if isinstance(fact, Next) and fact.job == (uid, n) and fact.pid is not None:
                    return fact.pid
        row = self._site.store.reader.execute(
            "SELECT pid FROM commands WHERE job = ? AND state = 1 AND began_at IS NULL", (uid,)
        ).fetchone()
        return row[0] if row else None

    def _end_start(self, uid: int, n: int, starter: int | None) -> bool:
        """Kill a starter that has made this command's log and begun nothing, and whatever it
        has forked by now: its start hangs. What comes of it, the keeper says. False: there is
        none."""
        state_dir = self._site.state_dir
        stat = None if starter is None else look_at(starter)
        if stat is None or not keepers.is_of_pair(state_dir, stat.pid):
            return False
        if stat.pid not in Writers([logs.path(state_dir, uid, n)]):
            # By now it serves another one.
            return False

        def spare(pid: int) -> bool:
            other = look_at(pid)
            forked = other is not None and other.parent == stat.pid
            return not forked and keepers.is_of_pair(state_dir, pid)

        identity = Identity(stat.pid, stat.start, stat.start)
        Family(identity, since=stat.start, spare=spare).kill()
        return True

    def _in_books(self, uid: int, n: int) -> Identity | None:
        """The process of a command that has written down that it begins, and has not ended."""
        began = None
        for pair in self._tender.pairs.values():
            for fact in pair.book.read()[0]:
                if isinstance(fact, Began) and fact.job == (uid, n):
                    began = fact
                elif isinstance(fact, End) and fact.job == (uid, n):
                    return None
        if began is None:
            return None
        return Identity(began.pid, began.since, began.at)
