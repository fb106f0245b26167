"""What time does to running jobs: deadlines, and word of how far a log has grown.

The daemon never carries a log's bytes: it looks at the size of the file and tells the range.
"""

from __future__ import annotations

import asyncio
from typing import Final

from dispatcher import logs, transitions
from dispatcher.board import Board, Ending, Running
from dispatcher.identity import boot_clock
from dispatcher.killing import Killer
from sysadmd.errors import StoreFull
from sysadmd.journal import Transaction

# Between two looks at the running jobs, s.
TICK: Final = 0.25


class Timer:
    """Works on the board's running jobs; idle while there are none."""

    def __init__(self, board: Board, killer: Killer) -> None:
        self._board = board
        self._killer = killer

    async def run(self) -> None:
        """Until cancelled."""
        board = self._board
        while True:
            await board.busy.wait()
            try:
                await self._time_out()
                await self._tell_progress()
            except StoreFull:
                # It is said where jobs stand still; both are tried again.
                pass
            await asyncio.sleep(self._pause())

    def _pause(self) -> float:
        pause = min(TICK, self._board.settings.progress_interval)
        deadlines = [job.deadline for job in self._board.running.values() if not job.doomed]
        nearest = min((at for at in deadlines if at is not None), default=None)
        return pause if nearest is None else max(0.0, min(pause, nearest - boot_clock()))

    async def _time_out(self) -> None:
        now = boot_clock()
        due = [
            job.uid
            for job in self._board.running.values()
            if job.deadline is not None and job.deadline <= now and not job.doomed
        ]
        if not due:
            return

        def change(change: Transaction) -> None:
            for uid in due:
                transitions.mark(change, uid, "timed-out")

        try:
            await self._board.store.write(change)
        except StoreFull:
            for uid in due:
                self._killer.kill_unwritten(uid, Ending("timed-out"))
            raise
        for uid in due:
            self._killer.kill(uid)

    async def _tell_progress(self) -> None:
        board = self._board
        grown = [entry for job in board.running.values() if (entry := self._grown(job))]
        if not grown:
            return
        now = board.now()

        def change(change: Transaction) -> None:
            for job, n, end in grown:
                transitions.progress(change, now, job.uid, n, end)

        await board.store.write(change)
        heard = asyncio.get_running_loop().time()
        for job, n, end in grown:
            if job.n == n:
                job.size = end
                job.heard = heard

    def _grown(self, job: Running) -> tuple[Running, int, int] | None:
        """The job, its command, and the end of what there is to tell of its log."""
        interval = self._board.settings.progress_interval
        if asyncio.get_running_loop().time() - job.heard < interval:
            return None
        path = logs.path(self._board.state_dir, job.uid, job.n)
        size = logs.size(path)
        if size <= job.size:
            return None
        end = logs.whole_characters(path, job.size, size)
        return (job, job.n, end) if end > job.size else None
