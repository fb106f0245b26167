"""The daemon's side of lending: which queues may lend now, and calling back what is lent.

A keeper that has the next jobs of a queue begins them without a word of the daemon's; how it
does so is in dispatcher/ahead.py, what may be lent in dispatcher/lent.py. Before a queue is
paused, or a lent job killed, all that is lent of it is called back; so is what does not move,
and all of it when the queues' limits may have changed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from typing import Final

from dispatcher.keepers import Link
from dispatcher.lent import Terms
from dispatcher.queue import Queues

# What is lent and has not moved for so long is called back, s.
STALE: Final = 0.25


class Lending:
    """What is held back, and calling back. Belongs to the event loop.

    While something of a queue is being called back none of it is lent: what was given back then
    would have to wait behind that. So it is called back when no turn is under way that may
    still lend, and each turn is asked for its terms when it begins.
    """

    def __init__(self, recall: Callable[[list[int]], object], free: asyncio.Event) -> None:
        """recall: has the keeper give back these jobs. free: no turn is under way."""
        self._recall = recall
        self._free = free
        self._queues = Queues()
        self._held: Counter[str | None] = Counter()
        # Queues of which something is being called back; of them those whose keeper has not
        # been told yet.
        self._called: set[str | None] = set()
        self._untold: set[str | None] = set()
        # What was lent of each queue when that was last looked at.
        self._seen: dict[str | None, frozenset[int]] = {}
        self._look: asyncio.TimerHandle | None = None

    def terms(self, link: Link | None) -> Terms | None:
        """Of the turn that begins; None: nothing can be lent."""
        if link is None or not link.lends:
            return None
        return Terms(frozenset(link.given), frozenset(self._called.union(self._held)))

    def hold(self, queues: Collection[str | None]) -> None:
        """Lend nothing of these until `release`."""
        self._held.update(queues)

    def release(self, queues: Collection[str | None]) -> None:
        """Undo one `hold`."""
        self._held -= Counter(queues)

    def watch(self, queues: Queues) -> None:
        """These are the queues now. See to it that nothing of them stays lent for long."""
        self._queues = queues
        seen = _lent(queues)
        self._called &= seen.keys()
        if self._look is None and seen:
            self._seen = seen
            self._look = asyncio.get_running_loop().call_later(STALE, self._call_stale_back)

    def call_back(self, queues: Collection[str | None]) -> bool:
        """Have all that is lent of these given back; what comes of it the book says. False:
        nothing is lent of them. To be told to the keeper by `tell`, if a turn is under way."""
        fresh = _lent(self._queues).keys() & set(queues)
        self._untold |= fresh - self._called
        self._called |= fresh
        if self._free.is_set():
            self.tell()
        return bool(fresh)

    def call_all_back(self) -> None:
        """As `call_back`, of all queues."""
        self.call_back(_lent(self._queues).keys())

    def tell(self) -> None:
        """No turn is under way: tell the keeper what is being called back."""
        if not self._untold:
            return
        lent = _lent(self._queues)
        uids = sorted(uid for queue in self._untold for uid in lent.get(queue, ()))
        self._untold.clear()
        if uids:
            self._recall(uids)

    def _call_stale_back(self) -> None:
        self._look = None
        lent = _lent(self._queues)
        self.call_back([queue for queue, uids in lent.items() if self._seen.get(queue) == uids])
        self.watch(self._queues)


def _lent(queues: Queues) -> dict[str | None, frozenset[int]]:
    """By queue, what is lent."""
    return {name: lane.lent for name, lane in queues.lanes.items() if lane.lent}
