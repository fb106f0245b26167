"""Frames as the server writes them, cut apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def texts(received: bytes | bytearray) -> Iterator[dict[str, Any]]:
    """The JSON texts in frames as the server writes them."""
    at = 0
    while at < len(received):
        size, head = received[at + 1], 2
        if size >= 126:
            head = 4 if size == 126 else 10
            size = int.from_bytes(received[at + 2 : at + head], "big")
        yield json.loads(received[at + head : at + head + size])
        at += head + size
