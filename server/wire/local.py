"""The door for programs of this machine: a Unix socket for root and the daemon's own account.

Who comes through it is known by what the kernel says of the peer, so it needs no certificate,
no token and no time to log in. Knows no request.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from sysadmd.errors import CannotStart
from sysadmd.machine import LOCAL_SOCKET

# Source: unix(4) and sys/ucred.h of FreeBSD, LOCAL_PEERCRED: struct xucred begins with version
# and user. unix(7) of Linux, SO_PEERCRED: struct ucred is process, user and group.
_SOL_LOCAL: Final = 0
_LOCAL_PEERCRED: Final = 1
_XUCRED_SIZE: Final = 256
# Who finds it full is not made to wait, but refused.
_BACKLOG: Final = 1024
# What who comes through it has for an address.
LOCAL: Final = "local"


class PlainSocket(socket.socket):
    """A connection without TLS that is used as one with it."""

    def do_handshake(self) -> None:
        """There is none."""

    def unwrap(self) -> None:
        """The end of the stream is all that there is to say."""

    def pending(self) -> int:
        """Nothing is decrypted ahead of its reader."""
        return 0

    def getpeercert(self) -> dict[str, Any] | None:
        """It has shown none."""
        return None


def bind() -> socket.socket:
    """Listen in the working directory, which is the state directory. Raises: CannotStart.

    Who has the directory's lock: a socket that is there was left by a daemon that is gone.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        Path(LOCAL_SOCKET).unlink(missing_ok=True)
        sock.bind(LOCAL_SOCKET)
        # The directory keeps others out; so does this where somebody has opened it.
        Path(LOCAL_SOCKET).chmod(0o600)
        sock.listen(_BACKLOG)
        for user in (0, os.geteuid()):
            # Later nobody waits for a directory service to say it.
            account_name(user)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise CannotStart(
            f"the state directory's {LOCAL_SOCKET} can't be made: {error.strerror}; make the"
            " directory writable, or name another one with --state-dir"
        ) from error
    return sock


def remove() -> None:
    """Nobody is to connect any more; who does all the same finds nobody there."""
    with suppress(OSError):
        Path(LOCAL_SOCKET).unlink()


def account_of(peer: socket.socket) -> str | None:
    """The account of who has connected, if it is root or our own; None: it is neither."""
    user = _user(peer)
    return account_name(user) if user in (0, os.geteuid()) else None


def _user(peer: socket.socket) -> int | None:
    """Whose process has connected; None: the system does not say."""
    try:
        if sys.platform.startswith("linux"):
            told = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return int(struct.unpack("3i", told)[1])
        told = peer.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_SIZE)
        return int(struct.unpack_from("2I", told)[1])
    except (OSError, struct.error):
        return None


@cache
def account_name(user: int) -> str:
    """What this user is called; the number, if nothing else."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
