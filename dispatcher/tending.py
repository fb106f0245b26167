"""Sees to it that there is a keeper, and notices what becomes of each. Moves no job itself.

Owns the pairs of guards and keepers. Whatever is new of one sets `news`; what that means for
jobs is the next turn's matter (dispatcher/advance.py), which tells back how far the book is
worked in. At most one keeper takes commands. Others drain: they are of another version of the
program, or their guard is dead. Of a dead keeper the book is read to its end, which its guard
writes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable
from typing import Final

import sysadmd
from dispatcher import book, keepers, locks, logs, records
from dispatcher.fate import Pair
from dispatcher.keepers import KeeperPair, Link, NoAnswer
from dispatcher.site import Site
from dispatcher.steps import Facts
from dispatcher.words import Said
from sysadmd.apart import apart
from sysadmd.backoff import backoff
from sysadmd.text import printable, quoted

log = logging.getLogger(__name__)

# How often to look at what says nothing by itself, a keeper that does not answer or a guard: at
# first, and when it takes long; s.
POLL: Final = 0.05
LONGEST_POLL: Final = 0.5
# How long the daemon's start waits for a keeper that lives but does not answer, s.
AT_START: Final = 1.0
# Between two attempts to start a keeper, s.
RETRY: Final = 1.0
# A book above this is begun anew when it has been worked in: reading it at a start stays short.
BOOK_SIZE: Final = 1024 * 1024


class Tender:
    """The pairs, and the loop that tends them."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.pairs: dict[str, KeeperPair] = {}
        # There is something for the next turn: of a pair, or of whoever else sets it.
        self.news = asyncio.Event()
        self._needed = asyncio.Event()
        # Since when a keeper is being started; inf: none needs to be, -inf: it has failed.
        self._starting = math.inf

    def taker(self) -> KeeperPair | None:
        """The pair that starts commands; None: there is none just now."""
        return next((pair for pair in self.pairs.values() if pair.takes), None)

    def recall(self, uids: Iterable[int]) -> None:
        """Have these jobs, which are lent, given back. By who takes nothing more, or is yet to
        be called, they are without that."""
        taker = self.taker()
        if taker is not None and taker.link is not None:
            taker.link.send({"recall": [(uid, 0) for uid in uids]})

    @property
    def is_without(self) -> bool:
        """No keeper can be started, or has been for a while."""
        return time.monotonic() - self._starting > keepers.PATIENCE

    async def find(self) -> None:
        """Take up the pairs that earlier daemons have left."""
        room = self._site.room
        positions = {
            keeper: (generation, position)
            for keeper, generation, position in self._site.store.reader.execute(
                "SELECT * FROM books"
            )
        }
        for id in keepers.ids(room):
            there = book.generations(room, id)
            first = (there[0] if there else 1, 0)
            at = positions.get(id, first)
            if at[0] not in there:
                at = first
            for older in there:
                if older < at[0]:
                    book.path(room, id, older).unlink()
            self.pairs[id] = KeeperPair(id, book.BookReader(room, id, *at))
        async with asyncio.TaskGroup() as group:
            for pair in self.pairs.values():
                group.create_task(self._look(pair, AT_START))

    def miss(self, keeper: str) -> None:
        """A command was given to this keeper: if nothing is left of it, say so."""
        if keeper not in self.pairs:
            reader = book.BookReader(self._site.room, keeper, 1, 0)
            self.pairs[keeper] = KeeperPair(keeper, reader, settle=True, over=True)

    def worked_in(self, facts: Facts) -> None:
        """What this says of a pair and its book is committed."""
        pair = self.pairs[facts.keeper]
        if facts.generation != pair.book.generation:
            pair.turning = False
        pair.book.move(facts.generation, facts.position)
        if facts.pair is Pair.OVER:
            del self.pairs[facts.keeper]
            keepers.remove(self._site.room, [facts.keeper])
            return
        if facts.pair is Pair.SETTLED:
            self._employ(pair)
        if pair.link is not None and not pair.turning and pair.book.position > BOOK_SIZE:
            pair.turning = True
            pair.link.send({"turn": 1})

    def mistrust(self, pair: KeeperPair) -> None:
        """It writes what is not known here. It may not be heard of again how a command of it
        ends, so it is to go as soon as it has none: then that is known to be lost."""
        if pair.strange:
            return
        pair.strange = True
        log.warning(
            "keeper %s is of another version of this program: what it writes, %s, is passed"
            " over. It takes no more commands; one of which the end is not known ends as lost",
            pair.id,
            quoted(pair.book.strange.decode(errors="replace")),
        )
        if pair.link is not None:
            pair.link.send({"drain": 1})

    def _employ(self, pair: KeeperPair) -> None:
        """Let it start commands, if nobody else does."""
        link, taker = pair.link, self.taker()
        if link is None or link.draining or taker is pair:
            return
        if taker is None:
            pair.takes = True
            self.news.set()
        else:
            # It answered late, and another was started in its place.
            link.draining = True
            link.send({"drain": 1})

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for pair in self.pairs.values():
                    group.create_task(self._tend(pair))
                while True:
                    if not any(self._may_take(pair) for pair in self.pairs.values()):
                        await self._start(group)
                    await self._needed.wait()
                    self._needed.clear()
        finally:
            for pair in self.pairs.values():
                if pair.link is not None:
                    pair.link.close()

    def _may_take(self, pair: KeeperPair) -> bool:
        return pair.takes or (pair.link is not None and not pair.link.draining)

    async def _start(self, group: asyncio.TaskGroup) -> None:
        site = self._site
        self._starting = time.monotonic()
        pair = link = None
        while pair is None or link is None:
            try:
                id = await keepers.start(site.state_dir, site.limits)
                # From here on it is looked after: it may be stopped before it answers.
                pair = self.pairs[id] = KeeperPair(id, book.BookReader(site.room, id, 1, 0))
                link = await keepers.call(site.state_dir, id)
            except (OSError, NoAnswer) as error:
                if pair is not None:
                    group.create_task(self._tend(pair))
                    pair = None
                self._starting = -math.inf
                log.error("no keeper, so nothing starts: %s", error)
                await asyncio.sleep(RETRY)
                if self.taker() is not None:
                    # An earlier one answered late.
                    self._starting = math.inf
                    return
        # What an earlier one and its starters leave, it goes on with.
        left = await apart(lambda: list(logs.pipes(site.state_dir)), "pipes")
        link.send({"serve": left, "limit": site.settings.command_log_limit})
        pair.link, pair.silent, pair.takes = link, 0, True
        self._starting = math.inf
        self.news.set()
        group.create_task(self._tend(pair))

    async def _look(self, pair: KeeperPair, patience: float = keepers.PATIENCE) -> None:
        """Call it if it lives; else say what is left of it."""
        site = self._site
        if locks.lives(site.room, pair.id, "keeper"):
            try:
                link = await keepers.call(site.state_dir, pair.id, patience)
            except NoAnswer:
                # Just gone, or stopped: to be looked at again.
                self.news.set()
                return
            if link.version != sysadmd.__version__ or pair.strange:
                link.send({"drain": 1})
                link.draining = True
            pair.link = link
            pair.silent = 0
            pair.settle = True
        elif not locks.tells(site.room, pair.id):
            pair.settle = pair.over = True
        # Else guard and starters say by the book what comes of its commands.
        self.news.set()

    async def _tend(self, pair: KeeperPair) -> None:
        """Until nobody is left who tells anything."""
        room = self._site.room
        orphaned = dead = False
        waits = backoff(POLL, LONGEST_POLL)
        while not pair.over:
            if pair.link is not None:
                await self._listen(pair, pair.link)
                pair.link.close()
                pair.link = None
                pair.takes = False
                pair.hanging = set()
                waits = backoff(POLL, LONGEST_POLL)
                self._needed.set()
            elif not orphaned and locks.lives(room, pair.id, "keeper"):
                await self._look(pair)
                self._needed.set()
                if pair.link is None:
                    await asyncio.sleep(next(waits))
            elif locks.tells(room, pair.id):
                if not orphaned:
                    orphaned = True
                    # What it has not announced by now it never does, whoever else still may.
                    pair.settle = True
                    log.info("keeper %s is gone; others speak for it", pair.id)
                if not dead and not locks.begins(room, pair.id):
                    dead = pair.dead = True
                self.news.set()
                await asyncio.sleep(next(waits))
            else:
                pair.settle = pair.over = True
        self.news.set()
        self._needed.set()

    async def _listen(self, pair: KeeperPair, link: Link) -> None:
        """Until the connection is over."""

        def take(word: Said) -> None:
            pair.silent = 0
            if word.draining and not link.draining:
                log.info("keeper %s takes no more commands", pair.id)
                link.draining = True
                pair.takes = False
                pair.settle = True
                self._needed.set()
            if word.hanging is not None:
                self._say_what_hangs(pair, word.hanging)
            if not word.hello and word.hanging != frozenset():
                # That is what is said when nothing happens.
                self.news.set()

        await link.listen(take)

    def _say_what_hangs(self, pair: KeeperPair, hanging: frozenset[tuple[int, int]]) -> None:
        for uid, n in sorted(hanging - pair.hanging):
            db = self._site.store.reader
            job, commands = records.row(db, uid), records.commands(db, uid, n, n)
            if job is not None and commands:
                log.warning(
                    "job %s: the start of command %d (%s) hangs: working directory or program"
                    " do not answer; other jobs go on. See to the file system, or kill the job",
                    printable(job.id),
                    n,
                    printable(commands[0].text),
                )
        pair.hanging = set(hanging)
