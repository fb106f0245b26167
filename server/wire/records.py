"""What has come on a socket, as it is read: alone, or all that is there. No frame, no peer."""

from __future__ import annotations

import contextlib
import ssl
from fcntl import ioctl
from termios import FIONREAD
from typing import Final

from server.wire.limits import READ_SIZE
from server.wire.local import PlainSocket

# What a socket says that has nothing to read now, or no room: with TLS, and without.
NOTHING_YET: Final = (ssl.SSLWantReadError, BlockingIOError)
NO_ROOM_YET: Final = (ssl.SSLWantWriteError, *NOTHING_YET)

# What the system says of a socket that has nothing to read: so many bytes, an int of C. To ask
# costs less than to read in vain, which is an exception.
_NO_BYTES: Final = bytes(4)


def read(sock: ssl.SSLSocket | PlainSocket, *, together: bool) -> bytes:
    """What is worked at in one go; b"": the end. Raises: OSError, of NOTHING_YET, too.

    together: also if it came as several records of TLS, which gives one at a time.
    """
    data = sock.recv(READ_SIZE)
    if not together or len(data) in (0, READ_SIZE):
        return data
    parts, room = [data], READ_SIZE - len(data)
    # The end, or an error, is met again by the next one who reads.
    with contextlib.suppress(OSError):
        while room and ioctl(sock.fileno(), FIONREAD, _NO_BYTES) != _NO_BYTES:
            parts.append(sock.recv(room))
            room -= len(parts[-1])
    return b"".join(parts)
