"""Those who tell many clients what one publishes, over TLS: a part of bench.fanout.

sysadmd; fan_server.c, the least that it can be; mosquitto and nats-server, where installed.
Each is a program, and what fan_clients.c has to say to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench.compiled import TLS, compiled
from bench.relays import NatsServer
from tests.kit import Daemon, RawClient, wait_for
from tests.kit.figures import spent
from tests.kit.processes import Program

# A delivery is about so long in all systems, with the head that each has; bytes.
DELIVERY = 400
# What sysadmd's event has beside the id of its job.
_ROUND_IT = 250
# Published at once, by number of what `run` takes.
BURSTS = (1, 64)
MARK = b"^"
# Becomes a number.
_NUMBER = b"########"
# What no job of a paused queue does.
_QUEUE = "no_queue"


@dataclass(frozen=True)
class System:
    """One that is measured: its program, which runs, and the load client's orders."""

    name: str
    program: Program
    orders: Sequence[str]

    def cpu(self) -> float:
        """Seconds that it has had, with all its threads."""
        return cpu(self.program.pid)


def cpu(pid: int) -> float:
    """As `spent`, to the nanosecond where that can be had."""
    if sys.platform == "linux":
        # Source: clock_getcpuclockid(3), as glibc has it.
        return time.clock_gettime((~pid << 3) | 2)
    return spent(pid)


class Load(Program):
    """fan_clients.c, with orders given."""

    def __init__(self, program: Path, orders: Sequence[str]) -> None:
        super().__init__(program.with_suffix(".log"), dict(os.environ))
        self._program = program
        self._orders = orders

    def command(self) -> list[str]:
        return [str(self._program)]

    def is_ready(self, line: str) -> bool:
        return line == "fan_clients ready\n"

    def begin(self) -> Self:
        """Start it, and give it its orders."""
        self.start(stdin=-1)
        self.tell(*self._orders)
        return self

    def tell(self, *orders: str) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{order}\n" for order in orders))
        self.process.stdin.flush()

    def hear(self) -> list[float]:
        """The numbers of its answer to an order."""
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        return [float(word) for word in line.split()[1:]]

    def ask(self, order: str) -> list[float]:
        self.tell(order)
        return self.hear()


def _to(port: int, *, greeted: bool = False) -> str:
    return f"to {port} {int(greeted)}"


def _step(who: str, send: bytes, wait: bytes) -> str:
    return f"step {who} {send.hex() or '-'} {wait.hex() or '-'}"


def _filled(size: int) -> bytes:
    """A payload: one mark, a number, and the rest of so many bytes."""
    return MARK + _NUMBER + b"x" * (size - len(MARK + _NUMBER))


def _blobs(event: bytes) -> list[str]:
    """Events of those who take each for itself."""
    return [f"blob {at} {size} {(event * size).hex()}" for at, size in enumerate(BURSTS)]


# sysadmd.


def by_sysadmd(daemon: Daemon) -> System:
    """The daemon runs. An event is a job that is queued, in a queue that is paused: the one
    event that costs no more than itself, and is committed like all others."""
    client = RawClient(daemon.state_dir).log_in()
    client.ask("rpc", "dispatcher", {"action": "pause", "queue": _QUEUE})
    client.close()
    orders = sysadmd_orders(daemon, ["dispatcher"], "now")
    for at, size in enumerate(BURSTS):
        # Every event has a number.
        ids = [
            (_filled(DELIVERY - _ROUND_IT - 2) + b"%02d" % number).decode()
            for number in range(size)
        ]
        run = _request("rpc", "dispatcher", {"action": "run", **dict.fromkeys(ids, "true")})
        orders.append(f"blob {at} {size} {run.hex()}")
    return System("sysadmd", daemon, orders)


