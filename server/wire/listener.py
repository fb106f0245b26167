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
from functools import lru_cache
from typing import Final, cast

from server.wire.connection import Connection
from server.wire.local import LOCAL, PlainSocket, account_of
from server.wire.parties import Caller, Peer
from sysadmd.settings import DoorSettings

log = logging.getLogger(__name__)

# Connections taken in one turn of the loop, so that a flood does not hold up who is in already.
ACCEPTS_PER_TURN: Final = 16
# Connections above max_clients: who has not logged in yet, or is let in far enough to be
# answered 503. Any more would use up the descriptors that files and jobs need.
BEYOND: Final = 64
# Connections of this machine's own programs at once: they take no place of others, so that
# there is always room for an admin, but descriptors.
LOCAL_CLIENTS: Final = 128
# How long accepting rests when the process or the system has no descriptor left; s.
EXHAUSTED_PAUSE: Final = 1.0


@lru_cache(maxsize=4096)
def client_group(address: str) -> str:
    """The address that limits count by: IPv6 by /64, since a host can pick the rest freely."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


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
        local: socket.socket | None,
        context: Callable[[], ssl.SSLContext],
        settings: Callable[[], DoorSettings],
        welcome: Callable[[Connection], Peer],
        clock: Callable[[], float],
    ) -> None:
        """local: where programs of this machine connect; None: nowhere. clock: for the time of
        peers.

        context, settings: as of the time of the call.
        """
        self._context = context
        self._settings = settings
        # All that have come over the network; and those of this machine's own programs.
        self.connections: dict[Connection, None] = {}
        self._local_ones: dict[Connection, None] = {}
        # Connections that are not logged in, the oldest first; how many, by the address that
        # limits count by.
        self._strangers: dict[Connection, None] = {}
        self._by_address: Counter[str] = Counter()
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets if local is None else [*sockets, local]
        self._empty = asyncio.Event()
        self._welcome = welcome
        self._clock = clock

    def open(self) -> None:
        """Let in who waits, and who comes."""
        for sock in self._sockets:
            self._loop.add_reader(sock, self._accept, sock)

    async def tick(self) -> None:
        """The second hand of every connection; runs until cancelled."""
        while True:
            await asyncio.sleep(1)
            now = self._clock()
            for number, connection in enumerate(self._all()):
                connection.tick(now)
                if number % 100 == 99:
                    await asyncio.sleep(0)

    def stop_accepting(self) -> None:
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self._sockets = []

    def _all(self) -> tuple[Connection, ...]:
        return *self._local_ones, *self.connections

    def known(self, connection: Connection) -> None:
        """A connection's client has logged in."""
        if self._strangers.pop(connection, connection) is None:
            self._by_address[connection.group] -= 1
            if not self._by_address[connection.group]:
                del self._by_address[connection.group]

    def unknown(self, connection: Connection) -> None:
        """It has not, or not any more."""
        if connection in self.connections and connection not in self._strangers:
            self._strangers[connection] = None
            self._by_address[connection.group] += 1

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, where = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error(
                    "can't accept a connection: %s; raise the limit of open files or lower"
                    " max_clients; trying again in %g s",
                    os.strerror(error.errno or 0),
                    EXHAUSTED_PAUSE,
                )
                self._loop.remove_reader(listener)
                self._loop.call_later(EXHAUSTED_PAUSE, self._resume, listener)
                return
            if sock.family == socket.AF_UNIX:
                self._greet_local(sock)
            else:
                self._greet(sock, str(where[0]), int(where[1]))

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._sockets:
            self._loop.add_reader(listener, self._accept, listener)

    def _greet(self, sock: socket.socket, address: str, port: int) -> None:
        group = client_group(address)
        if not self._has_room(address, group):
            sock.close()
            return
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            secure = self._context().wrap_socket(
                sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
            )
        except OSError:
            sock.close()
            return
        self._begin(secure, Caller(address, group, port=port))

    def relay(self, sock: socket.socket, caller: Caller) -> bool:
        """Take a connection that another part of us relays; False: there is no room for it.

        sock: non-blocking. It is closed with the connection, or here.
        """
        if not self._has_room(caller.address, caller.group):
            sock.close()
            return False
        plain = PlainSocket(sock.family, sock.type, fileno=sock.detach())
        plain.setblocking(False)
        self._begin(plain, caller)
        return True

    def _has_room(self, address: str, group: str) -> bool:
        """May another connection begin from there? It may cost another its place."""
        settings = self._settings()
        if self._by_address[group] >= settings.unauthenticated_per_address:
            log.debug(
                "%s: refused, it has too many connections that are not logged in", address
            )
            return False
        if len(self.connections) >= settings.max_clients + BEYOND:
            # Strangers keep nobody out: the oldest makes room for the next.
            oldest = next(iter(self._strangers), None)
            if oldest is None:
                log.debug("%s: refused, there are too many connections", address)
                return False
            log.debug("%s: it had to make room, not being logged in", oldest.address)
            oldest.abort()
        return True

    def _begin(self, sock: ssl.SSLSocket | PlainSocket, caller: Caller) -> None:
        connection = self._connection(sock, caller)
        self.connections[connection] = None
        self.unknown(connection)
        connection.begin()

    def _greet_local(self, sock: socket.socket) -> None:
        account = account_of(sock)
        if account is None or len(self._local_ones) >= LOCAL_CLIENTS:
            log.warning(
                "a local connection was refused: %s",
                "it is of another account" if account is None else f"there are {LOCAL_CLIENTS}",
            )
            sock.close()
            return
        here = PlainSocket(sock.family, sock.type, fileno=sock.detach())
        here.setblocking(False)
        connection = self._connection(here, Caller(LOCAL, LOCAL, account))
        self._local_ones[connection] = None
        connection.begin()

    def _connection(self, sock: ssl.SSLSocket | PlainSocket, caller: Caller) -> Connection:
        return Connection(
            self._loop,
            self._clock,
            sock,
            caller,
            self._settings().handshake_timeout,
            self,
            self._welcome,
        )

    def gone(self, connection: Connection) -> None:
        """A connection has ended."""
        self.known(connection)
        self.connections.pop(connection, None)
        self._local_ones.pop(connection, None)
        if not self._all():
            self._empty.set()

    async def close(self, code: int, reason: str, seconds: float) -> None:
        """Say goodbye to everybody, and wait so long for them to take it."""
        for connection in self._all():
            connection.close(code, reason)
        self._empty.clear()
        if self._all():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._empty.wait()
        for connection in self._all():
            connection.abort()
