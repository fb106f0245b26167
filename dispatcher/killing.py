"""Ends jobs that were decided to end: TERM to all that belongs to the command, later KILL.

The decision is in the tables before the first signal, so a daemon that dies in between goes on
with it at its next start. Records nothing itself: the end comes by the keeper's book.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final

from dispatcher import dye, keepers, logs
from dispatcher.board import Board, Ending
from dispatcher.book import Line
from dispatcher.identity import Identity
from dispatcher.processes import Family
from sysadmd.backoff import backoff

log = logging.getLogger(__name__)

# Between two looks whether those asked to end have done so, s: short at first.
FIRST_LOOK: Final = 0.02
LONGEST_LOOK: Final = 0.5
# Until the keeper's word which process it is, s.
IDENTITY_POLL: Final = 0.02


class Killer:
    """Works on running jobs of the board that are marked as doomed."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._doomed: list[int] = []
        self._wake = asyncio.Event()
        # Tells our jobs' marks from those of another daemon.
        self._place = board.state_dir.stat().st_ino
        # If a job has started this daemon, what the daemon starts is not that job's.
        dye.wash()

    def kill(self, uid: int) -> None:
        """End this job's command; its mark is committed."""
        running = self._board.running.get(uid)
        if running is not None and not running.doomed:
            running.doomed = True
            self._doomed.append(uid)
            self._wake.set()

    def kill_unwritten(self, uid: int, ending: Ending) -> None:
        """As `kill`, when the mark can't be committed: what runs may be what fills the disk."""
        if uid in self._board.running:
            self._board.endings.setdefault(uid, ending)
            self._board.wake.set()
            self.kill(uid)

    def resume(self) -> None:
        """Go on with what an earlier daemon had decided."""
        rows = self._board.store.reader.execute(
            "SELECT uid FROM jobs WHERE state = 1 AND ending IS NOT NULL"
        ).fetchall()
        for (uid,) in rows:
            self.kill(uid)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                self._wake.clear()
                # At most one for each running job, of which the queues' limits are the bound.
                while self._doomed:
                    group.create_task(self._end(self._doomed.pop()))

    async def _end(self, uid: int) -> None:
        leader = await self._leader(uid)
        if leader is None:
            return
        family = self._family(uid, leader)
        loop = asyncio.get_running_loop()
        until = loop.time() + self._board.settings.kill_grace
        left = await asyncio.to_thread(self._ask, family)
        waits = backoff(FIRST_LOOK, LONGEST_LOOK)
        while left and (rest := until - loop.time()) > 0:
            await asyncio.sleep(min(next(waits), rest))
            left = await asyncio.to_thread(family.look)
        waits = backoff(FIRST_LOOK, LONGEST_LOOK)
        while left:
            left = await asyncio.to_thread(family.kill)
            if left:
                # Killed, but not gone: caught in the kernel, or forking against us.
                await asyncio.sleep(next(waits))

    def _in_books(self, uid: int, n: int) -> Identity | None:
        """The process of a command that a keeper has written down as begun, not as ended."""
        for pair in self._board.pairs.values():
            said: dict[str, Line] = {}
            for line in pair.book.read()[0]:
                said |= {
                    key: line for key in ("next", "began", "end") if line.get(key) == [uid, n]
                }
            if "began" in said and "end" not in said:
                began = said["began"]
                earliest = said.get("next", began)["at"]
                return Identity(began["pid"], began["start"], earliest, began["at"])
        return None

    def _family(self, uid: int, leader: Identity) -> Family:
        board = self._board
        # A mark that was given out again tells nothing.
        row = board.store.reader.execute(
            "SELECT seq FROM sqlite_sequence WHERE name = 'jobs'"
        ).fetchone()
        is_sole = row[0] - uid < dye.MARKS
        return Family(
            leader,
            mark=dye.mark(uid, self._place) if is_sole else None,
            files=[logs.path(board.state_dir, uid, board.running[uid].n)],
            spare=partial(keepers.is_of_pair, board.state_dir),
        )

    @staticmethod
    def _ask(family: Family) -> bool:
        left = family.look()
        if left:
            family.terminate()
        return left

    async def _leader(self, uid: int) -> Identity | None:
        """The process of the job's present command; None: the job has ended."""
        while (running := self._board.running.get(uid)) is not None:
            if running.identity is not None:
                return running.identity
            if uid in self._board.endings:
                # The book can't be worked in: the disk is full.
                identity = self._in_books(uid, running.n)
                if identity is not None:
                    return identity
            # It may stand in the book by now.
            self._board.wake.set()
            await asyncio.sleep(IDENTITY_POLL)
        return None
