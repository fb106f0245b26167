"""Listening sockets: accept, limits by address, the second hand. Knows no request."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Final, cast

from server.wire.connection import Connection, Peer
from sysadmd.errors import CannotStart
from sysadmd.settings import Address, ServerSettings

log = logging.getLogger(__name__)

# Connections taken in one turn of the loop, so that a flood does not hold up who is in already.
ACCEPTS_PER_TURN: Final = 16
BACKLOG: Final = 1024
# Connections above max_clients that are let in far enough to be answered 503. Any more would
# use up the descriptors that files and jobs need.
BEYOND: Final = 64
# How long accepting rests when the process or the system has no descriptor left; s.
EXHAUSTED_PAUSE: Final = 1.0


def client_group(address: str) -> str:
    """The address that limits count by: IPv6 by /64, since a host can pick the rest freely."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


def bind(address: Address) -> socket.socket:
    """A listening socket. Raises: CannotStart naming address and port."""
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        raise CannotStart(
            f"can't listen on {address}: {error}; name a local address"
        ) from error
    family, kind, number, _, where = found[0]
    sock = socket.socket(family, kind, number)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # One listener, one family: FreeBSD's default, made certain everywhere.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise CannotStart(
            f"can't listen on {address}: {error.strerror}; stop what uses that port,"
            " or name another with --listen"
        ) from error
    return sock


def url(sock: socket.socket) -> str:
    """The wss URL by which this machine reaches a listener; loopback for a wildcard."""
    host, port = cast("tuple[str, int]", sock.getsockname()[:2])
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"wss://[{host}]:{port}" if ":" in host else f"wss://{host}:{port}"


class Listeners:
    """All listening sockets and all connections that came through them."""

    def __init__(
        self,
        sockets: list[socket.socket],
        context: ssl.SSLContext,
        settings: Callable[[], ServerSettings],
        welcome: Callable[[Connection], Peer],
        clock: Callable[[], float],
    ) -> None:
        """clock: for the time that peers have."""
        self.context = context
        self._settings = settings
        self.connections: dict[Connection, None] = {}
        # Connections that are not logged in, by the address that limits count by.
        self._strangers: Counter[str] = Counter()
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets
        self._empty = asyncio.Event()
        self._welcome = welcome
        self._clock = clock
        for sock in sockets:
            self._loop.add_reader(sock, self._accept, sock)

    async def tick(self) -> None:
        """The second hand of every connection; runs until cancelled."""
        while True:
            await asyncio.sleep(1)
            now = self._clock()
            for number, connection in enumerate(tuple(self.connections)):
                connection.tick(now)
                if number % 100 == 99:
                    await asyncio.sleep(0)

    def stop_accepting(self) -> None:
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self._sockets = []

    def known(self, connection: Connection) -> None:
        """A connection's client has logged in."""
        if connection.stranger and connection in self.connections:
            connection.stranger = False
            self._forget_stranger(connection)

    def _forget_stranger(self, connection: Connection) -> None:
        self._strangers[connection.group] -= 1
        if self._strangers[connection.group] <= 0:
            del self._strangers[connection.group]

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, where = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error(
                    "can't accept a connection: %s; raise the limit of open files or lower"
                    " server.max_clients; trying again in %g s",
                    os.strerror(error.errno or 0),
                    EXHAUSTED_PAUSE,
                )
                self._loop.remove_reader(listener)
                self._loop.call_later(EXHAUSTED_PAUSE, self._resume, listener)
                return
            self._greet(sock, str(where[0]))

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._sockets:
            self._loop.add_reader(listener, self._accept, listener)

    def _greet(self, sock: socket.socket, address: str) -> None:
        group, settings = client_group(address), self._settings()
        if len(self.connections) >= settings.max_clients + BEYOND:
            log.debug("%s: refused, there are too many connections", address)
            sock.close()
            return
        if self._strangers[group] >= settings.unauthenticated_per_address:
            log.debug(
                "%s: refused, it has too many connections that are not logged in", address
            )
            sock.close()
            return
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            secure = self.context.wrap_socket(
                sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
            )
        except OSError:
            sock.close()
            return
        self._strangers[group] += 1
        connection = Connection(
            self._loop,
            self._clock,
            secure,
            address,
            group,
            settings.handshake_timeout,
            self,
            self._welcome,
        )
        self.connections[connection] = None
        connection.begin()

    def gone(self, connection: Connection) -> None:
        """A connection has ended."""
        if connection in self.connections:
            del self.connections[connection]
            if connection.stranger:
                self._forget_stranger(connection)
            if not self.connections:
                self._empty.set()

    async def close(self, code: int, reason: str, seconds: float) -> None:
        """Say goodbye to everybody, and wait so long for them to take it."""
        for connection in tuple(self.connections):
            connection.close(code, reason)
        self._empty.clear()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._empty.wait()
        for connection in tuple(self.connections):
            connection.abort()
