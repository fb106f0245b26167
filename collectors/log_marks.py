"""What a log is known by, and how far it has been read: by its content, not by its name.

A position is a place in a file and what stands before it. A file that was read is remembered in
short: by its beginning, how far, and the bytes before that. Device, inode and time say only
where to look first: they change when a file is packed, and are soon another's.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Final

import msgspec

from collectors.log_file import FINGERPRINT, LogFile

# Bytes of the beginning, which has to fit, too; and by which a file that lost its end is told
# from one with other content: a line of a log has its moment in it.
HEAD: Final = 256
# Line ends before the offset that are remembered, and some older ones, ever further apart: of a
# file that lost its end, or had it rewritten, what stands before one of them has been read.
MARKS: Final = 32
# Of a mark's fingerprint so many characters are kept: the file is known by its head, too.
SHORT: Final = 16
# Instead of an offset: all that is in the file.
EVERYTHING: Final = -1
# And: nothing, as it could not be read, which was told.
UNREAD: Final = -2

Stamp = tuple[int, int, int, int]


class KnownFile(msgspec.Struct, frozen=True, array_like=True):
    """A file that is not read on, and how much of it has been read.

    head: its first bytes. offset: how much was read; EVERYTHING: whatever is in it; UNREAD:
    nothing yet, and it was told that it can't be.
    fingerprint: of the bytes before that. stamp: Generation.stamp when it was known last; a
    file that may not be read, or holds nothing, is known by that alone (head is empty). marks:
    as Position has them, of the one that was left last.
    """

    stamp: Stamp
    head: bytes = b""
    offset: int = EVERYTHING
    fingerprint: str = ""
    skipping: bool = False
    marks: tuple[tuple[int, str], ...] = ()


class Position(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a log has been read. inode 0: nothing of it yet.

    skipping: in the middle of a line that was cut. modified: when the file had been written
    then, ns since 1970. head: how the file begins. tail: the bytes before the offset. marks:
    ends of lines that were read, each with its fingerprint. linked: at the first look the log
    was a link, so that is how it was set up; None: there was nothing to see. lowest: the number
    that the newest rotated file has; missed: after how many rotations there was none of it.
    files: the other files that were read; None: kept by a version that knew them by inode and
    time: those before `modified`, and those in `done`. before: nor could any be listed so far:
    those before this moment were there at the first look; ns since 1970.
    """

    inode: int = 0
    offset: int = 0
    fingerprint: str = ""
    skipping: bool = False
    modified: int = 0
    done: tuple[tuple[int, int], ...] = ()
    head: bytes = b""
    marks: tuple[tuple[int, str], ...] = ()
    linked: bool | None = None
    device: int = 0
    tail: bytes = b""
    lowest: int | None = None
    missed: int = 0
    files: tuple[KnownFile, ...] | None = None
    before: int = 0


def known(file: LogFile, stamp: Stamp, offset: int, *, skipping: bool = False) -> KnownFile:
    """The file, of which that much has been read. Raises: OSError."""
    head = file.read(0, HEAD if offset == EVERYTHING else min(HEAD, offset))
    fingerprint = "" if offset == EVERYTHING else file.fingerprint(offset)[:SHORT]
    return KnownFile(stamp, head, offset, fingerprint, skipping)


def known_at(at: Position) -> KnownFile:
    """What the file of a position is known by."""
    return KnownFile(
        (at.device, at.inode, at.modified, at.offset),
        at.head,
        at.offset,
        at.fingerprint[:SHORT],
        at.skipping,
        at.marks,
    )


def recognise(file: LogFile, of: KnownFile) -> int | None:
    """How much of the file has been read, if it is the one that is known; EVERYTHING: all.

    None: it is another. A shorter one, whose end is missing, holds no news; unless it begins
    with a hole, by which nothing is known. Raises: OSError.
    """
    if not of.head:
        return None
    head = file.read(0, len(of.head))
    if not head or not of.head.startswith(head):
        return None
    # By a hole nothing is known.
    hole = not head.strip(b"\0")
    if len(head) < len(of.head):
        # Less than a line may begin many a file.
        return EVERYTHING if b"\n" in head and not hole else None
    if of.offset == EVERYTHING:
        return EVERYTHING
    fingerprint = file.fingerprint(of.offset)
    if fingerprint == "short" and not hole:
        return EVERYTHING
    if fingerprint[:SHORT] != of.fingerprint:
        return None
    before = max(0, of.offset - FINGERPRINT)
    if hole and not file.read(before, of.offset - before).strip(b"\0"):
        return None
    return of.offset


def beginning(file: LogFile, at: Position) -> Position:
    """Nothing is read of it yet."""
    info = file.info
    return Position(
        info.st_ino,
        modified=info.st_mtime_ns,
        marks=((0, ""),),
        linked=at.linked,
        device=info.st_dev,
        lowest=at.lowest,
        files=at.files,
    )


def nowhere(at: Position, files: tuple[KnownFile, ...]) -> Position:
    """In no file; these are known."""
    return Position(
        modified=at.modified,
        linked=at.linked,
        lowest=at.lowest,
        missed=at.missed,
        files=files,
        before=at.before,
    )


