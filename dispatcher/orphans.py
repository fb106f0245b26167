"""Looks after commands whose guard and keeper are both dead: nobody will ever tell their code.

While such a command lives, it is waited for; when it is gone, it ends as `lost`, openly, with
its whole log. One that was never started is started: that is known only if not even its log is
there.
"""

from __future__ import annotations

import asyncio
from typing import Final

from dispatcher import logs
from dispatcher.advance import lost
from dispatcher.board import Board
from dispatcher.processes import holder, is_alive
from dispatcher.transitions import Orphan, Verdict

# Between two looks, s. Nothing is known any more that haste could save.
POLL: Final = 0.25


class OrphanWatcher:
    """Works on the board's orphans."""

    def __init__(self, board: Board) -> None:
        self._board = board

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._board.abandoned.wait()
            await self.look()
            if not self._board.orphans:
                self._board.abandoned.clear()
            await asyncio.sleep(POLL)

    async def look(self) -> None:
        """Take those whose fate is clear off the list."""
        board = self._board
        for orphan in board.orphans[:]:
            verdict = self._verdict(orphan)
            if verdict is None:
                await self._recognise(orphan)
            else:
                board.orphans.remove(orphan)
                board.verdicts.append(verdict)
                board.wake.set()

    async def _recognise(self, orphan: Orphan) -> None:
        """Find out which process it is, so that it can be killed."""
        running = self._board.running.get(orphan.uid)
        if running is None or running.identity is not None:
            return
        identity = orphan.identity
        if identity is None:
            path = logs.path(self._board.state_dir, orphan.uid, orphan.n)
            identity = await asyncio.to_thread(holder, path, orphan.since)
        running.identity = identity

    def _verdict(self, orphan: Orphan) -> Verdict | None:
        path = logs.path(self._board.state_dir, orphan.uid, orphan.n)
        if orphan.identity is not None:
            return (
                None if is_alive(orphan.identity) else lost(self._board, orphan.uid, orphan.n)
            )
        if not logs.is_there(path):
            return Verdict(orphan.uid, orphan.n, started=False, size=0)
        return None if logs.is_held(path) else lost(self._board, orphan.uid, orphan.n)
