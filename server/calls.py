"""Who calls over a bridge: each ends as a connection like any other, with its login, role and
limits. Knows no request.

A caller's sealed stream ends in a pair of sockets; the other end is the listeners'.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from functools import partial
from typing import Final

from server.login import keys
from server.wire.listener import Listeners
from server.wire.parties import Caller
from sysadmd.apart import apart
from sysadmd.bridge_link import BridgeLink, unreachable_alone
from sysadmd.keys import PrivateKey, PublicKey
from sysadmd.sealed import HELLO, PROOF, RECORD, REFUSED, Answering, SealBroken, SealedChannel
from sysadmd.sealed_stream import CHUNK, WINDOW, SealedStream, as_payload, from_payload
from sysadmd.store import Store
from sysadmd.target import Unreachable

log = logging.getLogger(__name__)

# How often it is looked at which keys may call: who is revoked is gone within a second; s.
LOOK: Final = 0.4
# Calls that are not through yet, and of them those that are worked at: some ms of a processor
# each. Above, a caller is refused, and comes again.
PENDING: Final = 64
AT_WORK: Final = 2
# How long a caller may take for his proof; s.
PROOF_TIMEOUT: Final = 30.0
# Records that may come before a call is through: what the window lets him send.
EARLY: Final = WINDOW // CHUNK + 2
# What callers have for an address, with their keys behind it: they are counted by that.
ADDRESS: Final = "bridge:"


class Calls:
    """All calls over one connection to a bridge."""

    def __init__(self, key: PrivateKey, store: Store, listeners: Listeners) -> None:
        """key: by which this server is known."""
        self.key = key
        self._store = store
        self._listeners = listeners
        # By what the bridge calls who calls.
        self._calls: dict[str, _CallFrom] = {}
        self._at_work = asyncio.Semaphore(AT_WORK)
        self._known = keys.callers(store.reader)
        self._link: BridgeLink | None = None
        self._group: asyncio.TaskGroup | None = None

    def checksums(self) -> list[str]:
        """Of the keys that may call."""
        listed = keys.listed(self._store.reader)
        return [k.public.checksum for k in listed if k.fingerprint in self._known]

    async def serve(self, link: BridgeLink) -> None:
        """Take calls until cancelled. Raises: Unreachable."""
        with unreachable_alone():
            async with asyncio.TaskGroup() as group:
                self._link, self._group = link, group
                while True:
                    await asyncio.sleep(LOOK)
                    await self._look(link)

    async def _look(self, link: BridgeLink) -> None:
        """Let go of those whose keys may not call any more, and say which may."""
        known = keys.callers(self._store.reader)
        if known == self._known:
            return
        self._known = known
        for call in tuple(self._calls.values()):
            if call.key and call.key not in known:
                self._end(call, "the key was revoked")
        await link.tell_checksums()

    # The link's side.

    def heard(self, sender: str, payload: str) -> None:
        """As `Receiver` has it."""
        call = self._calls.get(sender)
        try:
            message = from_payload(payload)
            if message[:1] == HELLO:
                if call is not None:
                    call.cancel()
                self._begin(sender, message)
            elif call is not None:
                call.take(message)
        except SealBroken as error:
            log.warning("the call of %s at the bridge is ended: %s", sender, error)
            if call is not None:
                self._end(call, str(error))

    def listed(self, ids: Sequence[str]) -> None:
        """As `Receiver` has it."""
        there = frozenset(ids)
        for sender, call in tuple(self._calls.items()):
            if sender not in there:
                call.cancel()

    def refused(self, destination: str, why: str) -> None:
        """As `Receiver` has it: a record is missing now."""
        if (call := self._calls.get(destination)) is not None:
            log.info("the call of %s at the bridge is ended: %s", destination, why)
            self._end(call, why)

    # One call.

    def _begin(self, sender: str, hello: bytes) -> None:
        link, group = self._link, self._group
        if link is None or group is None:
            return
        if sum(not call.key for call in self._calls.values()) >= PENDING:
            group.create_task(self._refuse(link, sender, "too many calls at once"))
            return
        call = self._calls[sender] = _CallFrom(sender)
        call.task = group.create_task(self._answer(link, sender, call, hello))

    async def _answer(
        self, link: BridgeLink, sender: str, call: _CallFrom, hello: bytes
    ) -> None:
        """Answer a call, and move what is said, until one of both ends it."""
        try:
            async with asyncio.timeout(PROOF_TIMEOUT):
                async with self._at_work:
                    begun = await apart(partial(Answering, self.key, hello), "a call")
                await link.send(sender, as_payload(begun.welcome))
                proof = await call.proof
                async with self._at_work:
                    key, channel = await apart(partial(begun.finish, proof), "a call")
            stream = self._connected(link, sender, key, channel)
            if isinstance(stream, str):
                await self._refuse(link, sender, stream)
                return
            try:
                call.open(stream, key.fingerprint)
                await stream.greet()
                await stream.run()
            finally:
                stream.close()
        except SealBroken as error:
            log.warning("a call of %s at the bridge is no call: %s", sender, error)
            await self._refuse(link, sender, str(error))
        except TimeoutError:
            log.debug("a call of %s at the bridge has stopped half way", sender)
        except Unreachable:
            raise
        except Exception:  # the outer edge: a caller must not end the daemon
            log.exception("the call of %s at the bridge failed", sender)
        finally:
            if self._calls.get(sender) is call:
                del self._calls[sender]

    def _connected(
        self, link: BridgeLink, sender: str, key: PublicKey, channel: SealedChannel
    ) -> SealedStream | str:
        """The stream of who has proved a key, or why there is none."""
        if key.fingerprint not in self._known:
            return "the key is not registered at the server"
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        address = ADDRESS + key.fingerprint
        pin = self.key.public.fingerprint
        if not self._listeners.relay(ours, Caller(address, address, pin=pin)):
            theirs.close()
            return "there are too many connections; try again later"
        log.debug("%s calls over the bridge, as %s there", address, sender)
        return SealedStream(channel, theirs, partial(link.send, sender))

    def _end(self, call: _CallFrom, why: str) -> None:
        """Let go of who calls, and tell him why."""
        call.cancel()
        if self._link is not None and self._group is not None:
            self._group.create_task(self._refuse(self._link, call.sender, why))

    async def _refuse(self, link: BridgeLink, sender: str, why: str) -> None:
        await link.send(sender, as_payload(REFUSED + why.encode()))


class _CallFrom:
    """One caller. key: the fingerprint of his, when he has proved it."""

    def __init__(self, sender: str) -> None:
        self.sender = sender
        self.task: asyncio.Task[None] | None = None
        self.proof: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.key = ""
        self._stream: SealedStream | None = None
        self._early: list[bytes] = []

    def take(self, message: bytes) -> None:
        """A message of his. Raises: SealBroken."""
        if message[:1] == PROOF and not self.proof.done():
            self.proof.set_result(message)
        elif message[:1] != RECORD or not self.proof.done():
            raise SealBroken("it comes out of turn")
        elif self._stream is not None:
            self._stream.take(message)
        elif len(self._early) < EARLY:
            self._early.append(message)
        else:
            raise SealBroken("more came than was asked for")

    def open(self, stream: SealedStream, key: str) -> None:
        """He is through. Raises: SealBroken."""
        self._stream, self.key = stream, key
        for message in self._early:
            stream.take(message)
        self._early.clear()

    def cancel(self) -> None:
        """Let go of him."""
        if self.task is not None:
            self.task.cancel()
