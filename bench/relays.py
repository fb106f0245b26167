"""Three who pass messages on over TLS, and one load for them all: a part of bench.bridge.

The bridge; tls_relay.c, the least that it can be; and nats-server, where it is installed. Each
has pairs of connections: one end of a pair asks, the other answers as much. Every message is a
TLS record of its own, and so many questions of a pair are under way.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.cheap_peers import CheapPeer, Identity, register
from bench.compiled import TLS, compiled
from server.wire.protocol import text_frame
from tests.kit import wait_for
from tests.kit.bridge import Bridge
from tests.kit.figures import spent
from tests.kit.processes import Program

# What a bridge and nats-server may ask in between, and how that is answered.
PINGS = {b"\x89\0": b"\x8a\x80\0\0\0\0", b"PING\r\n": b"PONG\r\n"}


@dataclass(eq=False)
class End:
    """One end of a pair. says, hears: one message as it leaves here, and as it comes."""

    socket: ssl.SSLSocket
    says: bytes
    hears: bytes
    left: bytearray = field(default_factory=bytearray)

    def take(self) -> int:
        """How many messages have come, of which a part may have come before."""
        data = self.socket.recv(65536)
        assert data, "the relay has hung up"
        for ping, pong in PINGS.items():
            if ping in data:
                self.socket.sendall(pong)
                data = data.replace(ping, b"")
        self.left += data
        count = len(self.left) // len(self.hears)
        size = count * len(self.hears)
        assert self.left[:size] == self.hears * count, bytes(self.left[:1000])
        del self.left[:size]
        return count

    def say(self, count: int) -> None:
        for _ in range(count):
            self.socket.sendall(self.says)


@dataclass(frozen=True)
class Relay:
    """One that was measured: who asks and who answers, for each pair."""

    name: str
    program: Program
    pairs: Sequence[tuple[End, End]]

    def cost(self, pairs: int, messages: int, window: int) -> float:
        """Microseconds of the relay's CPU for a message, question or answer."""
        before = spent(self.program.pid)
        passed = exchange(self.pairs[:pairs], messages // (2 * pairs), window)
        return (spent(self.program.pid) - before) / passed * 1e6


def exchange(pairs: Sequence[tuple[End, End]], each: int, window: int) -> int:
    """So many questions by each pair, and their answers; returns how many messages that were.

    window: questions of a pair that are under way at once.
    """
    to_ask = {asks: each - window for asks, _ in pairs}
    to_hear = dict.fromkeys(to_ask, each)
    with selectors.DefaultSelector() as selector:
        for asks, answers in pairs:
            selector.register(asks.socket, selectors.EVENT_READ, asks)
            selector.register(answers.socket, selectors.EVENT_READ, answers)
            asks.say(window)
        while any(to_hear.values()):
            for key, _ in selector.select():
                end: End = key.data
                count = end.take()
                if end in to_hear:
                    to_hear[end] -= count
                    count = min(count, to_ask[end])
                    to_ask[end] -= count
                end.say(count)
    return 2 * each * len(pairs)


# The bridge.


def by_bridge(bridge: Bridge, pairs: int, payload: bytes) -> Relay:
    """A client and a server that share a key, for each pair; the bridge is started."""
    made: list[tuple[End, End]] = []
    for client, server in peers_in_pairs(bridge, pairs):
        (client_id,), (server_id,) = server.seen, client.seen
        asks = _end(client, server_id.encode(), payload)
        made.append((asks, _end(server, client_id.encode(), payload)))
    return Relay("bridge", bridge, made)


def peers_in_pairs(bridge: Bridge, pairs: int) -> list[tuple[CheapPeer, CheapPeer]]:
    """A client and a server each, which see one another; the bridge is started."""
    clients = [Identity.new("client") for _ in range(pairs)]
    servers = [Identity.new("server") for _ in range(pairs)]
    register(bridge, [*clients, *servers])
    bridge.start()
    made: list[tuple[CheapPeer, CheapPeer]] = []
    for number, (client, server) in enumerate(zip(clients, servers, strict=True)):
        answers = CheapPeer(bridge, number, server, [client]).come()
        asks = CheapPeer(bridge, number, client).come()
        for peer in (asks, answers):
            while peer.sees != 1:
                peer.hear_ready()
        made.append((asks, answers))
    return made


def _end(peer: CheapPeer, other: bytes, payload: bytes) -> End:
    """other: whom it writes to, and hears from."""
    message = other + b"\n" + payload
    assert 125 < len(message) < 65536
    # A mask of zeros is a mask.
    head = b"\x81\xfe" + len(message).to_bytes(2, "big") + bytes(4)
    return End(peer.socket, head + message, text_frame(message))


# The least that it can be.


class TlsRelay(Program):
    """tls_relay.c."""

    def __init__(self, program: Path, bridge: Bridge) -> None:
        """bridge: whose certificate it shows, too."""
        super().__init__(program.with_suffix(".log"), dict(os.environ))
        tls = bridge.state_dir / "tls"
        self._command = [str(program), str(tls / "certificate.pem"), str(tls / "key.pem")]
        self.port = 0

    def command(self) -> list[str]:
        return self._command

    def is_ready(self, line: str) -> bool:
        self.port = int(line.rpartition(" ")[2] or 0)
        return line.startswith("tls_relay ready")


def by_c(room: Path, bridge: Bridge, pairs: int, payload: bytes) -> Relay | None:
    """None: it can't be built here."""
    program = compiled("tls_relay", room, TLS)
    if program is None:
        return None
    relay = TlsRelay(program, bridge)
    relay.start()
    message = len(payload).to_bytes(4, "big") + payload

    def end() -> End:
        plain = socket.create_connection(("127.0.0.1", relay.port))
        return End(_secured(plain, bridge), message, message)

    return Relay("TLS relay in C", relay, [(end(), end()) for _ in range(pairs)])


def _secured(plain: socket.socket, bridge: Bridge) -> ssl.SSLSocket:
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bridge.context.wrap_socket(plain, server_hostname="127.0.0.1")


# NATS. Source: docs.nats.io, "Client Protocol".


class NatsServer(Program):
    """nats-server with the certificate of a daemon of ours."""

    def __init__(self, program: str, room: Path, tls: Path) -> None:
        """tls: the folder of certificate and key."""
        super().__init__(room / "nats.log", dict(os.environ))
        self._room = room
        config = room / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:-1"\nports_file_dir: "{room}"\nping_interval: "1h"\n'
            f'tls {{ cert_file: "{tls / "certificate.pem"}", key_file: "{tls / "key.pem"}" }}\n'
        )
        # It says all that it says in its log.
        self._command = ["sh", "-c", 'exec "$0" -c "$1" 2>&1', program, str(config)]

    def command(self) -> list[str]:
        return self._command

    def is_ready(self, line: str) -> bool:
        return "Starting nats-server" in line

    @property
    def port(self) -> int:
        """Where it listens, once it does."""
        file = self._room / f"nats-server_{self.pid}.ports"
        wait_for(lambda: file.exists() and file.read_text().endswith("}"), "the port")
        url: str = json.loads(file.read_text())["nats"][0]
        return int(url.rpartition(":")[2])


