"""The keeper's end of the line to its daemon: JSON lines, both ways. Knows no command.

There is one daemon at a time, the last one that called. Neither a daemon that does not read nor
one that dies holds the keeper up: whatever it has to know stands in the book. Standard library
only.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Container
from pathlib import Path
from typing import Final

# What is said when there is something new in the book.
NEWS: Final = b"\n"
# Read from the daemon at once; a request has up to some hundred KiB.
_PORTION: Final = 256 * 1024
# The daemon falls silent inside a request only if it is broken; its requests are far smaller.
_LONGEST: Final = 4 * 1024 * 1024


class DaemonLine:
    """Where the daemon calls, and the daemon that has. called: one ever did."""

    def __init__(
        self,
        path: Path,
        poll: select.poll,
        obey: Callable[[bytes], object],
        forget: Callable[[], object],
    ) -> None:
        """poll: what the keeper waits with. obey: given each line that the daemon says. forget:
        called when it is gone; what it still wanted is not to be done."""
        self.called = False
        self._path = path
        self._poll = poll
        self._obey = obey
        self._forget = forget
        self._daemon: socket.socket | None = None
        self._heard = bytearray()
        self._unsent = bytearray()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(4)
        self._listener.setblocking(False)
        poll.register(self._listener, select.POLLIN)

    @property
    def is_up(self) -> bool:
        """Is there a daemon?"""
        return self._daemon is not None

    def prepare(self) -> None:
        """To be called before each wait: what has no room waits for it."""
        if self._daemon is not None:
            events = select.POLLIN | (select.POLLOUT if self._unsent else 0)
            self._poll.register(self._daemon, events)

    def attend(self, ready: Container[int]) -> None:
        """See to what the wait has shown."""
        if self._daemon is not None and self._daemon.fileno() in ready:
            self.tell(b"")
            self._hear()
        if self._listener.fileno() in ready:
            self._welcome()

    def tell(self, data: bytes) -> None:
        """Say this, if there is a daemon; news that it has not read yet is enough."""
        if self._daemon is None or (data == NEWS and self._unsent):
            return
        self._unsent += data
        try:
            sent = self._daemon.send(self._unsent) if self._unsent else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._hang_up()
            return
        del self._unsent[:sent]

    def close(self) -> None:
        """Nobody is to call any more."""
        self._path.unlink(missing_ok=True)

    def _welcome(self) -> None:
        try:
            daemon, _ = self._listener.accept()
        except OSError:
            return
        daemon.setblocking(False)
        # What the last one still wanted, this one knows better.
        self._hang_up()
        self._daemon = daemon
        self._poll.register(daemon, select.POLLIN)
        self.called = True

    def _hang_up(self) -> None:
        if self._daemon is not None:
            self._poll.unregister(self._daemon)
            self._daemon.close()
        self._daemon = None
        self._heard.clear()
        self._unsent.clear()
        self._forget()

    def _hear(self) -> None:
        """All that it has said by now: if it hung up after that, its orders are forgotten."""
        while self._daemon is not None:
            try:
                data = self._daemon.recv(_PORTION)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self._heard += data
            if not data or len(self._heard) > _LONGEST:
                self._hang_up()
                return
            *lines, rest = self._heard.split(b"\n")
            self._heard = bytearray(rest)
            for line in lines:
                self._obey(bytes(line))
