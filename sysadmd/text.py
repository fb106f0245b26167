"""Text that fools nobody and is cut between characters; its size as JSON. No file, no wire."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec

_encode: Final = msgspec.json.Encoder().encode


class _WrittenOut:
    """For str.translate: what does not print as its escape, everything else as it is."""

    def __init__(self, kept: str) -> None:
        # Most texts have few different characters.
        self._cached = lru_cache(maxsize=1024)(self._shown)
        self._kept = kept

    def __getitem__(self, code: int) -> str:
        return self._cached(code)

    def _shown(self, code: int) -> str:
        char = chr(code)
        return char if char.isprintable() or char in self._kept else ascii(char)[1:-1]


_ALL: Final = _WrittenOut("")
_LINES: Final = _WrittenOut("\n\t")


def printable(text: str, *, lines: bool = False) -> str:
    """Control characters, directions, halves of characters as `\\x1b`, `\\u202e`, `\\ud800`.

    lines: line ends and tabs stay.
    """
    return text if text.isprintable() else text.translate(_LINES if lines else _ALL)


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


def json_size(text: str) -> int:
    """Bytes of this text inside a JSON string, escapes included, quotes not."""
    return len(_encode(text)) - 2
