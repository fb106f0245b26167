"""What is kept how long: takes old events, finished jobs that no event speaks of, old entries
of the trail, tokens that have run out. `aging` says how old things are."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from dispatcher import records
from server.aging import Aging
from server.login import audit, keys, tokens
from sysadmd import journal
from sysadmd.apart import apart
from sysadmd.errors import StoreFull
from sysadmd.journal import Transaction
from sysadmd.settings import RetentionSettings
from sysadmd.store import Store

log = logging.getLogger(__name__)

# How often retention is applied; s. The contract promises 60.
INTERVAL: Final = 30.0
# Events taken, or sizes read, in one transaction: others get the writer in between.
STEP: Final = 2000


def room_for_logs(state_dir: Path) -> int | None:
    """How many finished jobs can be kept, each with a directory for its logs; None: more than
    anybody wants.

    A quarter of what the file system takes is left for those that begin until retention looks
    again: of UFS's 32,767, some hundred a second. Linux says what its file systems once took.
    Source: pathconf(2), LINK_MAX.
    """
    if sys.platform.startswith("linux"):
        return None
    try:
        most = os.pathconf(state_dir, "PC_LINK_MAX")
    except OSError:
        # Not every file system can say.
        return None
    return most - most // 4 if most > 0 else None


class Pruner:
    """Applies retention in small steps."""

    def __init__(
        self, store: Store, state_dir: Path, settings: Callable[[], RetentionSettings]
    ) -> None:
        self._settings = settings
        self._aging = Aging(store, settings)
        self._store = store
        self._state_dir = state_dir
        self._room = room_for_logs(state_dir)
        # Up to which seq sizes were added up: the journal grows at one end only.
        self._measured = 0
        self._size = 0

    async def run(self) -> None:
        """At once, then at every interval; until cancelled."""
        while True:
            try:
                await self.apply()
            except StoreFull as error:
                # It is what would make room; it is tried again, and the others go on.
                log.error("retention could not be applied: %s", error)
            await asyncio.sleep(INTERVAL)

    async def apply(self) -> None:
        """Take what is too old or too much."""
        self._aging.look()
        await self._measure()
        taken = 0
        while upto := self._next_step():
            taken += await self._prune(upto[0])
            self._size -= upto[1]
        if taken:
            log.info("retention took %d events; %d KiB are kept", taken, self._size // 1024)
        await self._finished_jobs()
        await self._trail_and_tokens()
        # Last: on a full disk it is the others that make room.
        await self._aging.keep()

    async def _prune(self, upto: int) -> int:
        return await self._store.write(lambda change: journal.prune(change.db, upto))

    async def _measure(self) -> None:
        while True:
            count = 0
            for seq, size in journal.sizes(self._store.reader, self._measured, STEP):
                self._measured, count = seq, count + 1
                self._size += size
            if count < STEP:
                return
            await asyncio.sleep(0)

    def _next_step(self) -> tuple[int, int] | None:
        """Up to which seq to prune next, and how many bytes that is; None: nothing to do."""
        excess = self._size - self._settings().events_size
        old = self._aging.older(journal.KIND, self._settings().events_days)
        if self._room is not None:
            # Who is told of them is shown their logs.
            old = max(old, records.excess(self._store.reader, self._room))
        upto = taken = 0
        for seq, size in journal.sizes(self._store.reader, 0, STEP):
            if seq > old and taken >= excess:
                break
            upto, taken = seq, taken + size
        return (upto, taken) if upto else None

    async def _finished_jobs(self) -> None:
        most = self._settings().jobs
        if self._room is not None:
            most = min(most, self._room)
        old = self._aging.older(journal.KIND, self._settings().jobs_days)

        def change(change: Transaction) -> list[int]:
            gone = journal.pruned(change.db).seq
            return records.prune_finished(change, most, gone, old)

        while uids := await self._store.write(change):
            await apart(partial(records.remove_logs, self._state_dir, uids), "retention")
            log.info("retention took the records and logs of %d finished jobs", len(uids))

    async def _trail_and_tokens(self) -> None:
        old = self._aging.older(audit.KIND, self._settings().jobs_days)
        wall = self._aging.wall()

        def change(change: Transaction) -> None:
            audit.prune(change, old)
            if wall is not None:
                tokens.tidy(change, wall)
                for key in keys.tidy(change, wall):
                    text = f"key {key.name} forgotten: its account may not log in any more"
                    audit.write(change, key.account, "local", text)

        await self._store.write(change)
