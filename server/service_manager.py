"""Tell the service manager how we fare: ready, reloading, stopping. Waits and fails for nobody.

Source: sd_notify(3): datagrams of NAME=VALUE lines to the Unix socket that NOTIFY_SOCKET names.
Without it nobody is told, which is the rule on FreeBSD.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections import deque
from typing import Final

from sysadmd.machine import plainly
from sysadmd.text import printable

log = logging.getLogger(__name__)

# What waits for a manager that reads nothing just now. Above, the oldest goes: the newest says
# how things are.
HELD: Final = 16
# When to try again then; s.
RETRY: Final = 0.5


class ServiceManager:
    """Who has started us and wants to know. Event loop only, but for its making."""

    def __init__(self) -> None:
        # Taken out: no program that we start shall speak for us.
        name = os.environ.pop("NOTIFY_SOCKET", "")
        # A leading @ is the NUL of the abstract name space; a socket of another kind is none
        # that we can reach.
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._socket: socket.socket | None = None
        self._waiting: deque[bytes] = deque(maxlen=HELD)
        self._again: asyncio.TimerHandle | None = None
        if name.startswith(("@", "/")):
            with contextlib.suppress(OSError):
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)

    def ready(self, status: str) -> None:
        """Everything serves, or does so again after `reloading`."""
        self._tell("READY=1", f"STATUS={printable(status)}")

    def reloading(self) -> None:
        """The configuration is read anew; `ready` follows, whatever comes of that."""
        # On FreeBSD as on Linux that clock is the one meant.
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reading the configuration")

    def stopping(self, status: str) -> None:
        """The end has begun."""
        self._tell("STOPPING=1", f"STATUS={printable(status)}")

    def _tell(self, *lines: str) -> None:
        if self._socket is not None:
            self._waiting.append("\n".join(lines).encode())
            self._send(self._socket)

    def _send(self, to: socket.socket) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        while self._waiting:
            try:
                to.sendto(self._waiting[0], self._address)
            except BlockingIOError:
                # It has much unread. A start of which it never hears it would cut off.
                loop = asyncio.get_running_loop()
                self._again = loop.call_later(RETRY, self._send, to)
                return
            except (OSError, ValueError) as error:
                log.warning("the service manager can't be told how we fare: %s", plainly(error))
            self._waiting.popleft()
