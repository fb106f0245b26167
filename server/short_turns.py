"""What the loop waits with: of many sockets that are ready it hands out a few at a time.

A turn of asyncio's loop sees to all that is ready, and two hundred sockets that take a piece of
history each are some twenty milliseconds in which nobody is told what happens. Here a turn has
a few that may be read and a few that may be written, those first that have waited longest, and
what is ready besides is so still in the next turn.
"""

from __future__ import annotations

import selectors
from typing import Final

# Of either kind in one turn. To see to one takes from some ten microseconds to a millisecond.
AT_ONCE: Final = 8
_Ready = tuple[selectors.SelectorKey, int]


class ShortTurns(selectors.DefaultSelector):
    """The selector of this system, in portions."""

    def __init__(self) -> None:
        super().__init__()
        # By descriptor, the number of the turn in which it was handed out last.
        self._turns: dict[int, int] = {}
        self._turn = 0

    def select(self, timeout: float | None = None) -> list[_Ready]:
        ready = super().select(timeout)
        if len(ready) <= AT_ONCE:
            return ready
        self._turn += 1
        read = [one for one in ready if one[1] & selectors.EVENT_READ]
        written = [one for one in ready if not one[1] & selectors.EVENT_READ]
        return self._first(read) + self._first(written)

    def _first(self, ready: list[_Ready]) -> list[_Ready]:
        if len(ready) > AT_ONCE:
            turns = self._turns
            ready.sort(key=lambda one: turns.get(one[0].fd, 0))
            del ready[AT_ONCE:]
        self._turns.update((key.fd, self._turn) for key, _ in ready)
        return ready
