"""A connection on real sockets and TLS, with the clock and the moment of each write chosen."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response

from server.loop_clock import BEAT, BUSY, LoopClock
from server.wire import tls
from server.wire.connection import Connection
from server.wire.limits import (
    LATE_FRAMES,
    OUTPUT_HIGH,
    PING_AFTER,
    SILENT_AFTER,
    SLICE,
)
from server.wire.parties import Caller, Phase
from server.wire.protocol import SEND_SIZE
from sysadmd.settings import ServerSettings
from tests.kit import DEADLINE, RawClient


class Echo:
    """Answers a text at once with one that is much longer, or takes seconds for it."""

    member = True

    def __init__(self, seconds: float = 0.0) -> None:
        self.connection: Connection | None = None
        self.seconds = seconds
        self.texts: list[str] = []
        self.outputs: list[bytes] = []
        self.pongs: list[bytes] = []

    def http(self, request: Request, accept: Callable[[], Response]) -> Response:
        return accept()

    def text(self, text: str) -> None:
        assert self.connection is not None
        self.texts.append(text)
        if self.seconds:
            time.sleep(self.seconds)
            return
        self.connection.send(b'"' + b"x" * (OUTPUT_HIGH // 2) + b'"')

    def output(self, *, live: bool = False) -> bytes | None:
        return self.outputs.pop() if self.outputs else None

    def tick(self, now: float) -> None:
        pass

    def pong(self, said: bytes) -> None:
        self.pongs.append(said)

    def lost(self) -> None:
        pass

    def welcome(self, connection: Connection) -> Echo:
        self.connection = connection
        return self


class Nobody:
    """Keeps no connection."""

    def unknown(self, connection: Connection) -> None:
        pass

    def known(self, connection: Connection) -> None:
        pass

    def gone(self, connection: Connection) -> None:
        pass


async def pair(
    directory: Path,
    seconds: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    peer: Echo | None = None,
) -> tuple[Connection, Echo, RawClient]:
    """A connection that is open, its peer, and the client at its other end."""
    made = tls.prepare(ServerSettings(), directory)
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours.setblocking(False)
    server = tls.context(made, "").wrap_socket(
        ours, server_side=True, do_handshake_on_connect=False
    )
    loop, echo = asyncio.get_running_loop(), peer or Echo(seconds)
    caller = Caller("127.0.0.1", "127.0.0.1")
    connection = Connection(loop, clock, server, caller, 10, Nobody(), echo.welcome)
    connection.begin()
    context = ssl.create_default_context(cafile=made.certificate)
    client = await asyncio.to_thread(open_client, context, theirs)
    return connection, echo, client


def open_client(context: ssl.SSLContext, sock: socket.socket) -> RawClient:
    client = RawClient.of(context.wrap_socket(sock, server_hostname="localhost"))
    client.socket.sendall(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.socket.recv(1)
    return client


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - it is turns of the loop that are waited for
            await asyncio.sleep(0)


def drain(client: RawClient) -> None:
    """Take what has come."""
    client.socket.setblocking(False)
    with contextlib.suppress(ssl.SSLWantReadError):
        while client.socket.recv(65536):
            pass
    client.socket.setblocking(True)


async def is_read_on(directory: Path) -> None:
    connection, echo, client = await pair(directory)
    await until(lambda: connection.phase is Phase.OPEN)
    for number in range(8):
        client.send_text(b"%d" % number)
    # More waits for the client than may: the rest of what it asks is not handed out.
    await until(lambda: connection.buffered > OUTPUT_HIGH)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(echo.texts) < 8
    # No turn of the loop, which would do it: a ping, a heartbeat finds that there is room.
    while connection.buffered:
        drain(client)
        connection.write()
    while len(echo.texts) < 8:
        drain(client)
        await asyncio.sleep(0)
    connection.abort()
    client.close()


def test_reading_goes_on_whoever_wrote_the_last_of_what_waited(tmp_path: Path) -> None:
    asyncio.run(asyncio.wait_for(is_read_on(tmp_path), DEADLINE))


async def pongs_say_what_arrived(directory: Path) -> None:
    connection, echo, client = await pair(directory)
    await until(lambda: connection.phase is Phase.OPEN)
    echo.outputs.append(b"x" * 512 * 1024)
    connection.write()
    # Behind what the socket has not taken yet.
    connection.ping(b"here")
    assert connection.buffered
    got = bytearray()
    while not got.endswith(b"\x89\x04here"):
        assert not echo.pongs
        with contextlib.suppress(ssl.SSLWantReadError):
            client.socket.setblocking(False)
            got += client.socket.recv(65536)
        await asyncio.sleep(0)
    assert len(got) == 512 * 1024 + 6
    client.socket.setblocking(True)
    # One of our own, which nobody has asked for, and the answer.
    client.socket.sendall(b"\x8a\x80\0\0\0\0" + b"\x8a\x84\0\0\0\0here")
    await until(lambda: echo.pongs == [b"here"])
    connection.abort()
    client.close()


def test_a_pong_says_that_all_before_its_ping_has_arrived(tmp_path: Path) -> None:
    asyncio.run(asyncio.wait_for(pongs_say_what_arrived(tmp_path), DEADLINE))


async def steps(directory: Path) -> list[int]:
    """How much still waits while a client takes one long portion, bit by bit."""
    connection, echo, client = await pair(directory)
    await until(lambda: connection.phase is Phase.OPEN)
    echo.outputs.append(b"x" * 512 * 1024)
    connection.write()
    seen = [connection.buffered]
    while connection.buffered:
        drain(client)
        await asyncio.sleep(0)
        if connection.buffered < seen[-1]:
            seen.append(connection.buffered)
    connection.abort()
    client.close()
    return seen


def test_a_slow_client_is_seen_to_take_a_long_portion(tmp_path: Path) -> None:
    """OpenSSL says that bytes were taken only when all of them were that it was given."""
    seen = asyncio.run(asyncio.wait_for(steps(tmp_path), DEADLINE))
    assert max(more - less for more, less in itertools.pairwise(seen)) <= SEND_SIZE


async def most_in_a_turn(directory: Path) -> int:
    # Each takes longer than a slice does: on any machine, however late it comes to its turns.
    connection, echo, client = await pair(directory, 2 * SLICE)
    await until(lambda: connection.phase is Phase.OPEN)
    text = Frame(Opcode.TEXT, b"{}").serialize(mask=True)
    client.socket.sendall(text * 200)
    most, before = 0, 0
    while len(echo.texts) < 200:
        await asyncio.sleep(0)
        answered = len(echo.texts)
        most, before = max(most, answered - before), answered
    connection.abort()
    client.close()
    return most


def test_many_requests_in_one_piece_leave_others_their_turns(tmp_path: Path) -> None:
    assert asyncio.run(asyncio.wait_for(most_in_a_turn(tmp_path), DEADLINE)) < 10


async def ends(directory: Path) -> bytes:
    connection, _, client = await pair(directory)
    await until(lambda: connection.phase is Phase.OPEN)
    connection.close(4401, "enough")
    client.socket.sendall(Frame(Opcode.PING, b"").serialize(mask=True) * 2 * LATE_FRAMES)
    await until(lambda: connection.phase is Phase.LINGERING)
    said = client.socket.recv(65536)
    connection.abort()
    client.close()
    return said


def test_who_goes_on_talking_behind_our_goodbye_is_parsed_no_more(tmp_path: Path) -> None:
    said = asyncio.run(asyncio.wait_for(ends(tmp_path), DEADLINE))
    assert (4401).to_bytes(2, "big") + b"enough" in said


class Seconds:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def ticks(directory: Path) -> bytes:
    """What a client that says nothing is sent, while we stand still again and again."""
    seconds = Seconds()
    clock = LoopClock(seconds)
    clock.beat()
    connection, _, client = await pair(directory, clock=clock.now)
    await until(lambda: connection.phase is Phase.OPEN)

    def stand_still() -> None:
        # What is due is looked at before anybody has noted how late it is, and after that.
        seconds.now += 2 * SILENT_AFTER
        connection.tick(clock.now())
        clock.beat()
        connection.tick(clock.now())

    def turn_for(time: float) -> None:
        for _ in range(int(time / BEAT)):
            seconds.now += BEAT
            clock.beat()
            connection.tick(clock.now())

    charged = BEAT + BUSY
    stand_still()
    turn_for(PING_AFTER - charged)
    stand_still()
    stand_still()
    # From the ping on, which its socket took.
    turn_for(SILENT_AFTER - 2 * charged - BEAT)
    assert connection.is_open
    turn_for(BEAT)
    assert not connection.is_open
    said = client.socket.recv(65536) + client.socket.recv(65536)
    connection.abort()
    client.close()
    return said


def test_a_stall_of_our_own_is_not_the_silence_of_a_peer(tmp_path: Path) -> None:
    said = asyncio.run(asyncio.wait_for(ticks(tmp_path), DEADLINE))
    # One ping, then the goodbye.
    ping = Frame(Opcode.PING, b"").serialize(mask=False)
    assert said.startswith(ping)
    assert (1011).to_bytes(2, "big") + b"no sign of life" in said.removeprefix(ping)
    assert said.count(ping) == 1


class Defective(Echo):
    """Fails at one of the things that it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.at = ""

    def text(self, text: str) -> None:
        self.fail("text")

    def output(self, *, live: bool = False) -> bytes | None:
        self.fail("output")
        return None

    def tick(self, now: float) -> None:
        self.fail("tick")

    def fail(self, at: str) -> None:
        if at == self.at:
            raise RecursionError(at)


async def what_a_defect_ends(directory: Path, at: str) -> bytes:
    peer = Defective()
    connection, _, client = await pair(directory, peer=peer)
    await until(lambda: connection.phase is Phase.OPEN)
    peer.at = at
    client.send_text(b"{}")
    connection.tick(time.monotonic())
    await until(lambda: connection.phase is Phase.CLOSING)
    said = client.socket.recv(65536)
    # What fails once more is not waited for.
    connection.fail()
    assert connection.phase is Phase.GONE
    client.close()
    return said


@pytest.mark.parametrize("at", ["text", "output", "tick"])
def test_a_defect_ends_the_connection_that_met_it_and_says_so(
    tmp_path: Path, at: str, caplog: pytest.LogCaptureFixture
) -> None:
    said = asyncio.run(asyncio.wait_for(what_a_defect_ends(tmp_path, at), DEADLINE))
    assert (1011).to_bytes(2, "big") + b"the server met a defect" in said
    assert f"RecursionError: {at}" in caplog.text
