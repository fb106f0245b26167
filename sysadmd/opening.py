"""Opens WebSockets: to a server, whoever it has to prove to be. Says nothing on them."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.asyncio.client import unix_connect as open_local
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from sysadmd import unix_socket
from sysadmd.errors import BadRequest
from sysadmd.pins import key_pin
from sysadmd.target import Target, Unreachable, nobody

# How long opening a connection may take; s.
OPEN_TIMEOUT: Final = 15.0
# No frame of the server is longer than 512 KiB.
FRAME_LIMIT: Final = 1024 * 1024
LIMITS: Final[dict[str, Any]] = {
    "compression": None,
    "max_size": FRAME_LIMIT,
    "open_timeout": OPEN_TIMEOUT,
    "close_timeout": 1,
}


async def opened(
    target: Target, stack: contextlib.AsyncExitStack
) -> tuple[ClientConnection, str]:
    """A connection, which the stack closes, and the pin of who has answered.

    target: resolved. Raises: Unreachable; BadRequest if the cafile can't be used.
    """
    try:
        socket = await _open(target, stack)
    except (OSError, InvalidHandshake, InvalidURI, TimeoutError, UnicodeError) as error:
        if target.socket and isinstance(error, ConnectionRefusedError | FileNotFoundError):
            raise nobody(target.socket.parent) from error
        # A name that can't be one of a machine is a UnicodeError.
        raise Unreachable(f"{target.socket or target.url}: {reason(error)}") from error
    pin = (target.pin or "") if target.socket else peer_pin(socket)
    # An empty pin: whoever answers, to be asked for its pin.
    if target.pin and pin != target.pin:
        raise Unreachable(
            f"{target.url} has another key than the one that was pinned; if that is right,"
            " log in again"
        )
    return socket, pin


async def _open(target: Target, stack: contextlib.AsyncExitStack) -> ClientConnection:
    if target.socket is None:
        made = open_websocket(target.url, ssl=_context(target), proxy=None, **LIMITS)
        return await stack.enter_async_context(made)
    with unix_socket.short(target.socket) as path:
        return await stack.enter_async_context(open_local(path, **LIMITS))


def peer_pin(socket: ClientConnection) -> str:
    """The pin of the server that answered. Raises: Unreachable if it has no usable key."""
    secure = socket.transport.get_extra_info("ssl_object")
    try:
        return key_pin(secure.getpeercert(True))
    except ValueError as error:
        raise Unreachable(f"the server's certificate can't be read: {error}") from error


def _context(target: Target) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=target.cafile)
    except OSError as error:
        raise BadRequest(f"{target.cafile} has no certificates in it: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if target.pin is not None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def reason(error: BaseException) -> str:
    """What went wrong with a connection, for people."""
    if isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.reason:
        # What the server said is meant for people; the library tells it twice.
        return error.rcvd.reason
    return str(error) or type(error).__name__
