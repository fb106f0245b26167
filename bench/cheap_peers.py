"""Peers of a bridge that cost next to nothing: thousands of them in one process."""

from __future__ import annotations

import json
import resource
import selectors
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from server.bridge import registry
from server.bridge.registry import BridgeKey
from sysadmd.keys import PrivateKey, Side, as_text
from sysadmd.pins import file_pin
from tests.kit import RawClient, wait_for
from tests.kit.bridge import Bridge

# Strangers from one address, below the limit for it.
PER_ADDRESS = 16


def raise_limits() -> None:
    """As many open files as we may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def address(number: int) -> str:
    """One of many loopback addresses, the same for a few who come together."""
    place = number // PER_ADDRESS
    return f"127.0.{1 + place // 250}.{1 + place % 250}"


@dataclass(frozen=True, slots=True)
class Identity:
    """A key, as a side; text and checksum: of the public one, written once."""

    key: PrivateKey
    side: Side
    text: str
    checksum: str
    fingerprint: str

    @staticmethod
    def new(side: Side) -> Identity:
        key = PrivateKey.new()
        public = key.public
        text = as_text(public.pem)
        return Identity(key, side, text, public.checksum, public.fingerprint)


def register(bridge: Bridge, identities: Iterable[Identity]) -> None:
    """Let all in, in one write: thousands, as `bridge-key add` would, take too long."""
    listed: list[dict[str, Any]] = []
    for number, one in enumerate(identities):
        pem = one.key.public.pem.decode("ascii")
        key = BridgeKey(one.fingerprint, "ed25519", one.side, f"key {number}", pem, 0)
        listed.append(asdict(key))
    bridge.state_dir.mkdir(mode=0o700, exist_ok=True)
    new = bridge.state_dir / "new"
    new.write_text(json.dumps(listed))
    new.replace(bridge.state_dir / registry.FILE)
    if bridge.is_up:
        said = f"{len(listed)} keys are registered now"
        wait_for(lambda: said in bridge.log.read_text(), said)


class CheapPeer(RawClient):
    """A peer of a bridge."""

    def __init__(
        self, bridge: Bridge, number: int, who: Identity, accepts: Sequence[Identity] = ()
    ) -> None:
        """number: of those who come, the how manyth, by which it has an address."""
        super().__init__(bridge.state_dir, address(number))
        self.who = who
        self._checksums = [one.checksum for one in accepts or (who,)]
        self._pin = file_pin(bridge.state_dir / "tls" / "certificate.pem")
        self._proof = ""
        # The frame that last said whom it sees, and when that and the login's reply came.
        self.told = b""
        self.told_at = self.in_at = 0.0

    def say(self, name: str, args: object, id: str) -> None:
        """Answer."""
        text = json.dumps({"namespace": "rpc", "name": name, "id": id, "args": args})
        self.send_text(text.encode())

    def prepare(self) -> None:
        """Up to a proof, which is made and not sent."""
        self.send("rpc", "auth_ssl", "")
        while not self._proof:
            self.hear(self.frame())

    def prove(self) -> None:
        """Send that."""
        args = {"public_key": self.who.text, "signature": self._proof}
        self.send("rpc", "auth_ssl", args)

    def come(self) -> CheapPeer:
        """All of it; returns itself."""
        self.prepare()
        self.prove()
        while not self.in_at:
            self.hear(self.frame())
        # What it is asked behind that is answered before the second reply of these.
        for _ in range(2):
            self.send("events", "bridge", {})
            while json.loads(frame := self.frame())["id"] != "b":
                self.hear(frame)
        return self

    def hear(self, frame: bytes) -> None:
        """A frame, which is answered if it asks."""
        if frame.startswith(b'{"namespace":"events"'):
            self.told, self.told_at = frame, time.perf_counter()
            return
        heard = json.loads(frame)
        args = heard["args"]
        if heard["name"] == "identify":
            self.say("response", {"type": self.who.side}, heard["id"])
        elif heard["name"] == "settings":
            self.say("response", {"md5_keys": self._checksums}, heard["id"])
        elif "test_string" in args:
            nonce: str = args["test_string"]
            self._proof = self.who.key.prove(self.who.side, self._pin, nonce)
        else:
            assert heard["name"] == "response", heard
            self.in_at = time.perf_counter()

    def hear_ready(self) -> None:
        """What is there, when its socket is readable."""
        self._receive()
        while (found := self._cut()) is not None:
            if found[0] & 15 == 1:
                self.hear(found[1])

    @property
    def sees(self) -> int:
        """How many it was told of last."""
        ids = self.told.partition(b"[")[2]
        return ids.count(b",") + 1 if len(ids) > len(b"]}}") else 0

    @property
    def seen(self) -> frozenset[str]:
        """Whom it was told of last."""
        return frozenset(json.loads(self.told)["args"]["available_connections"])


def hear_until_right(peers: Sequence[CheapPeer], others: dict[Side, int], limit: float) -> None:
    """Listen to all until each sees as many of the other side as there are. limit: s.

    others: how many those of a side are to see.
    """
    missing = dict.fromkeys(peers)
    end = time.monotonic() + limit
    with selectors.DefaultSelector() as selector:
        for peer in peers:
            selector.register(peer.socket, selectors.EVENT_READ, peer)
        while missing:
            assert time.monotonic() < end, f"{len(missing)} lists are not right"
            for key, _ in selector.select(0.1):
                peer = key.data
                peer.hear_ready()
                if peer.sees == others[peer.who.side] and peer.in_at:
                    missing.pop(peer, None)
                else:
                    missing[peer] = None
