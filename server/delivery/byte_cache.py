"""What was made once and may be wanted again: the values used last, within so many bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class ByteCache(Generic[K, V]):
    """A cache that is bounded in bytes, since no number of items bounds what they hold."""

    def __init__(self, most: int) -> None:
        """most: bytes of all values together; one that is larger alone is not kept."""
        self._most = most
        self._size = 0
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def get(self, key: K) -> V | None:
        """The value, used just now; None: it is not, or no longer, here."""
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep a value of so many bytes, in place of an older one of this key."""
        before = self._values.pop(key, None)
        if before is not None:
            self._size -= before[1]
        self._values[key] = value, size
        self._size += size
        while self._size > self._most:
            _, (_, gone) = self._values.popitem(last=False)
            self._size -= gone
