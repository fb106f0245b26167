"""How late the event loop is, and a clock for peers that stands still meanwhile. No peer here.

While the daemon stands still (SIGSTOP, a virtual machine paused, swap, a call that blocks) it
hears nobody, and what came by then may lie in sockets when it goes on. By this clock a peer has
as much time left after that as before, in whatever order timers and sockets are seen to.
"""

from __future__ import annotations

import asyncio
import math
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Final

# How often the loop is to show that it turns; s.
BEAT: Final = 0.25
# As late as this is a loop that has much to do, and time goes on for peers, too; s.
BUSY: Final = 1.0
# This late is told by /healthz, and for how long: a monitor asks every so often; s.
LATE: Final = 2.0
TOLD_FOR: Final = 30.0
# Upper bounds of the histogram: from what no client notices to what breaks promises; s.
BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class LoopClock:
    """Seconds since some moment. counts: beats by lateness, the last above all bounds.

    total: all lateness together, s. stood_still: of it, what peers were not charged with, s.
    """

    def __init__(self, source: Callable[[], float] = time.monotonic) -> None:
        """source: not the loop's own time, which may be that of the turn's beginning."""
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        self.stood_still = 0.0
        self._source = source
        # When the loop is to turn again; before the first beat nobody knows.
        self._due = math.inf
        # How late it was when it was last worth telling, and when that ended.
        self._late, self._ended = 0.0, -math.inf

    def now(self) -> float:
        """The time for peers: a beat that is overdue counts before anybody has noted it."""
        return min(self._source(), self._due + BUSY) - self.stood_still

    def beat(self) -> None:
        """The loop turns, and is to turn again in a BEAT."""
        now = self._source()
        late = max(0.0, now - self._due)
        self.counts[bisect_left(BOUNDS, late)] += 1
        self.total += late
        self.stood_still += max(0.0, late - BUSY)
        if late >= LATE:
            self._late, self._ended = late, now
        self._due = now + BEAT

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            self.beat()
            await asyncio.sleep(BEAT)

    @property
    def trouble(self) -> str | None:
        """What is to be told of a loop that is, or was a short while ago, late."""
        now = self._source()
        late, ended = self._late, self._ended
        if now - self._due >= LATE:
            late, ended = now - self._due, now
        if now - ended > TOLD_FOR:
            return None
        return f"the daemon stood still for {late:.0f} s, until {now - ended:.0f} s ago"
