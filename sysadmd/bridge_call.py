"""A connection to a server that is reached over a bridge: sealed, and then as any other.

The WebSocket to the server runs through a pair of sockets of this process; a task of ours moves
its bytes. When the bridge is lost, or the server, that WebSocket is cut off like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator, Sequence
from functools import partial
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import InvalidHandshake

from sysadmd.bridge_link import BridgeLink, join, told
from sysadmd.errors import BadRequest
from sysadmd.key_file import read_key
from sysadmd.keys import PrivateKey
from sysadmd.no_opening import reason
from sysadmd.opening import LIMITS, OPEN_TIMEOUT
from sysadmd.sealed import REFUSED, WELCOME, Calling, SealBroken
from sysadmd.sealed_stream import SealedStream, as_payload, from_payload
from sysadmd.target import Target, Unreachable

# How long a server that is not there is waited for, and one that is there may take to answer:
# after a cut both ends come back, and not in one moment; s.
ARRIVAL: Final = 5.0
ANSWER: Final = 15.0


async def called(
    target: Target, stack: contextlib.AsyncExitStack
) -> tuple[ClientConnection, str]:
    """A connection, which the stack closes, and the pin of who has answered.

    Raises: Unreachable; BadRequest if the key or the cafile can't be used.
    """
    if target.key is None or target.server is None:
        raise BadRequest("a bridge lets nobody in without a key; name its file with --key")
    ours, theirs = socket.socketpair()
    stack.callback(ours.close)
    theirs.setblocking(False)
    call = _Call(target.server, theirs)
    work = asyncio.create_task(call.run(target, read_key(target.key)))
    stack.push_async_callback(_end, work)
    await asyncio.wait((work, call.opened), return_when=asyncio.FIRST_COMPLETED)
    if not call.opened.done():
        # It says why.
        work.result()
    try:
        made = open_websocket(
            "ws://server/", sock=ours, proxy=None, open_timeout=OPEN_TIMEOUT, **LIMITS
        )
        return await stack.enter_async_context(made), target.server
    except (OSError, InvalidHandshake, TimeoutError) as error:
        raise Unreachable(
            f"{target.server} over {target.url}: {call.failure or reason(error)}"
        ) from error


async def _end(work: asyncio.Task[None]) -> None:
    work.cancel()
    await asyncio.wait((work,))
    if not work.cancelled():
        # Whoever waited for it was told.
        work.exception()


async def available(target: Target) -> Sequence[str]:
    """The servers that a bridge shows us. Raises: as `called`."""
    if target.key is None:
        raise BadRequest("a bridge lets nobody in without a key; name its file with --key")
    call = _Call("", None)
    async with join(target, read_key(target.key), "client", call):
        return call.ids


class _Call:
    """One call to one server; who hears what the bridge passes on."""

    def __init__(self, server: str, sock: socket.socket | None) -> None:
        self.ids: Sequence[str] = ()
        # Done when the server has let us in.
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failure: str | None = None
        self._server = server
        self._socket = sock
        self._here = asyncio.Event()
        self._welcome: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stream: SealedStream | None = None

    # The link's side.

    def heard(self, sender: str, payload: str) -> None:
        if sender != self._server:
            return
        try:
            message = from_payload(payload)
            if message[:1] == REFUSED:
                why = told(message[1:].decode("utf-8", "replace"))
                self._fail(f"the server, or the bridge in its name, says: {why}")
            elif message[:1] == WELCOME and not self._welcome.done():
                self._welcome.set_result(message)
            elif self._stream is not None:
                self._stream.take(message)
                if not self.opened.done():
                    self.opened.set_result(None)
        except SealBroken as error:
            self._fail(f"the bridge, or who has it, meddles: {error}")

    def listed(self, ids: Sequence[str]) -> None:
        self.ids = ids
        if self._server in ids:
            self._here.set()
        elif self._stream is not None:
            self._fail("the server has left the bridge")

    def refused(self, destination: str, why: str) -> None:
        if destination == self._server:
            self._fail(f"a message was not passed on: {why}")

    def _fail(self, why: str) -> None:
        self.failure = self.failure or why
        if not self._over.done():
            self._over.set_exception(Unreachable(why))
            # Nobody may wait for it any more.
            self._over.exception()

    # Ours.

    async def run(self, target: Target, key: PrivateKey) -> None:
        """Call, and move what is said. Raises: Unreachable, BadRequest."""
        assert self._socket is not None
        try:
            async with join(target, key, "client", self) as link:
                await self._talk(link, key)
        except Unreachable as error:
            self.failure = self.failure or str(error)
            raise
        finally:
            self._socket.close()

    async def _talk(self, link: BridgeLink, key: PrivateKey) -> None:
        server = self._server
        with _patience(ARRIVAL, f"no server {server} is there for us"):
            async with asyncio.timeout(ARRIVAL):
                await self._here.wait()
        calling = Calling(key, server)
        await link.send(server, as_payload(calling.hello))
        with _patience(ANSWER, f"the server {server} does not answer"):
            async with asyncio.timeout(ANSWER):
                await asyncio.wait(
                    (self._welcome, self._over), return_when=asyncio.FIRST_COMPLETED
                )
        if self._over.done():
            self._over.result()
        try:
            proof, channel = calling.finish(self._welcome.result())
        except SealBroken as error:
            raise Unreachable(f"the bridge, or who has it, meddles: {error}") from error
        assert self._socket is not None
        self._stream = SealedStream(channel, self._socket, partial(link.send, server))
        await link.send(server, as_payload(proof))
        moving = asyncio.ensure_future(self._stream.run())
        try:
            with _patience(ANSWER, f"the server {server} does not answer"):
                async with asyncio.timeout(ANSWER):
                    await asyncio.wait(
                        (self.opened, self._over), return_when=asyncio.FIRST_COMPLETED
                    )
            await asyncio.wait((moving, self._over), return_when=asyncio.FIRST_COMPLETED)
            if self._over.done():
                self._over.result()
            await moving
        finally:
            moving.cancel()
            await asyncio.wait((moving,))
            if not moving.cancelled():
                # What was wrong first counts.
                moving.exception()


@contextlib.contextmanager
def _patience(seconds: float, what: str) -> Generator[None]:
    """Raises: Unreachable in place of TimeoutError."""
    try:
        yield
    except TimeoutError as error:
        raise Unreachable(f"{what}; waited for {seconds:g} s") from error
