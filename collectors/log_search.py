"""Where the place of reading is in a file that was cut, trimmed, edited or copied."""

from __future__ import annotations

import re
from collections.abc import Collection, Generator
from contextlib import suppress
from typing import Final

import msgspec

from collectors import log_marks
from collectors.log_file import CHUNK, FINGERPRINT, LogFile
from collectors.log_marks import EVERYTHING, SHORT, KnownFile, Position

# So far it is looked for; bytes. Life Preserver rotates its log at 3 MB.
SEARCHED: Final = 64 * 2**20
# A file is known by so many lines at least, all different: one may as well begin another.
LINES: Final = 2
# And by so many where that which was read is still there under another name: the next log may
# begin with the same, but then with few.
LINES_BESIDE: Final = 4
# The moment of a line: its time to the second, and behind or before that a day.
_TIME: Final = re.compile(rb"\d\d:\d\d:\d\d")
_MOMENT: Final = 80
_MOMENT_DIGITS: Final = 8


def place_known(
    file: LogFile, at: Position, others: Collection[tuple[int, int]]
) -> Position | None:
    """The place in one of the known files, behind what was read of it; None: it is none.

    others: device and inode of those that are elsewhere: the next log may hold the same.
    """
    strong = has_lines(file, LINES)
    for known in reversed(at.files or ()):
        identity = known.stamp[:2]
        if identity != log_marks.stamp_of(file)[:2] and (identity in others or not strong):
            continue
        offset = log_marks.recognise(file, known)
        if offset is None:
            continue
        skipping = known.skipping
        if offset == EVERYTHING:
            # If it lost its end, what stands behind the rest may be news.
            offset = file.size if known.offset == EVERYTHING else _left_of(file, known)
            skipping = file.read(max(0, offset - 1), 1) != b"\n"
        begun = log_marks.beginning(file, at)
        if known.marks:
            begun = msgspec.structs.replace(begun, marks=known.marks)
        return log_marks.behind(begun, file, offset, skipping=skipping)
    return None


def has_lines(file: LogFile, count: int) -> bool:
    """Does it begin with so many, all different?"""
    return len(set(file.read(0, FINGERPRINT).split(b"\n")[:-1])) >= count


def _left_of(file: LogFile, known: KnownFile) -> int:
    """How much of a known file, whose end is missing, was read for sure."""
    device, inode = known.stamp[:2]
    at = Position(inode, known.offset, head=known.head, marks=known.marks, device=device)
    return _read_so_far(file, at) or file.read(0, len(known.head)).rfind(b"\n") + 1


def found(at: Position, file: LogFile) -> Position | None:
    """The place of the position in a file that may have lost its end, its front or lines."""
    if not at.offset:
        return None
    if log_marks.holds(file, at):
        return log_marks.resumed(at, file, at.offset, skipping=at.skipping)
    if offset := _read_so_far(file, at):
        further = _last_read(file, at, offset)
        return log_marks.resumed(at, file, further or offset, edited=bool(further))
    if offset := _moved(file, at) or _last_read(file, at, 0):
        return log_marks.resumed(at, file, offset, edited=True, skipping=at.skipping)
    return None


def left(at: Position, file: LogFile) -> Position | None:
    """The place in a file of which so little is left that it may as well be another's.

    It begins like the one of the position and is the same by its inode.
    """
    info, size = file.info, file.size
    same = info.st_ino == at.inode and at.device in (0, info.st_dev)
    if not (at.offset and same and 0 < size < at.offset and file.begins(at.head)):
        return None
    if b"\n" not in file.read(0, len(at.head)):
        # Lines of one day begin the same.
        return None
    if (0, "") in at.marks:
        return log_marks.resumed(at, file, 0)
    # Cut to what stood there before the first look.
    start = max(0, size - CHUNK)
    data = file.read(start, size - start)
    # A line begins behind another, or behind a hole.
    end = start + max(data.rfind(b"\n"), data.rfind(b"\0")) + 1
    empty = msgspec.structs.replace(at, marks=((0, ""),))
    return log_marks.behind(empty, file, end, skipping=end == start > 0)


def begun_as(at: Position, file: LogFile, of: LogFile) -> Position | None:
    """The place in a file that begins as the one that was read: an older state of it.

    of: the one that was read, up to the position.
    """
    read, place = set[bytes](), 0
    for (line, end), (other, _) in zip(_lines(file, 0), _lines(of, 0), strict=False):
        if line != other or end > at.offset:
            break
        place = end
        if len(read) < LINES:
            read.add(line)
    return log_marks.resumed(at, file, place) if len(read) == LINES else None


