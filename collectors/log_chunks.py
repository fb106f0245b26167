"""What is read of a log at a time: whole lines behind a position, past holes."""

from __future__ import annotations

from dataclasses import dataclass

from collectors import log_marks
from collectors.log_file import CHUNK, LogFile
from collectors.log_marks import Position


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines without their ends; the position behind them. cut: the last one was cut.

    lost: what was passed over unread before them, and why; empty: nothing.
    """

    lines: list[bytes]
    position: Position
    cut: bool = False
    lost: str = ""


def portion(file: LogFile, offset: int) -> bytes:
    """What is there, CHUNK at most. Raises: OSError, too if no line of it can be read."""
    data = file.read(offset, CHUNK)
    if b"\n" not in data and len(data) < CHUNK:
        # Is that the end, or can't it be read?
        file.read(offset + len(data), 1)
    return data


def next_lines(file: LogFile, at: Position) -> Chunk | None:
    """The lines behind the position, or what has to be passed over before them.

    None: there is no whole line. Raises: OSError.
    """
    data = portion(file, at.offset)
    if data[:1] == b"\0":
        return _past_zeros(file, at, data)
    end = data.rfind(b"\n") + 1
    if not end:
        if len(data) < CHUNK:
            return None
        if (hole := data.find(b"\0")) > 0:
            # It was torn: what follows the hole is another.
            position = log_marks.behind(at, file, at.offset + hole)
            return Chunk([] if at.skipping else [data[:hole]], position)
        # No line end in sight: the line is told as far as it is, the rest passed over.
        position = log_marks.behind(at, file, at.offset + len(data), skipping=True)
        return Chunk([] if at.skipping else [data], position, cut=not at.skipping)
    lines = data[: end - 1].split(b"\n")
    position = log_marks.behind(at, file, at.offset + end, lines=lines)
    if at.skipping:
        del lines[0]
    return Chunk(lines, position)


def _past_zeros(file: LogFile, at: Position, data: bytes) -> Chunk | None:
    """Behind the hole that a log has which was cut while its writer kept its place."""
    zeros = len(data) - len(data.lstrip(b"\0"))
    offset: int | None = at.offset + zeros
    if zeros == len(data):
        # At the end they may be data that has not arrived yet.
        offset = file.next_data(at.offset + zeros) if zeros == CHUNK else None
    if offset is None:
        return None
    return Chunk([], log_marks.behind(at, file, offset, skipping=at.skipping))


def rest(file: LogFile, at: Position) -> bytes | None:
    """The last line of a file that is over, if it has no end."""
    data = file.read(at.offset, CHUNK)
    return None if at.skipping or not data.strip(b"\0") else data
