"""Text that nobody can be fooled by: what does not print is written out."""

from __future__ import annotations


def printable(text: str) -> str:
    """Control characters, directions and halves of characters as `\\x1b`, `\\u202e`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
