"""Sees to it that there is a keeper, and notices what becomes of each. Moves no job itself.

At most one keeper takes commands. Others drain: they are of another version of the program, or
their guard is dead. Of a dead keeper the book is read to its end, which its guard writes.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import sysadmd
from dispatcher import book, keepers
from dispatcher.board import Board
from dispatcher.keepers import KeeperPair, Link, NoAnswer
from sysadmd.backoff import backoff

log = logging.getLogger(__name__)

# How often to look at what says nothing by itself, a keeper that does not answer or a guard: at
# first, and when it takes long; s.
POLL: Final = 0.05
LONGEST_POLL: Final = 0.5
# How long the daemon's start waits for a keeper that lives but does not answer, s.
AT_START: Final = 1.0
# Between two attempts to start a keeper, s.
RETRY: Final = 1.0


class Tender:
    """Works on the board's pairs."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._needed = asyncio.Event()

    async def find(self, positions: dict[str, tuple[int, int]]) -> None:
        """Take up the pairs that earlier daemons have left. positions: how far their books were
        worked in."""
        room = self._board.room
        for id in keepers.ids(room):
            there = book.generations(room, id)
            first = (there[0] if there else 1, 0)
            at = positions.get(id, first)
            if at[0] not in there:
                at = first
            for older in there:
                if older < at[0]:
                    book.path(room, id, older).unlink()
            self._board.pairs[id] = KeeperPair(id, book.BookReader(room, id, *at))
        async with asyncio.TaskGroup() as group:
            for pair in self._board.pairs.values():
                group.create_task(self._look(pair, AT_START))

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for pair in self._board.pairs.values():
                    group.create_task(self._tend(pair))
                while True:
                    if not any(self._may_take(pair) for pair in self._board.pairs.values()):
                        await self._start(group)
                    await self._needed.wait()
                    self._needed.clear()
        finally:
            for pair in self._board.pairs.values():
                if pair.link is not None:
                    pair.link.close()

    def _may_take(self, pair: KeeperPair) -> bool:
        return pair.takes or (pair.link is not None and not pair.link.draining)

    async def _start(self, group: asyncio.TaskGroup) -> None:
        board = self._board
        while True:
            try:
                id = await keepers.start(board.state_dir, board.limits)
                link = await keepers.call(board.state_dir, id)
            except (OSError, NoAnswer) as error:
                log.error("no keeper, so nothing starts: %s", error)
                await asyncio.sleep(RETRY)
                continue
            break
        pair = KeeperPair(id, book.BookReader(board.room, id, 1, 0), link, takes=True)
        board.pairs[id] = pair
        board.wake.set()
        group.create_task(self._tend(pair))

    async def _look(self, pair: KeeperPair, patience: float = keepers.PATIENCE) -> None:
        """Call it if it lives; else say what is left of it."""
        room, board = self._board.room, self._board
        if keepers.lives(room, pair.id, "keeper"):
            try:
                link = await keepers.call(board.state_dir, pair.id, patience)
            except NoAnswer:
                # Just gone, or stopped: to be looked at again.
                board.wake.set()
                return
            if link.version != sysadmd.__version__:
                link.send({"drain": 1})
                link.draining = True
            pair.link = link
            pair.settle = True
        elif keepers.lives(room, pair.id, "guard"):
            pair.settle = True
        else:
            pair.settle = pair.over = True
        board.wake.set()

    async def _tend(self, pair: KeeperPair) -> None:
        """Until guard and keeper are dead."""
        board = self._board
        orphaned = False
        waits = backoff(POLL, LONGEST_POLL)
        while not pair.over:
            if pair.link is not None:
                await self._listen(pair, pair.link)
                pair.link.close()
                pair.link = None
                pair.takes = False
                waits = backoff(POLL, LONGEST_POLL)
                self._needed.set()
            elif not orphaned and keepers.lives(board.room, pair.id, "keeper"):
                await self._look(pair)
                self._needed.set()
                if pair.link is None:
                    await asyncio.sleep(next(waits))
            elif keepers.lives(board.room, pair.id, "guard"):
                if not orphaned:
                    orphaned = True
                    log.info("keeper %s is gone; its guard speaks for it", pair.id)
                    pair.settle = True
                board.wake.set()
                await asyncio.sleep(next(waits))
            else:
                pair.settle = pair.over = True
        board.wake.set()
        self._needed.set()

    async def _listen(self, pair: KeeperPair, link: Link) -> None:
        """Until the connection is over."""
        while (word := await link.hear()) is not None:
            if word.get("draining") and not link.draining:
                log.info("keeper %s takes no more commands", pair.id)
                link.draining = True
                pair.takes = False
                pair.settle = True
                self._needed.set()
            self._board.wake.set()
