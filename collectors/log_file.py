"""A log file as bytes that can be read at any place. Knows no position, no name."""

from __future__ import annotations

import errno
import hashlib
import os
from typing import Final

# Read at a time, and the longest line.
CHUNK: Final = 64 * 1024
# Bytes before the offset that the fingerprint is of.
FINGERPRINT: Final = 1024


class LogFile:
    """An open log, which it closes."""

    # Why it ends where it should not, for people; empty: it does not.
    damage = ""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        os.close(self._descriptor)

    @property
    def info(self) -> os.stat_result:
        return os.fstat(self._descriptor)

    @property
    def size(self) -> int:
        return self.info.st_size

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes from there; fewer before the end, or before what can't be read.

        Raises: OSError, if not even the first can be read.
        """
        return os.pread(self._descriptor, size, offset)

    def fingerprint(self, offset: int) -> str:
        """Of the bytes before `offset`; fewer than there should be give another."""
        start = max(0, offset - FINGERPRINT)
        data = self.read(start, offset - start)
        if len(data) != offset - start:
            # Is that the end, or can't it be read?
            self.read(start + len(data), 1)
            return "short"
        return hashlib.sha256(data).hexdigest()[:32] if data else ""

    def begins(self, head: bytes) -> bool:
        """Does it begin so, as far as it goes?"""
        return head.startswith(self.read(0, len(head)))

    def next_data(self, offset: int) -> int | None:
        """Where data goes on behind a hole; None: it is a hole up to the end."""
        try:
            return os.lseek(self._descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            # ENXIO: nothing but the hole. Anything else: this file system can't tell.
            return None if error.errno == errno.ENXIO else offset