def stamp_of(file: LogFile) -> Stamp:
    """As Generation.stamp has it."""
    info = file.info
    return (info.st_dev, info.st_ino, info.st_mtime_ns, info.st_size)


def holds(file: LogFile, at: Position) -> bool:
    """Is it the file of the position? If nothing was read of it but a hole its inode tells."""
    info = file.info
    same = info.st_ino == at.inode and at.device in (0, info.st_dev)
    if not at.offset:
        # An inode is soon another's.
        return same and recognised(file, at.files or ()) is None
    if not (at.head.strip(b"\0") or at.tail.strip(b"\0")):
        return same and fits(file, at)
    return fits(file, at)


def recognised(file: LogFile, files: Sequence[KnownFile]) -> KnownFile | None:
    """Which of the known files it is by its content; of several what most was read of."""
    return max(all_recognised(file, files), key=amount, default=None)


def all_recognised(file: LogFile, files: Sequence[KnownFile]) -> Generator[KnownFile]:
    """All known files that it may be by its content, the newest first."""
    head = file.read(0, HEAD)
    for known in reversed(files):
        length = min(len(head), len(known.head))
        if (
            length
            and head[:length] == known.head[:length]
            and recognise(file, known) is not None
        ):
            yield known


def unchanged(known: KnownFile, stamp: Stamp) -> bool:
    """Since it was known? Of what may not be read the size is no news."""
    if known.offset == UNREAD:
        return False
    return known.stamp == stamp or (not known.head and known.stamp[:3] == stamp[:3])


def read_before(stamp: Stamp, at: Position, *, packed: bool) -> bool:
    """Had a version that knew files by inode and time read it, or was it there before the
    first look, which could not list it?"""
    _, inode, modified, _ = stamp
    # Who compresses keeps the time but not the inode: at the same moment it is read.
    return modified < (at.before or at.modified) + packed or (inode, modified) in at.done


def amount(known: KnownFile) -> float:
    """How much was read of it; bytes."""
    return math.inf if known.offset == EVERYTHING else known.offset


def is_same(known: KnownFile, file: LogFile) -> bool:
    """Is the known file this one? An inode may be another's by now, or hold something else."""
    return known.stamp[:2] == stamp_of(file)[:2] and (
        not known.head or recognise(file, known) is not None
    )


def fits(file: LogFile, at: Position) -> bool:
    """Is it the file of the position, which is at that place in it?"""
    # Of what is compressed the head costs least.
    return (
        file.read(0, len(at.head)) == at.head and file.fingerprint(at.offset) == at.fingerprint
    )


def behind(
    at: Position,
    file: LogFile,
    offset: int,
    *,
    skipping: bool = False,
    lines: Sequence[bytes] = (),
) -> Position:
    """The place in the file behind `lines`. at: the place before them, in it or another."""
    info = file.info
    same = (at.device, at.inode) == (info.st_dev, info.st_ino)
    whole = same and len(at.head) == min(offset, HEAD)
    tail = file.read(max(0, offset - FINGERPRINT), min(offset, FINGERPRINT))
    fingerprint = file.fingerprint(offset)
    marks = list(at.marks if same else ())
    # By a hole nothing is known.
    if not skipping and (tail.strip(b"\0") or not offset):
        ends = [offset]
        for line in reversed(lines[1 - MARKS :]):
            ends.append(ends[-1] - len(line) - 1)
        marks += [(end, file.fingerprint(end)[:SHORT]) for end in reversed(ends[1:-1])]
        marks.append((offset, fingerprint[:SHORT]))
    return msgspec.structs.replace(
        at,
        inode=info.st_ino,
        device=info.st_dev,
        offset=offset,
        fingerprint=fingerprint,
        skipping=skipping,
        modified=info.st_mtime_ns,
        head=at.head if whole else file.read(0, min(offset, HEAD)),
        tail=tail,
        marks=_thinned(marks),
    )


def carried(place: Position, at: Position, files: tuple[KnownFile, ...] | None) -> Position:
    """The place, with what is known at another one of the log as a whole."""
    return msgspec.structs.replace(
        place, files=files, lowest=at.lowest, missed=at.missed, before=at.before
    )


def resumed(
    at: Position, file: LogFile, offset: int, *, edited: bool = False, skipping: bool = False
) -> Position:
    """The place in a file of which that much has been read under the position `at`.

    edited: what stands before it is not as it was.
    """
    marks = tuple(mark for mark in at.marks if mark[0] < offset) if not edited else ()
    info = file.info
    moved = msgspec.structs.replace(
        at, marks=marks, inode=info.st_ino, device=info.st_dev, head=b"" if edited else at.head
    )
    return behind(moved, file, offset, skipping=skipping)


def _thinned(marks: Sequence[tuple[int, str]]) -> tuple[tuple[int, str], ...]:
    """The newest, the oldest, and between them ever fewer."""
    older, newest = marks[:-MARKS], marks[-MARKS:]
    if not older:
        return tuple(newest)
    end = newest[-1][0]
    kept: list[tuple[int, str]] = []
    distance = end - newest[0][0]
    for mark in reversed(older[1:]):
        if end - mark[0] >= 2 * distance:
            kept.append(mark)
            distance = end - mark[0]
    return (older[0], *reversed(kept), *newest)
