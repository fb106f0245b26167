"""A client's requests that are under way: how many, how long, and whether it may say more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from server.wire.connection import Connection
from server.wire.protocol import Request
from server.wire.share import Share

# Characters of a client's requests that are under way; more are read when some are answered.
IN_FLIGHT_SIZE: Final = 64 * 1024
# Their values may take so many times as much.
VALUES: Final = 20


class Flow:
    """Holds its connection while too much is under way."""

    __slots__ = (
        *("share", "long", "tasks", "_connection", "_most"),
        *("_count", "_size", "_deciding", "_quiet"),
    )

    def __init__(self, connection: Connection, share: Share, most: Callable[[], int]) -> None:
        """most: requests at once, as of the time of the call."""
        self._connection = connection
        self._most = most
        # What the values of its requests count to.
        self.share = share
        # A long request is being read or answered.
        self.long = False
        # Requests whose tasks have not begun yet, or not ended.
        self.tasks = 0
        self._count = self._size = 0
        # Of them, those that decide who the client is.
        self._deciding = 0
        # Set when there are none; made by who waits for that.
        self._quiet: asyncio.Event | None = None

    def begin(self, request: Request) -> None:
        """One more; `update` is to follow."""
        self._count += 1
        self._deciding += request.decides

    def end(self, request: Request) -> None:
        """It is answered; `update` is to follow."""
        self._count -= 1
        self._deciding -= request.decides
        if not self._count and self._quiet is not None:
            self._quiet.set()
            self._quiet = None

    def weigh(self, size: int) -> Share:
        """So many more characters are under way; what they count to, for `unweigh`."""
        self._size += size
        self.share.add(VALUES * size)
        return self.share

    def unweigh(self, size: int, share: Share) -> None:
        """They are answered."""
        self._size -= size
        share.add(-VALUES * size)

    def decide(self, more: int) -> None:
        """It is being decided who the client is: 1; or it is decided: -1."""
        self._deciding += more
        self.update()

    async def quiet(self) -> None:
        """Return when no request is under way."""
        while self._count:
            if self._quiet is None:
                self._quiet = asyncio.Event()
            await self._quiet.wait()

    def count_to(self, share: Share) -> None:
        """From here on values count to this."""
        self.share.forget(self.update)
        self.share = share

    def update(self) -> None:
        """No further request while a long one or a login is under way, nor above the most."""
        many = self._count >= self._most() or self._size >= IN_FLIGHT_SIZE
        if self._count and self.share.is_full:
            many = True
            self.share.wait(self.update)
        self._connection.hold(self.long or self._deciding > 0 or many)
