"""The daemon's side of lending: which queues may lend now, and calling back what is lent.

A keeper that has the next jobs of a queue begins them without a word of the daemon's; how it
does so is in dispatcher/ahead.py, what may be lent in dispatcher/lent.py. Before a queue is
paused, or a lent job killed, all that is lent of it is called back; so is what does not move.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection
from typing import Final

from dispatcher.keepers import Link
from dispatcher.lent import Terms
from dispatcher.queue import Queues
from dispatcher.tending import Tender

# What is lent and has not moved for so long is called back, s.
STALE: Final = 0.25


class Lending:
    """What is held back, and calling back. Belongs to the event loop."""

    def __init__(self, tender: Tender) -> None:
        self._tender = tender
        self._queues = Queues()
        self._held: Counter[str | None] = Counter()
        # What was lent of each queue when that was last looked at.
        self._seen: dict[str | None, frozenset[int]] = {}
        self._look: asyncio.TimerHandle | None = None

    def terms(self, link: Link | None) -> Terms | None:
        """Of the next turn; None: nothing can be lent."""
        if link is None or not link.lends:
            return None
        return Terms(frozenset(link.given), frozenset(self._held))

    def hold(self, queues: Collection[str | None]) -> None:
        """Lend nothing of these until `release`."""
        self._held.update(queues)

    def release(self, queues: Collection[str | None]) -> None:
        """Undo one `hold`."""
        self._held -= Counter(queues)

    def watch(self, queues: Queues) -> None:
        """These are the queues now. See to it that nothing of them stays lent for long."""
        self._queues = queues
        if self._look is None and (seen := _lent(queues)):
            self._seen = seen
            self._look = asyncio.get_running_loop().call_later(STALE, self._call_stale_back)

    def recall(self, queues: Collection[str | None]) -> bool:
        """Call back what is lent of these, if anything is. What comes of it the book says."""
        lent = _lent(self._queues)
        uids = sorted(uid for queue in queues for uid in lent.get(queue, ()))
        taker = self._tender.taker()
        # One that takes nothing more has given back all of it.
        if uids and taker is not None and taker.link is not None:
            taker.link.send({"recall": [(uid, 0) for uid in uids]})
        return bool(uids)

    def recall_all(self) -> None:
        """Call back all that is lent."""
        self.recall(_lent(self._queues).keys())

    def _call_stale_back(self) -> None:
        self._look = None
        lent = _lent(self._queues)
        self.recall([queue for queue, uids in lent.items() if self._seen.get(queue) == uids])
        self.watch(self._queues)


def _lent(queues: Queues) -> dict[str | None, frozenset[int]]:
    """By queue, what is lent."""
    return {name: lane.lent for name, lane in queues.lanes.items() if lane.lent}
