"""All peers of a bridge: who may come, who is told of whom, who reaches whom. No socket.

Source: events.rst, "Bridge"; docs/bridge.md.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from server.bridge.legacy import LegacyProofs
from server.bridge.registry import BridgeKey, Keys
from server.bridge.roster import Roster
from server.wire.envelope import frame
from server.wire.limits import SLICE
from server.wire.protocol import ProtocolError
from server.wire.share import SHARE, Share

if TYPE_CHECKING:
    from server.bridge.peer import BridgePeer

log = logging.getLogger(__name__)

# Changes are gathered for so long before they are told: a hundred that come at once are told
# once, and everybody within a second; s.
GATHER: Final = 0.1
# Connections by one client's key at once: an admin's windows, on his machines.
OF_KEY: Final = 64
# Bytes of chance in a client's id.
CHANCE: Final = 12


class Switchboard:
    """Who is logged in, by id."""

    def __init__(self, keys: Keys) -> None:
        self.peers: dict[str, BridgePeer] = {}
        self.roster = Roster()
        self.proofs = LegacyProofs()
        # Messages and their bytes that were passed on, and messages that were refused.
        self.relayed = self.relayed_bytes = self.refused = 0
        self._by_key: Counter[str] = Counter()
        self._shares: WeakValueDictionary[str, Share] = WeakValueDictionary()
        self._telling: Iterator[str] | None = None
        # Lists as they are written, as of this version of the roster.
        self._texts: dict[tuple[str, ...], bytes] = {}
        self._texts_of = 0
        self._due: asyncio.TimerHandle | None = None
        self._again = False
        self.set_keys(keys)

    # Keys.

    def set_keys(self, keys: Keys) -> None:
        """These may come from now on; those who are here by others go."""
        self.keys = keys
        for peer in tuple(self.peers.values()):
            if peer.key is not None and peer.key.fingerprint not in keys.by_fingerprint:
                self.send_away(peer, 4401, "the key was revoked")

    def may_claim(self, key: BridgeKey, checksums: frozenset[str]) -> bool:
        """May a client of this key say that these are its own? The original's has another key
        for servers than for bridges, which nobody else here may have."""
        others = checksums - {key.public.checksum}
        return not others or (key.kind == "rsa" and others.isdisjoint(self.keys.checksums))

    def share(self, key: BridgeKey) -> Share:
        """What all connections by a key may hold in memory."""
        return self._shares.setdefault(key.fingerprint, Share(SHARE))

    def name(self, key: BridgeKey) -> str:
        """What who comes by it is called: a server as its key, which it has to prove to all who
        want to reach it; each client anew."""
        return key.fingerprint if key.side == "server" else secrets.token_urlsafe(CHANCE)

    def has_room(self, key: BridgeKey) -> bool:
        """May another connection come by this key? A server's takes the place of the last."""
        return key.side == "server" or self._by_key[key.fingerprint] < OF_KEY

    # Presence.

    def log_in(self, peer: BridgePeer, key: BridgeKey) -> None:
        """It has proved this key."""
        there = self.peers.get(peer.id)
        if there is not None:
            # Most often the one that was cut off, of which we have not heard yet.
            log.warning(
                "%s: another connection from %s has come by the key of the server %r, and takes"
                " its place; if that goes on, two machines use one key",
                *(there.address, peer.address, key.name),
            )
            self.send_away(there, 4409, "another connection has come by the same key")
        self.peers[peer.id] = peer
        self._by_key[key.fingerprint] += 1

    def send_away(self, peer: BridgePeer, code: int, why: str) -> None:
        """End its connection. It is on nobody's list from here on, though it may take its time
        to answer."""
        self.leave(peer)
        peer.connection.close(code, why)

    def leave(self, peer: BridgePeer) -> None:
        """It is gone, or is to be treated as if."""
        if peer.key is None or self.peers.get(peer.id) is not peer:
            return
        del self.peers[peer.id]
        self._by_key[peer.key.fingerprint] -= 1
        if not self._by_key[peer.key.fingerprint]:
            del self._by_key[peer.key.fingerprint]
        self.roster.leave(peer.id)
        self._tell_soon()

    def accept(self, peer: BridgePeer, key: BridgeKey, checksums: frozenset[str]) -> None:
        """It accepts these keys now, and is seen by who has one of them."""
        self.roster.enter(peer.id, key.side, checksums)
        self._tell_soon()

    def _tell_soon(self) -> None:
        self._again = True
        if self._due is None and self._telling is None:
            self._due = asyncio.get_running_loop().call_later(GATHER, self._tell)

    def _tell(self) -> None:
        """Tell, for a millisecond a turn, those whose lists have changed."""
        self._due = None
        loop = asyncio.get_running_loop()
        if self._telling is None:
            self._again = False
            self._telling = self.roster.due()
        end = loop.time() + SLICE
        for id in self._telling:
            if (peer := self.peers.get(id)) is not None:
                peer.tell()
            if loop.time() > end:
                loop.call_soon(self._tell)
                return
        self._telling = None
        self._texts.clear()
        if self._again:
            self._tell_soon()

    def news(self, peer: BridgePeer) -> bytes | None:
        """The text that it is to be told by now, each list written once; None: it knows it."""
        ids = self.roster.news(peer.id)
        if ids is None:
            return None
        if self._texts_of != self.roster.version:
            self._texts_of = self.roster.version
            self._texts.clear()
        if ids not in self._texts:
            self._texts[ids] = frame("events", "bridge", "", {"available_connections": ids})
        return self._texts[ids]

    # Messages.

    def relay(self, sender: BridgePeer, destination: str, payload: str) -> None:
        """Pass a message on. Raises: ProtocolError, which names the destination."""
        peer = self.peers.get(destination)
        if peer is not None and not peer.connection.is_open:
            # It has begun to close, or was closed for what its connection can't take.
            self.leave(peer)
            peer = None
        if peer is None or not self.roster.is_seen(destination, by=sender.id):
            self.refused += 1
            raise ProtocolError(404, "there is no such connection for you", id=destination)
        try:
            size = peer.take(sender.id, f"{sender.id}\n{payload}".encode())
        except ProtocolError as error:
            self.refused += 1
            error.id = destination
            raise
        self.relayed += 1
        self.relayed_bytes += size
