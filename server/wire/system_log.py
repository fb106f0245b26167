"""The system's log, syslogd's or journald's: lines to its socket. Nobody waits for it.

Not by syslog(3), which waits for a syslogd that has stopped. What can't be taken at once is
dropped: the trail has it, too.
"""

from __future__ import annotations

import logging
import os
import socket
import syslog
from contextlib import suppress
from typing import Final

log = logging.getLogger(__name__)

# Where it listens on Linux, and on FreeBSD. Source: syslog(3) of both, <paths.h>.
PATHS: Final = ("/dev/log", "/var/run/log")


class SystemLog:
    """Says lines to whoever listens there at that moment."""

    def __init__(self) -> None:
        # Of facility auth, as sshd's: FreeBSD shows what is above info on the console.
        self._head = f"<{syslog.LOG_AUTH | syslog.LOG_INFO}>sysadmd[{os.getpid()}]: "
        self._is_heard = True

    def say(self, lines: list[str]) -> None:
        """A line each; one of them, or all, may be lost."""
        # Not connected: a syslogd that is started anew makes another socket at its path.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            for line in lines:
                heard = _send(sock, f"{self._head}{line}".encode())
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


def _send(sock: socket.socket, packet: bytes) -> bool:
    """False: nobody takes it."""
    for path in PATHS:
        with suppress(OSError):
            sock.sendto(packet, path)
            return True
    return False
