"""Who calls over a bridge: each ends as a connection like any other, with its login, role and
limits. Knows no request.

A caller's sealed stream ends in a pair of sockets; the other end is the listeners'.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from server.login import keys
from server.wire.listener import Listeners
from server.wire.parties import Caller, Relayed
from sysadmd.apart import apart
from sysadmd.bridge_link import BridgeLink, told
from sysadmd.errors import first_alone
from sysadmd.keys import PrivateKey, PublicKey
from sysadmd.sealed import HELLO, PROOF, RECORD, REFUSED, Answering, SealBroken, SealedChannel
from sysadmd.sealed_stream import WINDOW, SealedStream, as_payload, from_payload
from sysadmd.store import Store
from sysadmd.target import Unreachable

T = TypeVar("T")

log = logging.getLogger(__name__)

# How often it is looked at which keys may call: who is revoked is gone within a second; s.
LOOK: Final = 0.4
# Calls that are not through yet; above, the oldest makes room. Each is some ms of a processor:
# they are worked at one by one.
PENDING: Final = 64
# Callers at once: each needs a descriptor more than other clients.
CALLERS: Final = 1024
# Words of refusal that wait for the bridge to take them; above, callers find out in time.
REFUSALS: Final = 64
# How long a caller may take for his proof; s.
PROOF_TIMEOUT: Final = 30.0
# Bytes of records that may come before a call is through: what the window lets him send, and
# as much again for heads.
EARLY: Final = 2 * WINDOW
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
        # Held by whose call is worked at, until that is done, wanted or not.
        self._working = asyncio.Semaphore(1)
        self._refusals: set[asyncio.Task[None]] = set()
        self._telling: asyncio.Task[None] | None = None
        self._known = self._told = keys.callers(store.reader)
        self._link: BridgeLink | None = None
        self._group: asyncio.TaskGroup | None = None

    def checksums(self) -> list[str]:
        """Of the keys that may call."""
        listed = keys.listed(self._store.reader)
        return [k.public.checksum for k in listed if k.fingerprint in self._known]

    async def serve(self, link: BridgeLink) -> None:
        """Take calls until cancelled. Raises: Unreachable."""
        with first_alone():
            async with asyncio.TaskGroup() as group:
                self._link, self._group = link, group
                while True:
                    await asyncio.sleep(LOOK)
                    self._look(link, group)

    def _look(self, link: BridgeLink, group: asyncio.TaskGroup) -> None:
        """Let go of those whose keys may not call any more, and say which may."""
        known = keys.callers(self._store.reader)
        if known != self._known:
            self._known = known
            for call in tuple(self._calls.values()):
                if call.key and call.key not in known:
                    self._end(call, "the key was revoked")
        if known != self._told and (self._telling is None or self._telling.done()):
            # Nobody waits for that: the bridge may not listen, and who is revoked has to go.
            self._told = known
            self._telling = group.create_task(link.tell_checksums())

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
            elif message[:1] == RECORD:
                # He has not heard yet that it is over.
                self._refuse_soon(sender, "there is no such call; call again")
        except SealBroken as error:
            if call is not None:
                log.warning("the call of %s at the bridge is ended: %s", told(sender), error)
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
            log.info("the call of %s at the bridge is ended: %s", told(destination), why)
            self._end(call, why)

    # One call.

    def _begin(self, sender: str, hello: bytes) -> None:
        link, group = self._link, self._group
        if link is None or group is None:
            return
        pending = [call for call in self._calls.values() if not call.key]
        if len(pending) >= PENDING:
            self._end(pending[0], "too many calls at once; try again later")
        call = self._calls[sender] = _CallFrom(sender)
        call.task = group.create_task(self._answer(link, sender, call, hello))

    async def _answer(
        self, link: BridgeLink, sender: str, call: _CallFrom, hello: bytes
    ) -> None:
        """Answer a call, and move what is said, until one of both ends it."""
        try:
            async with asyncio.timeout(PROOF_TIMEOUT):
                begun = await self._work(partial(Answering, self.key, hello))
                await link.send(sender, as_payload(begun.welcome))
                proof = await call.proof
                key, channel = await self._work(partial(begun.finish, proof))
            stream = self._connected(link, sender, key, channel)
            if isinstance(stream, str):
                self._refuse_soon(sender, stream)
                return
            try:
                call.open(stream, key.fingerprint)
                await stream.greet()
                await stream.run()
            finally:
                stream.close()
        except SealBroken as error:
            log.warning("a call of %s at the bridge is no call: %s", told(sender), error)
            self._refuse_soon(sender, str(error))
        except TimeoutError:
            log.debug("a call of %s at the bridge has stopped half way", told(sender))
        except Unreachable:
            raise
        except Exception:  # the outer edge: a caller must not end the daemon
            log.exception("the call of %s at the bridge failed", told(sender))
        finally:
            if self._calls.get(sender) is call:
                del self._calls[sender]

    async def _work(self, work: Callable[[], T]) -> T:
        """What a thread works out for a call."""
        await self._working.acquire()
        done = apart(work, "a call")
        done.add_done_callback(lambda _: self._working.release())
        return await asyncio.shield(done)

    def _connected(
        self, link: BridgeLink, sender: str, key: PublicKey, channel: SealedChannel
    ) -> SealedStream | str:
        """The stream of who has proved a key, or why there is none."""
        if key.fingerprint not in self._known:
            return "the key is not registered at the server"
        if len(self._calls) > CALLERS:
            return "there are too many callers; try again later"
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        address = ADDRESS + key.fingerprint
        how = Relayed(self.key.public.fingerprint, key.fingerprint)
        if not self._listeners.relay(ours, Caller(address, address, relayed=how)):
            theirs.close()
            return "there are too many connections; try again later"
        log.debug("%s calls over the bridge, as %s there", address, told(sender))
        return SealedStream(channel, theirs, partial(link.send, sender))

    def _end(self, call: _CallFrom, why: str) -> None:
        """Let go of who calls, and tell him why."""
        call.cancel()
        if self._calls.get(call.sender) is call:
            del self._calls[call.sender]
        self._refuse_soon(call.sender, why)

    def _refuse_soon(self, sender: str, why: str) -> None:
        if self._link is None or self._group is None or len(self._refusals) >= REFUSALS:
            return
        send = self._link.send(sender, as_payload(REFUSED + why.encode()))
        task = self._group.create_task(send)
        self._refusals.add(task)
        task.add_done_callback(self._refusals.discard)


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
        elif sum(map(len, self._early)) + len(message) <= EARLY:
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
