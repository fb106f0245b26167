"""How long a file is that is to be downloaded, as its server says. No job, no class.

A server may be slow, endless or hostile: it is asked in a thread, and broken off in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from sysadmd.apart import apart

# How long it has to say so, s, in all.
PATIENCE: Final = 3.0
_REDIRECTIONS: Final = 5
_MOVED: Final = frozenset((301, 302, 303, 307, 308))
# Digits of a size.
_LONGEST: Final = 15


async def remote_size(url: str) -> int | None:
    """Bytes; None: it is not said, not in time, or not by a server of this kind (ftp)."""
    asking = _Asking(url)
    answer = apart(asking.size, "a file's size")
    await asyncio.wait((answer,), timeout=PATIENCE)
    if answer.done():
        return answer.result()
    asking.break_off()
    return None


class _Asking:
    """One question, over as many servers as redirect it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: http.client.HTTPConnection | None = None
        self._over = False

    def size(self) -> int | None:
        """For a thread."""
        try:
            for _ in range(_REDIRECTIONS):
                parts = urlsplit(self._url)
                if parts.scheme == "file":
                    return Path(unquote(parts.path)).stat().st_size
                if parts.scheme not in ("http", "https") or self._over:
                    return None
                status, length, location = self._head(parts)
                if status not in _MOVED or not location:
                    return length if status == 200 else None
                # Nobody is led to a file of ours.
                self._url = urljoin(self._url, location)
                if urlsplit(self._url).scheme == "file":
                    return None
        except Exception:  # noqa: BLE001 - whatever a stranger says: the download will tell
            return None
        return None

    def break_off(self) -> None:
        """Nobody waits for it any more."""
        self._over = True
        opened = self._connection.sock if self._connection else None
        if isinstance(opened, socket.socket):
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)

    def _head(self, parts: SplitResult) -> tuple[int, int | None, str]:
        """Status, length, and where it is now."""
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=PATIENCE)
        self._connection = connection
        with contextlib.closing(connection):
            path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
            connection.request("HEAD", path, headers={"User-Agent": "sysadmd"})
            response = connection.getresponse()
            length = response.getheader("Content-Length", "")
            known = length.isascii() and length.isdigit() and len(length) <= _LONGEST
            location = response.getheader("Location", "")
            return response.status, int(length) if known else None, location
