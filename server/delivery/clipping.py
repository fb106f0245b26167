"""Log bytes as text that fits: clipping, markers, sizes counted as JSON. No file, no wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sysadmd.json_size import json_size
from sysadmd.text import whole_characters

# Bytes of a log that are measured at a time.
STEP: Final = 1024


def marker(left_out: int) -> str:
    """The line that stands where bytes of a log are left out."""
    return f"[... {left_out} bytes left out ...]\n"


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a log as they are in one event: from both ends of a range of `size` bytes.

    head and tail do not overlap. When they do not make up the whole range, or bytes of the
    file are gone, the difference is said in a marker between them.
    """

    head: bytes
    tail: bytes
    size: int


def clip(piece: Piece, limit: int) -> str:
    """The text of a piece, at most `limit` bytes as JSON: head, marker line, tail.

    Bytes that are not UTF-8 are replaced; a character is never cut.
    """
    if len(piece.head) + len(piece.tail) == piece.size:
        whole = (piece.head + piece.tail).decode("utf-8", "replace")
        if json_size(whole) <= limit:
            return whole
    # One line end before the marker, two bytes as JSON.
    room = max(0, limit - json_size(marker(piece.size)) - 2)
    head = _fit(piece.head, room // 2)
    tail = _fit(piece.tail or piece.head[len(head) :], room - room // 2, from_end=True)
    left_out = piece.size - len(head) - len(tail)
    # The marker is a line of its own.
    line = marker(left_out) if head[-1:] in (b"", b"\n") else "\n" + marker(left_out)
    return head.decode("utf-8", "replace") + line + tail.decode("utf-8", "replace")


def _fit(data: bytes, room: int, *, from_end: bool = False) -> bytes:
    """As much of one end of `data` as costs at most `room`, cut between characters.

    A step at a time: what a byte costs as JSON, one to six, nobody knows before.
    """
    taken = 0
    while taken < len(data):
        end = len(data) - taken
        step = data[max(0, end - STEP) : end] if from_end else data[taken : taken + STEP]
        step = whole_characters(step, from_end=from_end)
        cost = json_size(step.decode("utf-8", "replace"))
        if cost > room:
            step = _search(step, room, from_end=from_end)
        taken += len(step)
        room -= cost
        if room <= 0 or not step:
            break
    return data[len(data) - taken :] if from_end else data[:taken]


def _search(data: bytes, room: int, *, from_end: bool) -> bytes:
    low, high = 0, min(len(data), room)
    best = b""
    while low <= high:
        size = (low + high) // 2
        part = data[len(data) - size :] if from_end else data[:size]
        part = whole_characters(part, from_end=from_end)
        if json_size(part.decode("utf-8", "replace")) <= room:
            best, low = part, size + 1
            if size == high:
                break
        else:
            high = size - 1
    return best
