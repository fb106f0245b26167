"""Opens WebSockets: to a server, whoever it has to prove to be. Says nothing on them.

Until a server is known by its pin nothing is said to it, not even HTTP; and none sends us
elsewhere.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from functools import partial
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.asyncio.client import unix_connect as open_local
from websockets.exceptions import WebSocketException

from sysadmd import unix_socket
from sysadmd.apart import apart
from sysadmd.errors import BadRequest
from sysadmd.no_opening import reason
from sysadmd.path_faults import unreadable
from sysadmd.pins import key_pin
from sysadmd.target import Target, Unreachable, nobody

# How long opening a connection may take, over all addresses that a name has; of them so many
# are tried; s.
OPEN_TIMEOUT: Final = 15.0
ADDRESSES: Final = 3
# No frame of the server is longer than 512 KiB.
FRAME_LIMIT: Final = 1024 * 1024
LIMITS: Final[dict[str, Any]] = {
    "compression": None,
    "max_size": FRAME_LIMIT,
    "close_timeout": 1,
}
# What whoever answers can bring about: the library lets through what it did not expect.
FAILING: Final = (OSError, WebSocketException, TimeoutError, ValueError, LookupError)


async def opened(
    target: Target, stack: contextlib.AsyncExitStack
) -> tuple[ClientConnection, str]:
    """A connection, which the stack closes, and the pin of who has answered.

    target: resolved. Raises: Unreachable; BadRequest if the cafile can't be used.
    """
    try:
        made = await _open(target, stack)
    except FAILING as error:
        if target.socket and isinstance(error, ConnectionRefusedError | FileNotFoundError):
            raise nobody(target.socket.parent) from error
        # A name that can't be one of a machine is a UnicodeError.
        raise Unreachable(f"{target.socket or target.url}: {reason(error)}") from error
    return made, (target.pin or "") if target.socket else peer_pin(made)


async def _open(target: Target, stack: contextlib.AsyncExitStack) -> ClientConnection:
    if target.socket is not None:
        with unix_socket.short(target.socket) as path:
            opening = open_local(path, open_timeout=OPEN_TIMEOUT, **LIMITS)
            return await stack.enter_async_context(opening)
    context, hosts = tls_context(target), await addresses(target.url)
    for number, host in enumerate(hosts, 1):
        opening = _Straight(
            target.url,
            ssl=context,
            proxy=None,
            host=host,
            create_connection=cast("Any", partial(_Pinned, target)),
            open_timeout=OPEN_TIMEOUT / len(hosts),
            **LIMITS,
        )
        try:
            return await stack.enter_async_context(opening)
        except FAILING:
            if number == len(hosts):
                raise
    raise Unreachable(f"{target.url} has no address")


async def addresses(url: str) -> list[str]:
    """Of its host. Asked for in a thread of ours: who hangs there holds up nobody's end."""
    parts = urlsplit(url)
    ask = partial(
        socket.getaddrinfo, parts.hostname, parts.port or 443, type=socket.SOCK_STREAM
    )
    found = [str(where[0]) for *_, where in await apart(ask, "the address of a server")]
    return list(dict.fromkeys(found))[:ADDRESSES]


class _Straight(open_websocket):
    """Goes nowhere but where it was sent."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Pinned(ClientConnection):
    """Says nothing to who has another key than the one that is known."""

    def __init__(self, target: Target, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._target = target

    async def handshake(self, *given: Any, **more: Any) -> None:
        # An empty pin: whoever answers, to be asked for its pin.
        if self._target.pin and peer_pin(self) != self._target.pin:
            raise Unreachable(
                f"{self._target.url} has another key than the one that was pinned; if that is"
                " right, log in again"
            )
        await super().handshake(*given, **more)


def peer_pin(made: ClientConnection) -> str:
    """The pin of the server that answered. Raises: Unreachable if it has no usable key."""
    secure = made.transport.get_extra_info("ssl_object")
    try:
        return key_pin(secure.getpeercert(True))
    except ValueError as error:
        raise Unreachable(f"the server's certificate can't be read: {error}") from error


def tls_context(target: Target) -> ssl.SSLContext:
    """By which a server proves who it is; where it has a pin, that has to be compared, too.

    Raises: BadRequest.
    """
    try:
        context = ssl.create_default_context(cafile=target.cafile)
    except ssl.SSLError as error:
        raise BadRequest(
            f"{target.cafile} has no certificates in it; name a PEM file that has"
        ) from error
    except OSError as error:
        what = unreadable(Path(target.cafile or ""), error)
        raise BadRequest(f"{target.cafile} {what}; name a PEM file of certificates") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if target.pin is not None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
