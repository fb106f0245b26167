"""What the connections of one account may hold of the daemon's memory, together. No socket.

Who holds too much of it waits, all connections of the account alike, until some of it is taken
or given up. It delays nobody else; a client that takes nothing is cut off in time, as ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

# Replies and events that wait for their clients, requests that have not come to their end or
# are under way: some sixty frames of the longest. A client that reads needs far less of it at
# once than a frame.
SHARE: Final = 32 * 1024 * 1024


class Share:
    """Bytes that are held, and who waits until they are fewer."""

    def __init__(self, most: int | None) -> None:
        """most: None: as many as it likes."""
        self.held = 0
        self._most = most
        self._waiting: dict[Callable[[], object], None] = {}
        self._calling = False

    @property
    def is_full(self) -> bool:
        """No more is to be begun that takes memory."""
        return self._most is not None and self.held >= self._most

    def add(self, size: int) -> None:
        """So many bytes more are held; below 0: fewer."""
        self.held += size
        if size < 0 and self._waiting and not self.is_full:
            self._call()

    def wait(self, again: Callable[[], object]) -> None:
        """Have this called, once, when there is room: first who has waited longest."""
        self._waiting.setdefault(again)
        if not self.is_full:
            self._call()

    def forget(self, again: Callable[[], object]) -> bool:
        """It waits no longer; did it?"""
        if again not in self._waiting:
            return False
        del self._waiting[again]
        return True

    def _call(self) -> None:
        if not self._calling:
            self._calling = True
            asyncio.get_running_loop().call_soon(self._call_next)

    def _call_next(self) -> None:
        """One at a time: each may take what was free."""
        self._calling = False
        if self._waiting and not self.is_full:
            again = next(iter(self._waiting))
            del self._waiting[again]
            try:
                again()
            finally:
                if self._waiting:
                    self._call()


class Part:
    """What one connection holds of a share."""

    def __init__(self, *waits: Callable[[], object]) -> None:
        """waits: what it may have a share call."""
        self.share = Share(None)
        self._waits = waits
        self._size = 0

    def weigh(self, size: int) -> None:
        """So many bytes it holds by now."""
        if size != self._size:
            self.share.add(size - self._size)
            self._size = size

    def move_to(self, share: Share) -> bool:
        """From now on it holds of this one, and nothing yet. Did it wait for the other?"""
        waited = [self.share.forget(again) for again in self._waits]
        self.weigh(0)
        self.share = share
        return any(waited)
