"""GET on the daemon's own port: /healthz and /metrics. Decides nothing about what they say.

Nothing is said to a server that is not the one that is meant, not even HTTP.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final
from urllib.parse import urlsplit

from sysadmd import unix_socket
from sysadmd.no_opening import reason
from sysadmd.opening import FAILING, addresses, tls_context
from sysadmd.pins import key_pin
from sysadmd.target import Target, Unreachable

# Of an answer so much is read; bytes.
_LONGEST: Final = 4 * 1024 * 1024
_STATUS: Final = re.compile(r"HTTP/1\.[01] (\d{3})(?: |\r|$)", re.ASCII)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def get(target: Target, path: str) -> tuple[int, str]:
    """The status and the text of the answer. target: resolved, and no server over a bridge.

    Raises: Unreachable; BadRequest if the cafile can't be used.
    """
    try:
        reader, writer = await _opened(target)
        try:
            lines = [f"GET {path} HTTP/1.1", f"Host: {urlsplit(target.url).netloc}"]
            if target.token and target.socket is None and _is_value(target.token):
                lines.append(f"Authorization: Bearer {target.token}")
            writer.write("\r\n".join([*lines, "", ""]).encode("ascii", "replace"))
            return _understood(await _read(reader))
        finally:
            writer.transport.abort()
    except FAILING as error:
        raise Unreachable(f"{target.socket or target.url}: {reason(error)}") from error


def _is_value(token: str) -> bool:
    """May it stand in a header?"""
    return token.isascii() and token.isprintable()


async def _opened(target: Target) -> Streams:
    if target.socket is not None:
        with unix_socket.short(target.socket) as path:
            return await asyncio.open_unix_connection(path)
    parts, context = urlsplit(target.url), tls_context(target)
    hosts = await addresses(target.url)
    for number, host in enumerate(hosts, 1):
        try:
            reader, writer = await asyncio.open_connection(
                host, parts.port or 443, ssl=context, server_hostname=parts.hostname
            )
        except OSError:
            if number == len(hosts):
                raise
            continue
        if target.pin:
            secure = writer.get_extra_info("ssl_object")
            if key_pin(secure.getpeercert(True)) != target.pin:
                writer.transport.abort()
                raise Unreachable(f"{target.url} has another key than the one that was pinned")
        return reader, writer
    raise Unreachable(f"{target.url} has no address")


async def _read(reader: asyncio.StreamReader) -> str:
    """All of the answer, whose end is that of the connection."""
    parts: list[bytes] = []
    left = _LONGEST
    while left > 0 and (part := await reader.read(min(left, 65536))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts).decode("utf-8", "replace")


def _understood(text: str) -> tuple[int, str]:
    match = _STATUS.match(text)
    if match is None:
        raise ValueError("what answers there does not speak HTTP; is it sysadmd?")
    return int(match[1]), text.partition("\r\n\r\n")[2]
