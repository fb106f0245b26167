"""Reads a log file to its end, each line once: across rotation, truncation and restarts.

A position is an inode, an offset and a fingerprint of the bytes before it. The fingerprint
decides: where it does not fit, the file is not the one that was read. What is left of that one
is looked for under the names that rotation gives (renamed, copied, compressed); then comes what
was written next: the oldest rotated file that has not been read, else the log. A file that has
a second name may be another's, linked to here: it is read if it is known, by its content or its
inode. Reads files; stores nothing, knows no message.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from collectors.log_file import CHUNK, FINGERPRINT, LogFile
from collectors.log_folder import FileRefused, LogFolder
from collectors.packed_log import is_packed
from sysadmd.text import printable

log = logging.getLogger(__name__)

# Bytes of the beginning, which has to fit, too; and by which a file that lost its end is told
# from one with other content: a line of a log has its moment in it.
HEAD: Final = 256
# Line ends before the offset that are remembered, and some older ones, ever further apart: of a
# file that lost its end, or had it rewritten, what stands before one of them has been read.
MARKS: Final = 32
# Of a mark's fingerprint so many characters are kept: the file is known by its head, too.
SHORT: Final = 16
# A renamed file is finished only when nothing has come for this long: who opened it before may
# still be writing; s.
ROTATION_GRACE: Final = 1.0
# bzip2 keeps a file's time in whole seconds; ns.
ROUNDING: Final = 1_000_000_000
# Rotated files that are looked at for the place where reading stopped.
CANDIDATES: Final = 32
# What a rotation adds to a log's name: a number or a date. What an admin puts beside it is no
# news (`.save`, `.errors`), unless the place where reading stopped is found in it.
_ROTATED: Final = re.compile(r"\d|\.old")


class Position(msgspec.Struct, frozen=True):
    """How far a log has been read. inode 0: nothing of it yet.

    skipping: in the middle of a line that was cut. modified: when the file had been written
    then, ns since 1970: rotated files that are not older have not been read, but for those in
    `done`, by inode and time. head: how the file begins. marks: ends of lines that were read,
    each with its fingerprint. linked: at the first look the log was a link, so that is how it
    was set up; None: there was nothing to see.
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


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines without their ends; the position behind them. cut: the last one was cut.

    lost: what was passed over unread before them, and why; empty: nothing.
    """

    lines: list[bytes]
    position: Position
    cut: bool = False
    lost: str = ""


class LogTail:
    """One log file by its name. Used by one thread at a time."""

    def __init__(
        self,
        path: Path,
        position: Position | None,
        clock: Callable[[], float],
        writers: Collection[str] = (),
    ) -> None:
        """position: None: never read before; what stands in the file now is passed over.

        writers: whose files are read, as LogFolder has it.
        """
        self.path = path
        self._folder = LogFolder(path.parent, writers)
        self._clock = clock
        self._first = position is None
        self._position = position or Position()
        # A link that leads out of the folder is followed if it was there from the first.
        self._linked = self._position.linked
        self._file: LogFile | None = None
        self._quiet_since: float | None = None
        # Rotated files that are passed over, by what `_name` says, and what is still to be told
        # of them.
        self._refused: set[tuple[int, int]] = set()
        self._lost: list[str] = []

    def close(self) -> None:
        """Let go of the file."""
        self._take(None)

    @property
    def unsettled(self) -> bool:
        """A rotation is being waited out: look again soon."""
        return self._quiet_since is not None

    def read(self) -> Chunk | None:
        """The next whole lines; None: there are none now. Raises: OSError.

        A change of place is a chunk of no lines: it has to be kept, too, or a restart would
        judge anew.
        """
        chunk = self._next()
        if self._lost:
            chunk = replace(chunk or Chunk([], self._position), lost="; ".join(self._lost))
            self._lost.clear()
        return chunk

    # Reading.

    def _next(self) -> Chunk | None:
        if self._linked is None:
            self._linked = self._folder.is_link(self.path.name)
        if self._first:
            return self._pass_over()
        if self._file is None:
            kept = self._position
            if not self._open():
                return None
            if self._position is not kept:
                return Chunk([], self._position)
        assert self._file is not None
        if not self._fits(self._file, self._position):
            self._changed(self._file)
            return Chunk([], self._position)
        chunk = self._lines(self._file)
        if chunk is not None:
            self._quiet_since = None
            self._position = chunk.position
            return chunk
        if not self._is_over(self._file):
            return None
        rest = self._rest(self._file)
        if not self._go_on(self._file):
            return None
        return Chunk([] if rest is None else [rest], self._position)

    def _pass_over(self) -> Chunk:
        """The very first look: begin behind what is there."""
        current = self._open_new(self.path)
        rotated = [info for info, _ in self._rotated_files()]
        if current is None:
            modified = max((info.st_mtime_ns for info in rotated), default=0)
            position = Position(modified=modified, linked=self._linked)
        else:
            self._take(current)
            size = current.size
            tail = current.read(max(0, size - 1), 1)
            position = self._at(current, size, skipping=bool(size) and tail != b"\n")
        self._position = msgspec.structs.replace(
            position, done=_since(position.modified, map(_name, rotated))
        )
        self._first = False
        return Chunk([], self._position)

    def _lines(self, file: LogFile) -> Chunk | None:
        at = self._position
        data = file.read(at.offset, CHUNK)
        if data[:1] == b"\0":
            return self._past_zeros(file, data)
        end = data.rfind(b"\n") + 1
        if not end:
            if len(data) < CHUNK:
                return None
            # No line end in sight: the line is told as far as it is, the rest passed over.
            position = self._at(file, at.offset + len(data), skipping=True)
            return Chunk([] if at.skipping else [data], position, cut=not at.skipping)
        lines = data[: end - 1].split(b"\n")
        position = self._at(file, at.offset + end, lines=lines)
        if at.skipping:
            del lines[0]
        return Chunk(lines, position)

    def _past_zeros(self, file: LogFile, data: bytes) -> Chunk | None:
        """Behind the hole that a log has which was cut while its writer kept its place."""
        at = self._position
        zeros = len(data) - len(data.lstrip(b"\0"))
        offset: int | None = at.offset + zeros
        if zeros == len(data):
            # At the end they may be data that has not arrived yet.
            offset = file.next_data(at.offset + zeros) if zeros == CHUNK else None
        if offset is None:
            return None
        return Chunk([], self._at(file, offset, skipping=at.skipping))

    def _rest(self, file: LogFile) -> bytes | None:
        """The last line of a file that is over, if it has no end."""
        data = file.read(self._position.offset, CHUNK)
        return None if self._position.skipping or not data else data

    def _at(
        self, file: LogFile, offset: int, *, skipping: bool = False, lines: Sequence[bytes] = ()
    ) -> Position:
        """The place in the file behind `lines`."""
        at = self._position
        info = file.info
        same = at.inode == info.st_ino and len(at.head) == min(offset, HEAD)
        fingerprint = file.fingerprint(offset)
        marks = list(at.marks if at.inode == info.st_ino else ())
        if not skipping:
            ends = [offset]
            for line in reversed(lines[1 - MARKS :]):
                ends.append(ends[-1] - len(line) - 1)
            marks += [(end, file.fingerprint(end)[:SHORT]) for end in reversed(ends[1:-1])]
            marks.append((offset, fingerprint[:SHORT]))
        return Position(
            info.st_ino,
            offset,
            fingerprint,
            skipping,
            info.st_mtime_ns,
            _since(info.st_mtime_ns, at.done),
            at.head if same else file.read(0, min(offset, HEAD)),
            _thinned(marks),
            self._linked,
        )

    def _fits(self, file: LogFile, position: Position) -> bool:
        head = position.head
        # Of what is compressed the head costs least.
        return (
            file.read(0, len(head)) == head
            and file.fingerprint(position.offset) == position.fingerprint
        )

    # Which file.

    def _open(self) -> bool:
        """Open the file that the position is in, else what was written after it."""
        at = self._position
        file = self._find_again(at)
        if file is None:
            return self._begin(at.modified, at.done)
        self._take(file)
        return True

    def _find_again(self, at: Position) -> LogFile | None:
        """The file of the position by whatever name; None: it is gone."""
        oldest = None if at.offset else self._oldest_since(at.modified, at.done)
        if oldest is not None:
            # Nothing was read of it, and an inode may be another's by now: what was written
            # next tells.
            if oldest.info.st_ino == at.inode:
                return oldest
            oldest.close()
            return None
        file = self._open_log()
        if file is not None and self._holds(file, at):
            return file
        if file is not None:
            file.close()
        return self._find(at) if at.inode else None

    def _holds(self, file: LogFile, at: Position) -> bool:
        """Is it the file of the position? If nothing of it was read, its inode tells."""
        return self._fits(file, at) if at.offset else file.info.st_ino == at.inode

    def _take(self, file: LogFile | None) -> None:
        if self._file is not None:
            self._file.close()
        self._file = file
        self._quiet_since = None

    def _changed(self, file: LogFile) -> None:
        """The file was cut, or rewritten: what was not read of it may be in a copy."""
        copy = self._find(self._position)
        if copy is not None:
            self._take(copy)
        else:
            self._place(file, self._position.modified, self._position.done)

    def _place(self, file: LogFile, modified: int, done: tuple[tuple[int, int], ...]) -> None:
        """Begin a file: at its beginning, or behind what has been read of it."""
        at, size = self._position, file.size
        nothing_yet = ((0, ""),)
        self._position = Position(
            file.info.st_ino,
            modified=modified,
            done=done,
            marks=nothing_yet,
            linked=self._linked,
        )
        known = file.info.st_ino == at.inode
        if at.offset and self._fits(file, at):
            # A copy of what was read.
            self._resume(file, at, at.offset, skipping=at.skipping)
        elif (offset := self._read_so_far(file, at)) is not None:
            self._resume(file, at, offset)
        elif known and 0 < size < at.offset and file.begins(at.head):
            # Cut to what stood there before the first look.
            start = max(0, size - CHUNK)
            data = file.read(start, size - start)
            # A line begins behind another, or behind a hole.
            end = start + max(data.rfind(b"\n"), data.rfind(b"\0")) + 1
            self._position = self._at(file, end, skipping=end == start > 0)

    def _resume(
        self, file: LogFile, at: Position, offset: int, *, skipping: bool = False
    ) -> None:
        """Go on in a file of which that much has been read under the position `at`."""
        marks = tuple(mark for mark in at.marks if mark[0] < offset)
        self._position = msgspec.structs.replace(self._position, marks=marks)
        self._position = self._at(file, offset, skipping=skipping)

    def _read_so_far(self, file: LogFile, at: Position) -> int | None:
        """How much of a file, whose end is missing or rewritten, is what was read before."""
        found: int | None = None
        # In this order what is compressed is unpacked once.
        for offset, fingerprint in at.marks:
            # A few equal lines may as well begin another file.
            likely = file.info.st_ino == at.inode or offset >= FINGERPRINT
            if (
                likely
                and file.begins(at.head[:offset])
                and file.fingerprint(offset)[:SHORT] == fingerprint
            ):
                found = offset
        return found

    def _is_over(self, file: LogFile) -> bool:
        """Has the log gone on in another file, and this one been quiet for long enough?"""
        try:
            folder, name = self._leads()
            named = folder.stat(name)
        except FileNotFoundError:
            # Renamed or deleted, and not there again yet.
            return False
        if os.path.samestat(named, file.info):
            return False
        now = self._clock()
        if self._quiet_since is None:
            self._quiet_since = now
        return now - self._quiet_since >= ROTATION_GRACE

    def _go_on(self, file: LogFile) -> bool:
        """This one is finished: go on with what was written next."""
        modified, damage = file.info.st_mtime_ns, file.damage
        done = _since(modified, (*self._position.done, _name(file.info)))
        if not self._begin(modified, done):
            return False
        if damage:
            self._lose(damage)
        return True

    def _lose(self, what: str) -> None:
        log.warning("in %s: %s", self.path.parent, what)
        self._lost.append(what)

    def _begin(self, modified: int, done: tuple[tuple[int, int], ...]) -> bool:
        """Open what was written next; False: there is nothing yet. Raises: OSError.

        Until it is open nothing changes: who fails looks again from the same place.
        """
        file = self._oldest_since(modified, done) or self._open_new(self.path)
        if file is None:
            return False
        self._take(file)
        self._place(file, modified, done)
        return True

    def _oldest_since(self, modified: int, done: tuple[tuple[int, int], ...]) -> LogFile | None:
        """The first of the rotated files that have not been read."""
        for info, path in self._unread(modified, done):
            try:
                file = self._open_new(path)
            except FileRefused as error:
                self._refused.add(_name(info))
                self._lose(f"{printable(path.name)} {error.strerror}; its lines are not told")
                continue
            if file is not None:
                return file
        return None

    def _open_log(self) -> LogFile | None:
        folder, name = self._leads()
        return folder.open(name)

    def _leads(self) -> tuple[LogFolder, str]:
        """Where the log is, if its name is a link."""
        return self._folder.leads(self.path.name, out=bool(self._linked))

    def _open_new(self, path: Path) -> LogFile | None:
        """A file whose content is not known; None: there is none. Raises: FileRefused."""
        known = self._position.inode
        if path == self.path:
            folder, name = self._leads()
            return folder.open_new(name, known=known)
        return self._folder.open_new(path.name, packed=is_packed(path), known=known)

    def _unread(
        self, modified: int, done: tuple[tuple[int, int], ...]
    ) -> list[tuple[os.stat_result, Path]]:
        """The rotated files that have not been read, the oldest first."""
        rotated = self._rotated_files()
        self._refused &= {_name(info) for info, _ in rotated}
        found = [
            (info, path)
            for info, path in rotated
            # Who compresses keeps the time but not the inode: at the same moment it is read.
            if info.st_mtime_ns >= modified + (is_packed(path))
            and _name(info) not in done
            and _name(info) not in self._refused
            and _ROTATED.search(path.name, len(self.path.name))
        ]
        return sorted(
            found, key=lambda f: (f[0].st_mtime_ns, f[0].st_ctime_ns, -_number(f[1]), f[1])
        )

    def _find(self, at: Position) -> LogFile | None:
        """What holds the position under another name: renamed, copied or compressed."""
        # The one of the same inode first, then the newest; none that was last written before.
        found = sorted(
            (info.st_ino != at.inode, -info.st_mtime_ns, path)
            for info, path in self._rotated_files()
            if info.st_ino == at.inode or info.st_mtime_ns > at.modified - ROUNDING
        )
        for *_, path in found[:CANDIDATES]:
            packed = is_packed(path)
            if packed and not at.offset:
                continue
            try:
                file = self._folder.open(path.name, packed=packed)
            except FileRefused:
                # If it holds what was not read, its turn comes to be told of.
                continue
            if file is not None and self._holds(file, at):
                return file
            if file is not None:
                file.close()
        return None

    def _rotated_files(self) -> list[tuple[os.stat_result, Path]]:
        rotated = self._folder.files(self.path.name)
        rotated.pop(self.path.name, None)
        paths = {self.path.with_name(name): info for name, info in rotated.items()}
        # Beside what it is made from it is being written still.
        return [
            (info, path)
            for path, info in paths.items()
            if not (is_packed(path) and path.stem in rotated)
        ]


def _name(info: os.stat_result) -> tuple[int, int]:
    """What a file is known by whatever it is called; an inode alone is soon another's."""
    return info.st_ino, info.st_mtime_ns


def _since(modified: int, files: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Those that could be taken for unread ones."""
    return tuple(file for file in files if file[1] >= modified)[-CANDIDATES:]


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


def _number(path: Path) -> int:
    """N of `log.N` and `log.N.gz`: the higher, the older. 0: there is none."""
    plain = path.with_suffix("") if is_packed(path) else path
    digits = plain.suffix[1:]
    return int(digits) if digits.isdecimal() else 0
