"""What retention goes by: how old events and the trail are by the time that has passed.

Looks at the clocks, keeps now and then what they told, and says when the wall clock leaps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from dispatcher.identity import boot_clock, boot_id
from server.login import audit
from sysadmd import ages, journal
from sysadmd.journal import Transaction
from sysadmd.passage import DAY, Passage
from sysadmd.settings import RetentionSettings
from sysadmd.store import Store

log = logging.getLogger(__name__)

# How often it is kept what the clocks told: what counts in days needs no more, and it is all
# that a daemon writes that has nothing to do; s.
KEEP: Final = 3600.0


class Aging:
    """How old things are; `look` first."""

    def __init__(self, store: Store, settings: Callable[[], RetentionSettings]) -> None:
        self._store = store
        self._settings = settings
        self._boot = boot_id()
        self._now: Passage | None = None
        self._kept: Passage | None = None

    def look(self) -> None:
        """At the clocks, which is when it is from here on."""
        uptime, wall = boot_clock(), time.time()
        if self._now is None:
            self._kept = ages.last_look(self._store.reader)
        before = self._now or self._kept or Passage(boot=self._boot, uptime=uptime, wall=wall)
        self._now = before.seen(self._boot, uptime, wall)
        _say(before, self._now)

    def older(self, kind: str, days: int) -> int:
        """Up to which number rows of this kind are older; 0: none is, or nobody can tell."""
        now = self._now
        if now is None or now.is_waiting:
            return 0
        return ages.older(self._store.reader, kind, now.passed - days * DAY)

    def wall(self) -> float | None:
        """The wall clock, s since 1970, if it is to be believed."""
        return None if self._now is None or self._now.is_waiting else self._now.wall

    async def keep(self) -> None:
        """Keep what the clocks told, if that is due. Raises: StoreFull."""
        now, kept, days = self._now, self._kept, self._settings()
        if now is None or (kept is not None and not _is_due(kept, now)):
            return
        oldest = now.passed - max(days.events_days, days.jobs_days) * DAY

        def change(change: Transaction) -> None:
            ages.keep_look(change.db, now)
            # What is owed is paid to `passed` all at once, and would make old what came since.
            if not now.owed:
                ages.note(change.db, journal.KIND, journal.head(change.db).seq, now.passed)
                ages.note(change.db, audit.KIND, audit.newest(change.db), now.passed)
            ages.prune(change.db, oldest)

        await self._store.write(change)
        self._kept = now


def _is_due(kept: Passage, now: Passage) -> bool:
    changed = (now.boot, now.leap, now.owed) != (kept.boot, kept.leap, kept.owed)
    return changed or not 0 <= now.uptime - kept.uptime < KEEP


def _say(before: Passage, now: Passage) -> None:
    # A clock that goes on leaping is said to do so once.
    if now.leap and not before.leap:
        log.warning(
            "the wall clock went %.1f days %s the time that this machine was up since it was"
            " last looked at: it was set, or the machine was off. Until both have agreed for"
            " 24 hours no event, job, entry of the trail or token is deleted for its age;"
            " retention.events_size and retention.jobs hold. See that the clock is right",
            abs(now.leap) / DAY,
            "ahead of" if now.leap > 0 else "behind",
        )
    elif before.leap and not now.leap:
        log.info("wall clock and uptime have agreed for 24 hours: retention goes by age again")
