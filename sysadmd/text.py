"""Text that fools nobody and is cut between characters. No file, no wire."""

from __future__ import annotations

from typing import Final

# Characters of a text in an error.
QUOTED: Final = 256


def printable(text: str, *, lines: bool = False) -> str:
    """Control characters, directions, halves of characters as `\\x1b`, `\\u202e`, `\\ud800`.

    lines: line ends and tabs stay.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in text)


def quoted(value: object) -> str:
    """What an error quotes of what came: of a text the beginning, of lists nothing."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, str) and len(value) > QUOTED:
        return f"{value[:QUOTED]!r}..."
    return repr(value)


def whole_characters(data: bytes, *, from_end: bool = False) -> bytes:
    """Without the half of a UTF-8 character at its end or, `from_end`, at its beginning.

    Bytes that are plainly not UTF-8 are left as they are.
    """
    if from_end:
        start = 0
        while start < min(3, len(data)) and data[start] & 0xC0 == 0x80:
            start += 1
        return data[start:]
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        needed = 2 if byte >> 5 == 6 else 3 if byte >> 4 == 14 else 4 if byte >> 3 == 30 else 1
        return data[:-back] if needed > back else data
    return data