def sysadmd_orders(daemon: Daemon, systems: Sequence[str], since: str) -> list[str]:
    """To be told of these systems, and to log in to publish."""
    request = (
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    login = _request("rpc", "auth_token", {"token": daemon.token})
    subscribe = _request("events", "subscribe", {"systems": list(systems), "since": since})
    return [
        _to(int(daemon.address.rpartition(":")[2])),
        f"mark {MARK.hex()}",
        # A pong: no ping waits for longer than it takes to come round to this.
        "beat 8a8000000000",
        *(_step(who, request, b"\r\n\r\n") for who in "sp"),
        *(_step(who, login, b'"name":"response"') for who in "sp"),
        _step("s", subscribe, b'"subscribe":['),
    ]


def _request(namespace: str, name: str, args: Any) -> bytes:
    """As a text frame, with a mask of zeros."""
    text = json.dumps({"namespace": namespace, "name": name, "id": "b", "args": args}).encode()
    size = len(text)
    short = size < 126
    head = bytes((0x81, 0x80 | (size if short else 126))) + (
        b"" if short else size.to_bytes(2, "big")
    )
    return head + bytes(4) + text


# The least that it can be.


class FanServer(Program):
    """fan_server.c."""

    def __init__(self, program: Path, way: str, tls: Path) -> None:
        """way: each or joined; tls: the folder of certificate and key."""
        super().__init__(program.with_name(f"fan_server.{way}.log"), dict(os.environ))
        self._command = [str(program), way, *_pair(tls)]
        self.port = 0

    def command(self) -> list[str]:
        return self._command

    def is_ready(self, line: str) -> bool:
        self.port = int(line.rpartition(" ")[2] or 0)
        return line.startswith("fan_server ready")


def _pair(tls: Path) -> tuple[str, str]:
    return str(tls / "certificate.pem"), str(tls / "key.pem")


def by_c(room: Path, tls: Path, stack: ExitStack) -> list[System]:
    """In a write each, and joined; nothing if it can't be built."""
    program = compiled("fan_server", room, TLS)
    if program is None:
        return []
    found: list[System] = []
    for way, name in (("each", "C"), ("joined", "C joined")):
        server = FanServer(program, way, tls)
        stack.callback(server.kill)
        server.start()
        payload = _filled(DELIVERY - 4)
        steps = [_step("s", b"S", b"ok"), _step("p", b"P", b"ok")]
        event = len(payload).to_bytes(4, "big") + payload
        orders = [_to(server.port), f"mark {MARK.hex()}", *steps, *_blobs(event)]
        found.append(System(name, server, orders))
    return found


def sender_orders(server: FanServer, count: int, size: int) -> list[str]:
    """To be sent so many messages of this size, as fast as it goes."""
    order = f"R{count},{size}\n".encode()
    return [_to(server.port), f"mark {MARK.hex()}", _step("s", order, b"ok")]


# MQTT 3.1.1. Source: its specification, OASIS, 2014.


class Mosquitto(Program):
    """mosquitto with the certificate of a daemon of ours."""

    def __init__(self, program: str, room: Path, tls: Path) -> None:
        super().__init__(room / "mosquitto.log", dict(os.environ))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        certificate, key = _pair(tls)
        config = room / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
            f"certfile {certificate}\nkeyfile {key}\nmax_queued_messages 0\n"
            "log_dest stderr\nconnection_messages false\n"
            # The key is not for others to read.
            + ("user root\n" if os.geteuid() == 0 else "")
        )
        self._command = ["sh", "-c", 'exec "$0" -c "$1" 2>&1', program, str(config)]

    def command(self) -> list[str]:
        return self._command

    def is_ready(self, line: str) -> bool:
        # Its first words, root or not; those that it is ready come later.
        return "osquitto" in line

    @property
    def listens(self) -> bool:
        with contextlib.suppress(ConnectionError):
            socket.create_connection(("127.0.0.1", self.port)).close()
            return True
        return False


def _mqtt(kind: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while True:
        size, low = divmod(size, 128)
        length += bytes((low | (128 if size else 0),))
        if not size:
            return bytes((kind,)) + length + body


def by_mosquitto(room: Path, tls: Path, stack: ExitStack) -> System | None:
    """QoS 0. None: it is not installed."""
    # Where Debian has it is not in everybody's PATH.
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        print("no mosquitto: it is not installed")
        return None
    server = Mosquitto(program, room, tls)
    stack.callback(server.kill)
    server.start()
    wait_for(lambda: server.listens, "mosquitto")
    connect = _mqtt(0x10, b"\0\4MQTT\4\2\0\0\0\0")
    subscribe = _mqtt(0x82, b"\0\1\0\1t\0")
    # Of a delivery: kind, length (2), the topic (3).
    event = _mqtt(0x30, b"\0\1t" + _filled(DELIVERY - 6))
    orders = [
        _to(server.port),
        f"mark {MARK.hex()}",
        *(_step(who, connect, b"\x20\2\0\0") for who in "sp"),
        _step("s", subscribe, b"\x90\3\0\1\0"),
        *_blobs(event),
    ]
    return System("mosquitto", server, orders)


# NATS. Source: docs.nats.io, "Client Protocol".


def by_nats(room: Path, tls: Path, stack: ExitStack) -> System | None:
    """None: it is not installed."""
    program = shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        print("no nats-server: it is not installed")
        return None
    server = NatsServer(program, room, tls)
    stack.callback(server.kill)
    server.start()
    hello = b'CONNECT {"verbose":false,"pedantic":false,"tls_required":true}\r\n'
    payload = _filled(DELIVERY - len(b"MSG t 1 400\r\n\r\n"))
    orders = [
        _to(server.port, greeted=True),
        f"mark {MARK.hex()}",
        f"beat {b'PONG'.hex()}0d0a",
        _step("s", hello + b"SUB t 1\r\nPING\r\n", b"PONG\r\n"),
        _step("p", hello + b"PING\r\n", b"PONG\r\n"),
        *_blobs(b"PUB t %d\r\n%b\r\n" % (len(payload), payload)),
    ]
    return System("nats", server, orders)
