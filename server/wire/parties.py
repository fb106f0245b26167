"""Who has to do with a connection: who is at its other end, who uses it, and who keeps it; and
how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from websockets.http11 import Request, Response

if TYPE_CHECKING:
    from server.wire.connection import Connection


class Phase(Enum):
    HANDSHAKE = "TLS handshake"
    HTTP = "waiting for the HTTP request"
    OPEN = "open"
    CLOSING = "closing"
    LINGERING = "all said, reading what is in flight"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Relayed:
    """It has come over a bridge. pin: of the key that we have proved; key: the fingerprint of
    the one that the caller has."""

    pin: str
    key: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Who has connected, as far as a socket tells.

    group: what limits by address count by. local: the account of a program of this machine.
    port: there; None: it has none. relayed: how it has come, if not to a door of ours.
    """

    address: str
    group: str
    local: str | None = None
    port: int | None = None
    relayed: Relayed | None = None


class Peer(Protocol):
    """Who uses a connection: a session."""

    @property
    def member(self) -> bool: ...
    def http(self, request: Request, accept: Callable[[], Response]) -> Response: ...
    def text(self, text: str) -> None: ...
    def output(self, *, live: bool = False) -> bytes | None: ...
    def tick(self, now: float) -> None: ...
    def pong(self, said: bytes) -> None: ...
    def lost(self) -> None: ...


class Owner(Protocol):
    """Who keeps a connection: a listener."""

    def known(self, connection: Connection) -> None: ...
    def unknown(self, connection: Connection) -> None: ...
    def gone(self, connection: Connection) -> None: ...