def copied_out(file: LogFile, of: LogFile) -> int | None:
    """How much of a file stands in one piece in the other, as of what was copied out of it.

    None: not even its first lines. Raises: OSError.
    """
    head = file.read(0, log_marks.HEAD)
    head = head[: head.rfind(b"\n") + 1]
    if len(set(head.split(b"\n")[:-1])) < LINES:
        return None
    before, place = b"", 0
    while place < SEARCHED:
        data = of.read(place, CHUNK)
        if not data:
            return None
        if (index := (before + data).find(head)) >= 0:
            return _run(file, of, place - len(before) + index)
        before, place = data[-len(head) :], place + len(data)
    return None


def _run(file: LogFile, of: LogFile, start: int) -> int:
    """How many bytes of whole lines are the same from there on."""
    end = 0
    for (line, place), (other, _) in zip(_lines(file, 0), _lines(of, start), strict=False):
        if line != other:
            break
        end = place
    return end


def _read_so_far(file: LogFile, at: Position) -> int | None:
    """How much of a file, whose end is missing or rewritten, is what was read before."""
    last: int | None = None
    least = _lines_end(file)
    info = file.info
    same = info.st_ino == at.inode and at.device in (0, info.st_dev)
    # In this order what is compressed is unpacked once.
    for offset, fingerprint in at.marks:
        # One equal line may as well begin another file, and so may nothing.
        if (
            offset
            and (same or offset >= least)
            and file.begins(at.head[:offset])
            and file.fingerprint(offset)[:SHORT] == fingerprint
        ):
            last = offset
    return last


def _lines_end(file: LogFile) -> int:
    """Where the first lines of a file end by which it is known; beyond that, less is enough."""
    lines, end = set[bytes](), 0
    for line in file.read(0, FINGERPRINT).split(b"\n")[:-1]:
        lines.add(line)
        end += len(line) + 1
        if len(lines) == LINES:
            return end
    return FINGERPRINT


def _last_read(file: LogFile, at: Position, start: int) -> int | None:
    """Behind the newest of the lines that were read last, of those that are there still.

    As after an editor. Only lines with their moment in them are known to be the same, and what
    stands behind one.
    """
    lines = at.tail.split(b"\n")
    if at.skipping or lines[-1]:
        return None
    # The first is cut if there is more before it.
    lines = lines[len(at.tail) < at.offset : -1]
    numbers = {line: number for number, line in enumerate(lines)}
    dated = {line for line in lines if _is_dated(line)}
    newest, place, known = -1, None, 0
    for line, end in _lines(file, start):
        number = numbers.get(line, -1)
        follows = number == newest + 1 and end - len(line) - 1 == place
        if number > newest and (line in dated or follows):
            newest, place, known = number, end, known + 1
    return place if known >= LINES else None


def _moved(file: LogFile, at: Position) -> int | None:
    """The place in a file that lost its front: behind the lines that were read last."""
    lines = at.tail.split(b"\n")
    if at.skipping or lines[-1] or len(at.tail) < min(at.offset, FINGERPRINT):
        return None
    # One equal line may as well begin another file.
    if len(lines) < LINES + 1 or len(set(lines[-LINES - 1 : -1])) < LINES:
        return None
    least = b"\n".join(lines[-LINES - 1 :])
    before, place = b"", 0
    while place < min(file.size, SEARCHED):
        data = _portion(file, place)
        if not data:
            return None
        text = before + data
        end = place + len(data)
        at_text = end - len(text)
        index = text.find(least)
        while index >= 0:
            offset = at_text + index + len(least)
            start = max(0, index + len(least) - len(at.tail))
            seen = text[start : index + len(least)]
            begins = at_text + start == 0
            if at.tail.endswith(seen) and (len(seen) == len(at.tail) or begins):
                return offset
            index = text.find(least, index + 1)
        before, place = text[-len(at.tail) - len(least) :], end
    return None


def _lines(file: LogFile, start: int) -> Generator[tuple[bytes, int]]:
    """Whole lines from there on without their ends, each with the place behind it."""
    before, place = b"", start
    while place - start < SEARCHED and len(before) < CHUNK:
        data = _portion(file, place)
        if not data:
            return
        place += len(data)
        text = before + data
        end = place - len(text)
        *lines, before = text.split(b"\n")
        for line in lines:
            end += len(line) + 1
            yield line, end


def _portion(file: LogFile, place: int) -> bytes:
    """What is there; nothing if it can't be read, which is told when it is its turn."""
    with suppress(OSError):
        return file.read(place, CHUNK)
    return b""


def _is_dated(line: bytes) -> bool:
    start = line[:_MOMENT]
    digits = sum(48 <= byte <= 57 for byte in start)
    return digits >= _MOMENT_DIGITS and _TIME.search(start) is not None
