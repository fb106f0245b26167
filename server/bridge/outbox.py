"""Messages that wait for one peer of a bridge: no sender keeps out another. Pure.

Each sender has a queue, and they are taken from in turn, a message of each.
"""

from __future__ import annotations

from collections import deque
from typing import Final

# Bytes of one sender that wait. Two of ours keep below it by themselves, by the window of a
# sealed stream, 256 KiB. A record of n bytes is a message of 4/3 * (n + 26) in base64, and 55
# for the sender's id and the frame: 16 of 16 KiB are 343 KiB, 2,622 of 100 bytes 571 KiB. It
# would have to be full of shorter ones than 34 bytes.
OF_SENDER: Final = 1024 * 1024
# Bytes of all senders. Above it who would have more than his equal share is refused, so n of
# them can come to 1 + 1/2 + ... + 1/n of it: twenty to 14 MiB.
OF_ALL: Final = 4 * 1024 * 1024


class _Queue:
    """What waits of one sender."""

    __slots__ = ("messages", "sender", "size")

    def __init__(self, sender: str) -> None:
        self.sender = sender
        self.messages: deque[bytes] = deque()
        self.size = 0


class Outbox:
    """Messages by their senders. It is falsy when it is empty."""

    def __init__(self) -> None:
        self.size = 0
        self._queues: dict[str, _Queue] = {}
        self._turns: deque[_Queue] = deque()

    def __len__(self) -> int:
        """Senders of which something waits."""
        return len(self._turns)

    def put(self, sender: str, message: bytes) -> bool:
        """Add a message; False: there is no room for it."""
        queue = self._queues.get(sender)
        held = len(message) + (0 if queue is None else queue.size)
        if held > OF_SENDER:
            return False
        if self.size + len(message) > OF_ALL:
            senders = len(self._turns) + (queue is None)
            if held * senders > OF_ALL:
                return False
        if queue is None:
            queue = self._queues[sender] = _Queue(sender)
            self._turns.append(queue)
        queue.messages.append(message)
        queue.size = held
        self.size += len(message)
        return True

    def take(self, most: int) -> list[bytes]:
        """The next messages, and no more of them when they come to so many bytes."""
        taken: list[bytes] = []
        size = 0
        turns = self._turns
        while turns and size < most:
            queue = turns[0]
            message = queue.messages.popleft()
            queue.size -= len(message)
            if queue.messages:
                turns.rotate(-1)
            else:
                turns.popleft()
                del self._queues[queue.sender]
            taken.append(message)
            size += len(message)
        self.size -= size
        return taken