def by_nats(room: Path, bridge: Bridge, pairs: int, payload: bytes) -> Relay | None:
    """Requests and replies, each pair by subjects of its own. None: it is not installed."""
    program = shutil.which("nats-server")
    if program is None:
        print("no nats-server: it is not installed")
        return None
    nats = NatsServer(program, room, bridge.state_dir / "tls")
    nats.start()
    size = len(payload)

    def connect(subject: str) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", nats.port))
        while not plain.recv(4096).endswith(b"\r\n"):
            pass
        secure = _secured(plain, bridge)
        hello = '{"verbose":false,"pedantic":false,"tls_required":true}'
        secure.sendall(f"CONNECT {hello}\r\nSUB {subject} 1\r\nPING\r\n".encode())
        while b"PONG" not in secure.recv(4096):
            pass
        return secure

    def pair(number: int) -> tuple[End, End]:
        ask, reply = f"ask.{number:03}", f"_INBOX.{number:03}"
        body = payload + b"\r\n"
        asks, answers = connect(reply), connect(ask)
        return (
            End(
                asks,
                f"PUB {ask} {reply} {size}\r\n".encode() + body,
                f"MSG {reply} 1 {size}\r\n".encode() + body,
            ),
            End(
                answers,
                f"PUB {reply} {size}\r\n".encode() + body,
                f"MSG {ask} 1 {reply} {size}\r\n".encode() + body,
            ),
        )

    return Relay("nats-server", nats, [pair(number) for number in range(pairs)])
