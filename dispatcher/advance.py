"""The loop that moves jobs forward, one commit at a time. The only place where jobs start.

Each turn takes what is new in the books, what was found out, and what may start; commits all
of it together; and only then hands the started commands to the keeper. Turns never overlap, so
what came meanwhile is the next turn's group: the busier, the more to a disk sync.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from dispatcher import keepers
from dispatcher.board import Board, Running, environment
from dispatcher.identity import Identity
from dispatcher.keepers import KeeperPair
from dispatcher.transitions import Advance, Facts, Outcome, Start, Verdict, mark
from sysadmd.errors import StoreFull
from sysadmd.journal import Transaction

log = logging.getLogger(__name__)

# A book above this is begun anew when it has been worked in: reading it at a start stays short.
BOOK_SIZE: Final = 1024 * 1024
# Between two attempts on a disk that is full, s. Nothing is lost meanwhile: the books have it.
RETRY: Final = 1.0


class Mover:
    """Works on the board."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._full = False

    async def run(self) -> None:
        """Until cancelled."""
        board = self._board
        while True:
            await board.wake.wait()
            board.wake.clear()
            try:
                await self.turn()
                self._full = False
            except StoreFull as error:
                if not self._full:
                    log.error("jobs stand still: %s", error)
                self._full = True
                await asyncio.sleep(RETRY)
                board.wake.set()

    async def turn(self) -> None:
        """One step forward. Raises: StoreFull; all is then as it was."""
        board = self._board
        facts = [entry for pair in board.pairs.values() if (entry := self._read(pair))]
        verdicts, unsent, endings = board.verdicts[:], board.unsent[:], dict(board.endings)
        taker = board.taker()
        if taker is None:
            unsent = []
        # What the jobs that end now make room for is decided where they end.
        queues, starting = (board.queues, ()) if taker is None else board.queues.start_ready()
        if not (facts or verdicts or unsent or starting or endings):
            return
        now = board.now()

        def change(change: Transaction) -> Outcome:
            step = Advance(change, now, None if taker is None else taker.id, board.log_size)
            for uid, ending in endings.items():
                mark(change, uid, ending.word)
                ending.note(change)
            for entry in facts:
                step.facts(entry)
            for verdict in verdicts:
                step.verdict(verdict)
            for uid, n in unsent:
                step.again(uid, n)
            step.start(queues, starting)
            return step.outcome

        try:
            outcome = await board.store.write(change)
        except StoreFull:
            for entry in facts:
                board.pairs[entry.keeper].settle |= entry.settle
            raise
        for uid in endings:
            del board.endings[uid]
        del board.verdicts[: len(verdicts)]
        del board.unsent[: len(unsent)]
        self._remember(outcome, taker)
        for entry in facts:
            self._worked_in(entry)

    def _read(self, pair: KeeperPair) -> Facts | None:
        # In this order: what is true of the writers now is so of all that is read after it.
        settle, over = pair.settle, pair.over
        lines, generation, position = pair.book.read()
        if (generation, position) != (pair.book.generation, pair.book.position):
            # The end is known when nothing more is read.
            self._board.wake.set()
            return Facts(pair.id, lines, generation, position)
        if settle or over:
            # It may be wanted anew while this one is being committed.
            pair.settle = False
            return Facts(pair.id, (), generation, position, settle=settle, over=over)
        return None

    def _remember(self, outcome: Outcome, taker: KeeperPair | None) -> None:
        """Bring the board up to what is now committed; send the starts."""
        board = self._board
        for queue, uid in outcome.finished:
            board.queues = board.queues.finish(queue, uid)
            board.running.pop(uid, None)
        for start in outcome.starts:
            self._started(start)
            assert taker is not None
            if taker.link is not None:
                # If it is gone by now, its book lacks the command: settling starts it again.
                taker.link.send(
                    {
                        "start": [start.uid, start.n],
                        "argv": start.argv,
                        "env": environment(start.env),
                        "cwd": start.cwd,
                    }
                )
        for uid, n in outcome.unsent:
            self._present(board.running[uid], n, None)
            board.unsent.append((uid, n))
        for uid, n, identity in outcome.began:
            running = board.running.get(uid)
            if running is not None and running.n == n:
                running.identity = identity
        if outcome.orphans:
            board.orphans += outcome.orphans
            board.abandoned.set()
        if board.running:
            board.busy.set()
        else:
            board.busy.clear()

    def _started(self, start: Start) -> None:
        board = self._board
        running = board.running.get(start.uid)
        if running is None:
            board.queues = board.queues.begin(start.queue, start.uid)
            running = Running(start.uid, start.queue, start.n, start.deadline)
            board.running[start.uid] = running
        self._present(running, start.n, None)

    def _present(self, running: Running, n: int, identity: Identity | None) -> None:
        if running.n != n:
            running.size = 0
        running.n = n
        running.identity = identity
        running.heard = asyncio.get_running_loop().time()

    def _worked_in(self, entry: Facts) -> None:
        pair = self._board.pairs[entry.keeper]
        if entry.generation != pair.book.generation:
            pair.turning = False
        pair.book.move(entry.generation, entry.position)
        if entry.over:
            del self._board.pairs[entry.keeper]
            keepers.remove(self._board.room, [entry.keeper])
            return
        if entry.settle:
            link = pair.link
            taker = self._board.taker()
            if link is not None and not link.draining and taker is None:
                pair.takes = True
                self._board.wake.set()
            elif link is not None and not link.draining and taker is not pair:
                # It answered late, and another was started in its place.
                link.draining = True
                link.send({"drain": 1})
        if pair.link is not None and not pair.turning and pair.book.size() > BOOK_SIZE:
            pair.turning = True
            pair.link.send({"turn": 1})


def lost(board: Board, uid: int, n: int) -> Verdict:
    """A command whose end nobody has seen."""
    return Verdict(uid, n, started=True, size=board.log_size(uid, n) or 0)
