"""The bytes of a server's text frame, made once for any number of connections."""

from __future__ import annotations


def text_frame(payload: bytes) -> bytes:
    """An unmasked, final text frame (RFC 6455, 5.2); no extension changes it."""
    size = len(payload)
    if size < 126:
        return b"\x81" + size.to_bytes(1, "big") + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload
