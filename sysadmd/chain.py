"""Marks of events: each names one event, and all that was told before it. Pure.

A mark is made of a few random bytes and of a hash over the mark of the event before it, these
bytes, and the event. So a history can be checked from end to end, and the same number in
another history, one that went on from a restored copy, has another mark, even where a clock
stood still and the same was told.
"""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Final

# Bytes of a mark: those that are random, and those of the hash. Against chance, not against
# who may write the file: he can make a whole chain anew.
_RANDOM: Final = 4
_HASH: Final = 12  # together 22 characters of base64url


def salt() -> bytes:
    """The random bytes of new marks."""
    return os.urandom(_RANDOM)


def mark(before: str, salt: bytes, said: str, body: bytes) -> str:
    """The mark of an event. before: that of the event before it, "" if it has none.

    said: all of the row but its body, as text.
    """
    whole = b"%s %s %s\n%s" % (before.encode(), salt.hex().encode(), said.encode(), body)
    digest = hashlib.sha256(whole).digest()[:_HASH]
    return base64.urlsafe_b64encode(salt + digest).decode().rstrip("=")


def is_mark(text: str, before: str, said: str, body: bytes) -> bool:
    """Is this the mark of this event?"""
    try:
        salt = base64.urlsafe_b64decode(text + "==")[:_RANDOM]
    except ValueError:
        return False
    return mark(before, salt, said, body) == text
