"""The keeper's book: an append-only file of facts, one JSON line each. No process, no table.

The keeper writes it, the daemon reads it at its leisure: what stands in the book can't be lost
with a connection, and nobody has to acknowledge it. When the keeper is dead the guard and the
starters write it. What is said twice is said once. Standard library only.

    {"next": [uid, n], "at": T, "pid": P,
     "limit": B, "transit": N}                   a starter, this process, is told to begin it
    {"began": [uid, n], "pid": P,
     "since": T, "at": T}                        it has begun: its process was made in between
    {"end": [uid, n], "code": C, "time": W,
     "size": B, "begun": true}                   it has ended; begun false: it never began;
                                                 with "reason": what its log would say, if there
                                                 was no room for that
    {"barred": [uid, n]}                         its log was there before: it did not begin
    {"left": [uid, n]}                           it goes on, and nobody will know how it ends
    {"returned": [uid, n], "mark": M}            it was lent; the keeper will not begin it
    {"dead": true}                               the guard: the keeper is dead, nothing begins

T: s by the boot clock; C: 0..255, minus the signal, null: nobody knows; W: s since 1970; B:
bytes, null: the log is gone; M: the mark of that lending; N: which of the pipes between
(dispatcher/transits.py), missing: none. A new generation of the book begins,
whole at once, with the lines of what still runs; nothing is added to an older one after that.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Final

from dispatcher import words
from dispatcher.identity import boot_clock
from dispatcher.words import Fact

# Read at once; a longer book takes more turns.
_PORTION: Final = 256 * 1024
# Between two attempts to write on a disk that is full, s.
_RETRY: Final = 0.5
# How a book is opened by whoever writes it.
APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT

Line = dict[str, Any]


def path(room: Path, keeper: str, generation: int) -> Path:
    """The file of one generation of a keeper's book."""
    return room / f"{keeper}.{generation}.book"


def generations(room: Path, keeper: str) -> list[int]:
    """The generations that are there, oldest first."""
    names = (file.name.split(".") for file in room.glob(f"{keeper}.*.book"))
    return sorted(int(parts[1]) for parts in names if parts[1].isdigit())


def encode(line: Line) -> bytes:
    """One line, as it is written."""
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def began(job: list[int], pid: int, since: float) -> Line:
    """The line of a command that was found to have begun, between then and now."""
    return {"began": job, "pid": pid, "since": since, "at": boot_clock()}


def end(job: list[int], code: int | None, size: int | None, *, begun: bool = True) -> Line:
    """The line of a command's end, which is now. size: of its log."""
    return {"end": job, "code": code, "time": time.time(), "size": size, "begun": begun}


def refusal(job: list[int], code: int, text: str, written: int) -> Line:
    """The line of a command that could not be started. text: what its log says; as much of it
    as was written may be none, and then the book has it."""
    size = len(text.encode(errors="replace"))
    reason = {"reason": text} if written < size else {}
    return {**end(job, code, size), **reason}


def write(file: int, line: bytes) -> None:
    """Append a line to a book. Returns when it is in the file; waits while the disk is full."""
    # Begins with a line's end: part of a line may be there, ours or that of another writer that
    # has died, and must spoil no other.
    data = b"\n" + line
    while True:
        try:
            if os.write(file, data) == len(data):
                return
        except OSError:
            pass
        time.sleep(_RETRY)


class BookWriter:
    """The end that writes."""

    def __init__(self, room: Path, keeper: str, generation: int) -> None:
        self._room = room
        self._keeper = keeper
        self.generation = generation
        self.file = _open(path(room, keeper, generation))

    @property
    def path(self) -> Path:
        """Of the present generation."""
        return path(self._room, self._keeper, self.generation)

    def write(self, line: Line) -> None:
        """Returns when the line is in the file; waits while the disk is full."""
        write(self.file, encode(line))

    def facts(self) -> list[Fact]:
        """All that stands in the present generation."""
        lines = filter(None, self.path.read_bytes().splitlines())
        return [one for line in lines if (one := words.fact(line)) is not None]

    def turn(self, lines: list[Line]) -> None:
        """Begin a new generation with these lines. Raises: OSError; the old one goes on."""
        fresh = path(self._room, self._keeper, self.generation + 1)
        made = fresh.with_suffix(".new")
        made.unlink(missing_ok=True)
        file = _open(made)
        try:
            text = memoryview(b"".join(map(encode, lines)))
            while text:
                text = text[os.write(file, text) :]
            made.rename(fresh)
        except OSError:
            os.close(file)
            raise
        os.close(self.file)
        self.file = file
        self.generation += 1


class BookReader:
    """The end that reads: where it has got to, and what comes next."""

    def __init__(self, room: Path, keeper: str, generation: int, position: int) -> None:
        self._room = room
        self.keeper = keeper
        self.generation = generation
        self.position = position
        # The first line that was passed over, of those that are not torn.
        self.strange = b""
        # Was what was read last all that stood there?
        self.is_whole = False
        self._begin = os.fspath(room / keeper)

    def read(self) -> tuple[list[Fact], int, int]:
        """Facts behind the present position, and the generation and position behind them.

        A line without its end is left for later. Does not move: `move` does, after the commit.
        """
        generation, position = self.generation, self.position
        while True:
            # In this order: nothing is added to a generation when there is a newer one.
            turned = os.access(f"{self._begin}.{generation + 1}.book", os.F_OK)
            complete, position, left = self._complete(generation, position)
            if complete or not turned:
                break
            generation, position = generation + 1, 0
        self.is_whole = not (left or turned)
        facts: list[Fact] = []
        # Every second one is blank, and to take it for a mistake costs the most.
        for line in filter(None, complete.splitlines()):
            one = words.fact(line)
            if one is not None:
                facts.append(one)
            elif not self.strange and words.read(line):
                self.strange = line
        return facts, generation, position + len(complete)

    def move(self, generation: int, position: int) -> None:
        """What lies before is worked in; older generations may go."""
        for older in range(self.generation, generation):
            path(self._room, self.keeper, older).unlink(missing_ok=True)
        self.generation, self.position = generation, position

    def _complete(self, generation: int, position: int) -> tuple[bytes, int, int]:
        """Whole lines, a portion of them, or a single one that is longer; where they begin; and
        how many bytes stand behind them."""
        try:
            # No Path, no file object: this is asked for with each end of a command.
            file = os.open(f"{self._begin}.{generation}.book", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b"", 0, 0
        try:
            there = os.fstat(file).st_size
            if not 0 <= position <= there:
                # It was cut, or is another one: what is said twice is said once.
                position = 0
            size = min(_PORTION, there - position)
            while True:
                data = os.pread(file, size, position)
                end = data.rfind(b"\n") + 1
                if end or len(data) < size or size == there - position:
                    return data[:end], position, there - position - end
                size = min(2 * size, there - position)
        except OSError:
            return b"", position, 0
        finally:
            os.close(file)


def _open(path: Path) -> int:
    return os.open(path, APPEND, 0o600)
