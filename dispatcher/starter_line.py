"""The keeper's end of the line to a starter, and the command that this serves. Writes no book.

Standard library only.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Final

from dispatcher import book
from dispatcher.words import Commanded

# Read at once: what a starter says is short.
_PORTION: Final = 64 * 1024


@dataclass(slots=True)
class HandedOver:
    """A command that was handed over. began: its line in the book; hangs: that takes long.

    pipe: an end of its output's pipe, which keeps what is in it whoever dies.
    """

    order: Commanded
    following: book.Line
    pipe: int
    began: bytes = b""
    hangs: bool = False

    @property
    def job(self) -> list[int]:
        """Its job and number, as the book has them."""
        return [*self.order.job]

    @property
    def lines(self) -> list[book.Line]:
        """What a new generation of the book has to say of it."""
        return [self.following, *([json.loads(self.began)] if self.began else [])]


class StarterLine:
    """A starter, as the keeper knows it. command: that it serves now, None: none."""

    def __init__(self, pid: int, line: socket.socket, transit: int | None) -> None:
        """transit: the number of what its output passes through; None: of nothing."""
        line.setblocking(False)
        self.pid = pid
        self.line = line
        self.transit = transit
        self.command: HandedOver | None = None
        # The last one, if others have its output still.
        self.held: HandedOver | None = None
        # Which has ended last, and its limit: its pipe may not be put away yet.
        self.ended: tuple[list[int], int] | None = None
        self._heard = b""
        self.unsent = b""

    def send(self, data: bytes) -> None:
        """Hand it over, as far as it takes it now; the rest waits until it takes more."""
        self.unsent += data
        try:
            self.unsent = self.unsent[self.line.send(self.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            # It is dead: that is seen as its end.
            self.unsent = b""

    def hear(self) -> list[bytes]:
        """All whole lines that it has said by now."""
        while True:
            try:
                data = self.line.recv(_PORTION)
            except OSError:
                break
            self._heard += data
            if len(data) < _PORTION:
                break
        *lines, self._heard = self._heard.split(b"\n")
        return lines
