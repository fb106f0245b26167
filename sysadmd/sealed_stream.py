"""A stream of bytes between a socket of this process and a peer of a bridge, sealed.

What is on its way and was not taken is bounded by a window that the other end opens: a slow
reader slows down its writer, as with TCP, and no bridge has to hold more than that.
Source: docs/bridge.md, "Records".
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from sysadmd.errors import first_alone
from sysadmd.sealed import SealBroken, SealedChannel

# Bytes that may be on their way to an end which has not said that they were taken.
WINDOW: Final = 256 * 1024
# Bytes of one record; and how many were taken before that is said.
CHUNK: Final = 16 * 1024
CREDIT: Final = WINDOW // 4

# How long the other end may take for its last words, once ours were said; s.
LINGER: Final = 5.0

# The first byte of a record's content.
_DATA: Final = b"\0"
_TAKEN: Final = b"\1"
_END: Final = b"\2"
_COUNT: Final = 4


def as_payload(message: bytes) -> str:
    """A message as a bridge's text has it."""
    return base64.b64encode(message).decode()


def from_payload(payload: str) -> bytes:
    """The inverse. Raises: SealBroken."""
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SealBroken("something came that is no sealed message") from error


class SealedStream:
    """Moves bytes both ways, until both have ended, or one of the ends is lost."""

    def __init__(
        self,
        channel: SealedChannel,
        sock: socket.socket,
        send: Callable[[str], Awaitable[None]],
    ) -> None:
        """sock: non-blocking; closed when the stream ends. send: a payload to the peer."""
        self._channel = channel
        self._socket = sock
        self._send = send
        self._sending = asyncio.Lock()
        # What may be sent, and what has come; None: its end.
        self._window = WINDOW
        self._came: deque[bytes | None] = deque()
        self._held = 0
        self._has_ended = False
        self._opened = asyncio.Event()
        self._filled = asyncio.Event()

    def take(self, record: bytes) -> None:
        """A record has come. Raises: SealBroken, and the stream is of no use then."""
        content = self._channel.open(record)
        kind, rest = content[:1], content[1:]
        if kind == _DATA and rest and not self._has_ended:
            self._held += len(rest)
            if self._held > WINDOW:
                raise SealBroken("more came than was asked for")
            self._came.append(rest)
            self._filled.set()
        elif kind == _TAKEN and len(rest) == _COUNT:
            self._window += int.from_bytes(rest, "big")
            if self._window > WINDOW:
                raise SealBroken("more was taken than was sent")
            self._opened.set()
        elif content == _END and not self._has_ended:
            self._has_ended = True
            self._came.append(None)
            self._filled.set()
        else:
            raise SealBroken("a record came of a kind that is not known")

    async def greet(self) -> None:
        """Say that the channel is open: nothing was taken yet."""
        await self._say(_TAKEN + bytes(_COUNT))

    async def run(self) -> None:
        """Move bytes. Raises: what `send` does, if that is one of ours."""
        try:
            with first_alone():
                async with asyncio.TaskGroup() as group:
                    inward = group.create_task(self._inward())
                    await self._outward()
                    # Our end has said its last: the other's may be on its way.
                    await asyncio.wait((inward,), timeout=LINGER)
                    inward.cancel()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of our end."""
        self._socket.close()

    async def _outward(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self._window <= 0:
                self._opened.clear()
                await self._opened.wait()
            try:
                data = await loop.sock_recv(self._socket, min(CHUNK, self._window))
            except OSError:
                # It was cut off; that is an end, too.
                data = b""
            if not data:
                await self._say(_END)
                return
            self._window -= len(data)
            await self._say(_DATA + data)

    async def _inward(self) -> None:
        loop = asyncio.get_running_loop()
        taken = 0
        while True:
            while not self._came:
                self._filled.clear()
                await self._filled.wait()
            data = self._came.popleft()
            if data is None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)
                return
            with contextlib.suppress(OSError):
                # Nobody may read on there.
                await loop.sock_sendall(self._socket, data)
            self._held -= len(data)
            taken += len(data)
            if taken >= CREDIT:
                taken, said = 0, taken
                await self._say(_TAKEN + said.to_bytes(_COUNT, "big"))

    async def _say(self, content: bytes) -> None:
        async with self._sending:
            await self._send(as_payload(self._channel.seal(content)))
