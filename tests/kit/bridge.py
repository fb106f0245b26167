"""A real bridge, and plain peers of it that know the document and nothing of ours."""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import Iterable
from typing import Any, Self

from websockets.sync.client import connect

from server.bridge import registry
from sysadmd.keys import PrivateKey, Side, as_text
from sysadmd.pins import file_pin, key_pin
from tests.kit.daemon import Daemon
from tests.kit.raw_client import RawClient
from tests.kit.waiting import DEADLINE, wait_for


class Bridge(Daemon):
    """`sysadmd bridge` on a free port."""

    def is_ready(self, line: str) -> bool:
        """As `Program` has it."""
        return super().is_ready(line.replace("sysadmd bridge ready", "sysadmd ready"))

    def command(self) -> list[str]:
        """As `Program` has it."""
        return ["bridge" if word == "serve" else word for word in super().command()]

    def let_in(self, key: PrivateKey, side: Side, name: str) -> None:
        """Register a key, as `sysadmd bridge-key add` does."""
        registry.add(self.state_dir, key.public, side, name)
        if self.is_up:
            said = f"{len(registry.read(self.state_dir))} keys are registered now"
            wait_for(lambda: said in self.log.read_text(), said)

    def peer(self, side: Side, key: PrivateKey, accepts: Iterable[PrivateKey] = ()) -> Peer:
        """A peer that has logged in; it accepts these keys, or its own."""
        peer = Peer(self.url, self.context, side, key, accepts)
        assert peer.log_in()["name"] == "response"
        # What it was asked is answered when the first reply is here, heard with the second.
        for _ in range(2):
            peer.sees()
        return peer


class Peer:
    """A plain WebSocket client that answers what a bridge asks."""

    def __init__(
        self,
        url: str,
        context: ssl.SSLContext,
        side: Side,
        key: PrivateKey,
        accepts: Iterable[PrivateKey] = (),
    ) -> None:
        self.side: Side = side
        self.key = key
        self.checksums = [one.public.checksum for one in accepts] or [key.public.checksum]
        self._stack = contextlib.ExitStack()
        made = connect(url, ssl=context, max_size=None, proxy=None, compression=None)
        self.socket = self._stack.enter_context(made)
        secure = self.socket.socket
        assert isinstance(secure, ssl.SSLSocket)
        certificate = secure.getpeercert(True)
        assert certificate is not None
        self.pin = key_pin(certificate)
        # All lists that it was told, and messages by who has sent them.
        self.lists: list[list[str]] = []
        self.messages: list[tuple[str, str]] = []
        self.errors: list[dict[str, Any]] = []

    def say(self, name: str, args: object, *, namespace: str = "rpc", id: str = "p") -> None:
        """Send a request, or a reply."""
        frame = {"namespace": namespace, "name": name, "id": id, "args": args}
        self.socket.send(json.dumps(frame))

    def send(self, destination: str, payload: str) -> None:
        """Send a message to another peer."""
        self.socket.send(f"{destination}\n{payload}")

    def receive(self, seconds: float = DEADLINE) -> dict[str, Any] | None:
        """Take the next frame: a reply or an error is returned."""
        text = self.socket.recv(timeout=seconds)
        assert isinstance(text, str)
        if not text.startswith("{"):
            sender, _, payload = text.partition("\n")
            self.messages.append((sender, payload))
            return None
        frame: dict[str, Any] = json.loads(text)
        if (frame["namespace"], frame["name"]) == ("events", "bridge"):
            assert frame["id"] == "", frame
            assert set(frame["args"]) == {"available_connections"}, frame
            self.lists.append(frame["args"]["available_connections"])
        elif (frame["namespace"], frame["name"]) == ("rpc", "identify"):
            self.say("response", {"type": self.side, "hostname": "h"}, id=frame["id"])
        elif (frame["namespace"], frame["name"]) == ("rpc", "settings"):
            assert frame["args"] == {"action": "list_ssl_checksums"}, frame
            self.say("response", {"md5_keys": self.checksums}, id=frame["id"])
        else:
            return frame
        return None

    def reply(self) -> dict[str, Any]:
        """The next reply or error; what comes before it is answered."""
        while (frame := self.receive()) is None:
            pass
        return frame

    def ask(self, name: str, args: object, *, namespace: str = "rpc") -> dict[str, Any]:
        """The reply to a request, or the error."""
        self.say(name, args, namespace=namespace)
        return self.reply()

    def log_in(self) -> dict[str, Any]:
        """Prove the key."""
        nonce = self.ask("auth_ssl", "")["args"]["test_string"]
        return self.prove(nonce)

    def prove(self, nonce: str, key: PrivateKey | None = None) -> dict[str, Any]:
        """The second step; key: another one than it proves with."""
        signature = (key or self.key).prove(self.side, self.pin, nonce)
        args = {"public_key": as_text(self.key.public.pem), "signature": signature}
        return self.ask("auth_ssl", args)

    def sees(self) -> list[str]:
        """Whom it sees now, as it asks."""
        seen: list[str] = self.ask("bridge", {}, namespace="events")["args"][
            "available_connections"
        ]
        return seen

    def until_told(self, count: int) -> list[str]:
        """The list that it is told, when it has so many."""
        end = time.monotonic() + DEADLINE
        while not self.lists or len(self.lists[-1]) != count:
            assert time.monotonic() < end, (count, self.lists)
            self.receive(DEADLINE)
        return self.lists[-1]

    def message(self) -> tuple[str, str]:
        """The next message: who has sent it, and what."""
        while not self.messages:
            self.receive()
        return self.messages.pop(0)

    def close(self) -> None:
        """Say goodbye."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DeafPeer(RawClient):
    """A peer that has logged in, reads when it is told to, and does not answer a close."""

    def __init__(
        self,
        bridge: Bridge,
        side: Side,
        key: PrivateKey,
        accepts: Iterable[PrivateKey] = (),
        receives: int | None = None,
    ) -> None:
        """It accepts these keys, or its own. receives: as `RawClient` has it."""
        super().__init__(bridge.state_dir, receives=receives)
        checksums = [one.public.checksum for one in accepts] or [key.public.checksum]
        pin = file_pin(bridge.state_dir / "tls" / "certificate.pem")
        nonce = self.ask("rpc", "auth_ssl", "")["test_string"]
        proof = {
            "public_key": as_text(key.public.pem),
            "signature": key.prove(side, pin, nonce),
        }
        self.ask("rpc", "auth_ssl", proof)
        self.say("bridge_request_list_keys", {"md5_keys": checksums})
        self.ask("events", "bridge", {})

    def say(self, id: str, args: object) -> None:
        """Answer what the bridge has asked."""
        frame = {"namespace": "rpc", "name": "response", "id": id, "args": args}
        self.send_text(json.dumps(frame).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
