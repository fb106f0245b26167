"""Orders on their way into the tables: those that come while one is written go in together.

As long as the writer has not begun with the last change of this, what comes is added to it. So
who comes alone waits for nobody, and the more there are, the fewer statements each costs. What
may start at once does so in the same change, if nothing is on its way that comes before it.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Final

from dispatcher import acceptance
from dispatcher.acceptance import Accepted, Bundle
from dispatcher.advance import Mover
from dispatcher.records import JobRow
from dispatcher.site import Site
from dispatcher.steps import Outcome
from sysadmd.errors import Conflict, StoreFull
from sysadmd.journal import Transaction
from sysadmd.store import MemoryBehind

# Requests in one change: as many as changes are in one commit.
MOST: Final = 512


@dataclass(frozen=True, slots=True)
class _Written:
    """What became of a group. queued: jobs that are new, with their queues; started: what
    became of those at once, None: they wait for a turn."""

    found: list[list[Accepted] | Conflict]
    queued: list[tuple[str | None, int]]
    started: Outcome | None


class _Group:
    """Requests that go into the tables together."""

    def __init__(self) -> None:
        self.asked: list[Bundle] = []
        self.waiting: list[asyncio.Future[list[JobRow]]] = []
        # Queues that may have had no job before.
        self.fresh: set[str | None] = set()
        # Taken for an instant by both threads: nothing is added that is not written.
        self._lock = threading.Lock()
        self._is_open = True

    def add(
        self, asked: Bundle, fresh: set[str | None], waiting: asyncio.Future[list[JobRow]]
    ) -> bool:
        """False: it is being written, or full."""
        with self._lock:
            if not self._is_open or len(self.asked) == MOST:
                return False
            self.asked.append(asked)
            self.waiting.append(waiting)
            self.fresh |= fresh
            return True

    def close(self) -> None:
        """Nothing is added any more."""
        with self._lock:
            self._is_open = False

    def refuse(self, error: BaseException) -> None:
        """Nothing of it was written."""
        for waiting in self.waiting:
            if not waiting.done():
                waiting.set_exception(error)


class Intake:
    """Takes orders."""

    def __init__(self, site: Site, mover: Mover) -> None:
        self._site = site
        self._mover = mover
        self._group = _Group()
        self._group.close()
        # Groups that are not told yet.
        self._written = 0

    def begin(self, asked: Bundle) -> asyncio.Future[list[JobRow]]:
        """Have it written down; done when that is committed, or with what is wrong."""
        waiting: asyncio.Future[list[JobRow]] = asyncio.get_running_loop().create_future()
        fresh = {order.queue for order in asked.orders} - self._mover.used
        if not self._group.add(asked, fresh, waiting):
            self._group = _Group()
            self._group.add(asked, fresh, waiting)
            self._write(self._group)
        return waiting

    def close(self) -> None:
        """What is asked from here on is committed after what is begun now elsewhere."""
        self._group.close()

    def _write(self, group: _Group) -> None:
        site, mover = self._site, self._mover
        named = {order.queue for asked in group.asked for order in asked.orders}
        # Those of a group before it come first.
        company = None if self._written else mover.begin_company(named)
        self._written += 1

        def change(change: Transaction) -> _Written:
            group.close()
            for queue in group.fresh:
                change.db.execute(
                    "INSERT INTO queues (name, used) VALUES (?, 1)"
                    " ON CONFLICT DO UPDATE SET used = 1",
                    (queue or "",),
                )
            found = acceptance.accept_all(change, site.now(), group.asked)
            new = [one for each in found if isinstance(each, list) for one in each if one.waits]
            queued = [(one.job.queue, one.job.uid) for one in new]
            started = company.start(change, queued) if company is not None and queued else None
            return _Written(found, queued, started)

        def accepted(written: _Written) -> None:
            mover.accepted(group.fresh, written.queued)
            if company is not None and written.started is not None:
                company.committed(written.started)
            else:
                mover.wake_for({queue for queue, _ in written.queued})
            for waiting, each in zip(group.waiting, written.found, strict=True):
                if waiting.done():
                    # Whoever asked has left.
                    continue
                if isinstance(each, Conflict):
                    waiting.set_exception(each)
                else:
                    waiting.set_result([one.job for one in each])

        def told(done: asyncio.Future[_Written]) -> None:
            # Where the files could not be written at all, nobody has come so far.
            group.close()
            self._written -= 1
            if company is not None:
                company.over()
            error = done.exception()
            if error is None:
                return
            if len(group.asked) == 1 or isinstance(error, MemoryBehind | StoreFull):
                group.refuse(error)
                return
            # Nothing is written because of one of them: now each for itself.
            for asked, waiting in zip(group.asked, group.waiting, strict=True):
                alone = _Group()
                alone.add(asked, group.fresh, waiting)
                alone.close()
                self._write(alone)

        site.store.begin_write(change, accepted).add_done_callback(told)
