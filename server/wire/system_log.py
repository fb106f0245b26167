"""The system's log, syslogd's or journald's: lines to its socket. Nobody waits for it.

Not by syslog(3), which waits for a syslogd that has stopped. What can't be taken at once is
dropped: the trail has it, too.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import syslog
import time
from typing import Final

log = logging.getLogger(__name__)

# Where it listens on Linux, and on FreeBSD. Source: syslog(3) of both, <paths.h>.
PATHS: Final = ("/dev/log", "/var/run/log")
# Where nobody listens that is tried again after this, not with each commit; s.
REST: Final = 0.5
# Of a line that was not taken: who listens has no room, or none for one so long. Source:
# unix(4) and send(2); FreeBSD before 14 says ENOBUFS where others say EAGAIN.
_NOT_NOW: Final = (errno.EAGAIN, errno.ENOBUFS, errno.EMSGSIZE)


class SystemLog:
    """Says lines to whoever listens there at that moment."""

    def __init__(self) -> None:
        # Of facility auth, as sshd's: FreeBSD shows what is above info on the console.
        self._head = f"<{syslog.LOG_AUTH | syslog.LOG_INFO}>sysadmd[{os.getpid()}]: "
        self._is_heard = True
        # Not connected: a syslogd that is started anew makes another socket at its path.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        # Until when nobody is tried who was not there.
        self._rests = 0.0

    def close(self) -> None:
        """Nothing more is to be said."""
        self._socket.close()

    def say(self, lines: list[str]) -> None:
        """A line each; one of them, or all, may be lost."""
        if time.monotonic() < self._rests:
            return
        for line in lines:
            heard = self._send(f"{self._head}{line}".encode())
            if self._is_heard and not heard:
                log.info(
                    "the system's log takes nothing (%s): logins are in the trail alone,"
                    " until it does",
                    " or ".join(PATHS),
                )
            self._is_heard = heard
            if not heard:
                # Nor would be the others.
                break

    def _send(self, packet: bytes) -> bool:
        """False: nobody takes it."""
        is_there = False
        for path in PATHS:
            try:
                self._socket.sendto(packet, path)
            except OSError as error:
                is_there |= error.errno in _NOT_NOW
            else:
                return True
        if not is_there:
            self._rests = time.monotonic() + REST
        return False
