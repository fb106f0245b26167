"""The loop that looks at what runs: time limits, how far logs have grown, who is left alone.

The daemon never carries a log's bytes: it looks at the size of the file and tells the range.
A command whose guard, keeper and starter are dead is looked at until it is gone: nobody will
ever tell its code, so it ends as `lost`, openly, with its whole log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dispatcher import logs, transitions
from dispatcher.advance import Mover
from dispatcher.hearing import PACE, Hearing
from dispatcher.identity import boot_clock
from dispatcher.killing import Killer
from dispatcher.processes import is_alive
from dispatcher.reports import Fields
from dispatcher.running import Ending, Running
from dispatcher.site import Site
from dispatcher.steps import Finding
from sysadmd.errors import StoreFull
from sysadmd.journal import Transaction

# Between two looks at the running jobs, s.
TICK: Final = 0.25


@dataclass(frozen=True, slots=True)
class _Step:
    """Progress of a job's command `n`: where its log ends that is told of, and what its class
    has to tell; None: it has none, or knows nothing of it."""

    job: Running
    n: int
    end: int
    fields: Fields | None


class Watcher:
    """Looks at the mover's running jobs; idle while there are none."""

    def __init__(self, site: Site, mover: Mover, killer: Killer, hearing: Hearing) -> None:
        self._site = site
        self._hearing = hearing
        self._mover = mover
        self._killer = killer

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._mover.busy.wait()
            self._look_after_orphans()
            try:
                await self._time_out()
                await self._tell_progress()
            except StoreFull:
                # It is said where jobs stand still; both are tried again.
                pass
            await asyncio.sleep(self._pause())

    def _pause(self) -> float:
        pause = min(TICK, self._site.settings.progress_interval)
        deadlines = [
            job.deadline
            for job in self._mover.running.values()
            if job.deadline is not None and not self._killer.ends(job.uid)
        ]
        nearest = min(deadlines, default=None)
        return pause if nearest is None else max(0.0, min(pause, nearest - boot_clock()))

    def _look_after_orphans(self) -> None:
        for job in self._mover.running.values():
            if job.orphaned and job.identity is not None and not is_alive(job.identity):
                if logs.unread(logs.pipe(self._site.state_dir, job.uid, job.n)):
                    # It will be in its log at the next look.
                    continue
                job.orphaned = False
                self._mover.found(Finding(job.uid, job.n, gone=True))

    async def _time_out(self) -> None:
        now = boot_clock()
        due = [
            job.uid
            for job in self._mover.running.values()
            if job.deadline is not None
            and job.deadline <= now
            and not self._killer.ends(job.uid)
        ]
        if not due:
            return

        def change(change: Transaction) -> list[tuple[int, int | None]]:
            return [(uid, transitions.mark(change, uid, "timed-out")) for uid in due]

        def committed(marked: list[tuple[int, int | None]]) -> None:
            for uid, n in marked:
                if n is not None:
                    self._killer.kill(uid, n)

        try:
            await self._site.store.write(change, committed)
        except StoreFull:
            for uid in due:
                job = self._mover.running.get(uid)
                # It may have ended meanwhile.
                if job is not None:
                    self._mover.decide(uid, Ending("timed-out"))
                    self._killer.kill(uid, job.n)
            raise

    async def _tell_progress(self) -> None:
        due = [job for job in self._mover.running.values() if self._is_due(job)]
        talking = [(job.uid, job.n) for job in due if self._hearing.hears(job.event_system)]
        fields = await self._hearing.listen(talking) if talking else {}
        steps = [step for job in due if (step := self._step(job, fields)) is not None]
        if not steps:
            return
        now = self._site.now()

        def change(change: Transaction) -> None:
            for step in steps:
                transitions.progress(change, now, step.job.uid, step.n, step.end, step.fields)

        await self._site.store.write(change)
        heard = asyncio.get_running_loop().time()
        for step in steps:
            if step.fields is not None:
                self._hearing.tell(step.job.uid, step.fields)
            if step.job.n == step.n:
                step.job.size = step.end
                step.job.heard = heard

    def _is_due(self, job: Running) -> bool:
        interval = self._site.settings.progress_interval
        if self._hearing.hears(job.event_system):
            interval = max(interval, PACE)
        return asyncio.get_running_loop().time() - job.heard >= interval

    def _step(self, job: Running, told: Mapping[int, Fields]) -> _Step | None:
        """None: there is nothing new of it."""
        path = self._site.log(job.uid, job.n)
        end, size = job.size, logs.size(path)
        if size is not None and size > end:
            end = max(end, logs.whole_characters(path, end, size))
        if end == job.size and job.uid not in told:
            return None
        fields = told.get(job.uid, self._hearing.last_of(job.uid))
        return _Step(job, job.n, end, fields)
