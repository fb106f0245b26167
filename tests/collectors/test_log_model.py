"""The tail of a log against a simple model of it.

Whatever is done to a log and the files beside it: each line is told once, and a loss is allowed
only if it is told. Every line is different, as its moment makes it in life.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from collectors.log_chunks import Chunk
from collectors.log_file import CHUNK
from collectors.log_marks import MARKS, Position
from collectors.log_tail import ROTATION_GRACE, LogTail
from tests.kit.hand_clock import Clock


# The same examples each time: what is found once in thousands is no fault of the change at
# hand. Whoever works on the tail runs it with more, and without derandomize.
@settings(max_examples=150, stateful_step_count=20, derandomize=True)
class LogMachine(RuleBasedStateMachine):
    """What writers, rotations, packers, admins and crashes do, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.path = self.directory / "a.log"
        self.path.touch()
        self.away = self.directory / "away"
        self.away.mkdir()
        self.moment = 10**18
        self.written(self.path)
        self.clock = Clock()
        self.tail = LogTail(self.path, None, self.clock)
        self.number = 0
        self.lost_ends = 0
        self.half: tuple[bytes, bytes] | None = None
        self.wanted: list[bytes] = []
        # Told twice is allowed, or not at all, if it is told that a place was lost.
        self.endangered: set[bytes] = set()
        self.excused = False
        self.out_of_sight = False
        self.late: set[bytes] = set()
        self.told: list[str] = []
        self.position = Position()
        self.got: list[bytes] = []
        self.read()
        # From here on it is known that generations are counted from 0.
        self.rotate(1, write=False)
        self.judge()

    # What is written.

    def line(self) -> bytes:
        self.number += 1
        return b"Wed Nov 25 18:00:02 UTC 2026: line %d" % self.number

    def written(self, path: Path) -> None:
        """In life rotations are hours apart, here less than a file's time can tell."""
        self.moment += 10**9
        os.utime(path, ns=(self.moment, self.moment))

    def add(self, count: int = 1) -> None:
        lines = [self.line() for _ in range(count)]
        with self.path.open("ab") as out:
            out.write(b"".join(line + b"\n" for line in lines))
        self.written(self.path)
        self.wanted += lines

    # What is told.

    def read(self) -> None:
        """Read to the end; what was read is what a daemon has committed."""
        silent, chunks = 0, 0
        while silent < 3:
            silent += 1
            while (chunk := self.tail.read()) is not None:
                silent, chunks = 0, chunks + 1
                assert chunks < 1000, "it comes to no rest"
                self.got += _told(chunk)
                self.position = chunk.position
                self.told += [chunk.lost] if chunk.lost else []
            self.clock.now += ROTATION_GRACE + 0.1

    def judge(self) -> None:
        self.read()
        if self.told:
            assert self.excused, self.told
            missing = set(self.wanted) - set(self.got)
            assert missing <= self.endangered, missing
            self.wanted = [line for line in self.wanted if line not in missing]
            assert set(self.got) == set(self.wanted)
            self.got = list(self.wanted)
        assert sorted(self.got) == sorted(self.wanted)
        self.told, self.excused, self.out_of_sight = [], False, False
        self.endangered.clear()

    def see(self) -> None:
        """What came and went between two looks nobody can know of."""
        text, at = self.path.read_bytes(), self.position
        if (
            self.path.stat().st_ino != at.inode
            or not text[: at.offset].endswith(at.tail)
            or not text.startswith(at.head)
        ):
            self.judge()

    def unread(self, path: Path) -> set[bytes]:
        text = path.read_bytes()
        if path.suffix == ".gz":
            text = gzip.decompress(text)
        return {line.lstrip(b"\0") for line in text.split(b"\n")} - set(self.got)

    def endanger(self, path: Path) -> None:
        """What is not read of this file may be lost."""
        self.excused = True
        self.endangered |= self.unread(path)

    def rotated(self) -> list[Path]:
        return sorted(self.directory.glob("a.log.[0-9]*"))

    # What happens.

    @rule(count=st.integers(1, 5))
    @precondition(lambda self: self.half is None)
    def append(self, count: int) -> None:
        self.add(count)

    @rule(cut=st.integers(1, 30))
    def half_line(self, cut: int) -> None:
        with self.path.open("ab") as out:
            if self.half is not None:
                whole, rest = self.half
                out.write(rest + b"\n")
                self.wanted.append(whole)
                self.half = None
            else:
                whole = self.line()
                out.write(whole[:cut])
                self.half = (whole, whole[cut:])
        self.written(self.path)

    @rule()
    def look(self) -> None:
        self.judge()

    @rule(forget=st.booleans())
    def restart(self, forget: bool) -> None:
        self.tail.close()
        # Of an empty file only the inode is known, and that may be another's by now.
        self.excused |= not self.position.offset
        if forget:
            # As where a file system was mounted anew. By a hole nothing is known there.
            self.excused |= not self.position.tail.strip(b"\0")
            moved = {"device": self.position.device + 1} if self.position.offset else {}
            self.position = cast("Any", Position)(**{**_fields(self.position), **moved})
        self.tail = LogTail(self.path, self.position, self.clock)

    def shift(self) -> None:
        for number in range(60, -1, -1):
            for end in ("", ".gz"):
                old = self.directory / f"a.log.{number}{end}"
                if old.exists():
                    old.rename(self.directory / f"a.log.{number + 1}{end}")

    @rule(times=st.integers(1, 3), write=st.booleans())
    @precondition(lambda self: self.half is None)
    def rotate(self, times: int, write: bool) -> None:
        """newsyslog: .0 becomes .1, the log .0; several times before anyone looks."""
        for _ in range(times):
            self.shift()
            self.path.rename(self.directory / "a.log.0")
            self.path.touch()
            self.written(self.path)
            if write:
                self.add()

    @rule()
    @precondition(lambda self: self.half is None)
    def rotate_elsewhere(self) -> None:
        """newsyslog -a: what was not read of it is out of sight."""
        self.see()
        self.endanger(self.path)
        self.out_of_sight = True
        self.path.rename(self.away / f"{self.number}.{self.moment}")
        self.path.touch()
        self.written(self.path)
        self.add()

    @rule(times=st.integers(1, 2))
    @precondition(lambda self: self.half is None and self.path.stat().st_size > 0)
    def copy_and_truncate(self, times: int) -> None:
        self.judge()
        for _ in range(times):
            self.add()
            self.shift()
            shutil.copyfile(self.path, self.directory / "a.log.0")
            self.written(self.directory / "a.log.0")
            os.truncate(self.path, 0)
            self.written(self.path)

    @rule(index=st.integers(0, 5), keep_time=st.booleans())
    @precondition(lambda self: self.rotated())
    def pack_or_unpack(self, index: int, keep_time: bool) -> None:
        """As gzip does: the inode is another; a script's gives it another time, too."""
        old = self.rotated()[index % len(self.rotated())]
        # An empty file is known by nothing but its inode.
        self.excused |= not self.position.offset
        times = old.stat()
        if old.suffix == ".gz":
            new = old.with_suffix("")
            new.write_bytes(gzip.decompress(old.read_bytes()))
        else:
            new = old.with_name(old.name + ".gz")
            new.write_bytes(gzip.compress(old.read_bytes()))
        if keep_time:
            os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
        else:
            self.written(new)
        old.unlink()

    @rule(index=st.integers(0, 5))
    @precondition(lambda self: self.rotated())
    def delete(self, index: int) -> None:
        """A generation that is gone."""
        gone = self.rotated()[index % len(self.rotated())]
        if self.unread(gone) & self.late or self.out_of_sight or not self.position.offset:
            # Nobody can know of these: late lines, or what came after a file that is not here,
            # or was empty.
            self.judge()
        self.endanger(gone)
        gone.unlink()

    @rule(index=st.integers(0, 5))
    @precondition(lambda self: self.rotated())
    def late_line(self, index: int) -> None:
        """Into a file that was rotated, by who has had it open."""
        late = self.rotated()[index % len(self.rotated())]
        if late.suffix != ".gz":
            line = self.line()
            with late.open("ab") as out:
                out.write(line + b"\n")
            self.written(late)
            self.wanted.append(line)
            self.late.add(line)

    @rule(index=st.integers(0, 5))
    @precondition(lambda self: self.rotated())
    def touch(self, index: int) -> None:
        """The clock goes back, or somebody copies and restores."""
        os.utime(self.rotated()[index % len(self.rotated())], ns=(index, index))

    # By a single line, or where a hole was, nothing is known again.
    @rule(keep=st.integers(2, 40) | st.just(0), in_place=st.booleans())
    @precondition(
        lambda self: (
            self.half is None
            and b"\0" not in self.path.read_bytes()[-1024:]
            and self.path.read_bytes().count(b"\n") != 1
        )
    )
    def trim(self, keep: int, in_place: bool) -> None:
        """tail -n 20 log > new; mv new log (or cat new > log)."""
        self.see()
        if not self.position.offset:
            # An empty file that is empty again.
            self.judge()
        lines = self.path.read_bytes().splitlines(keepends=True)
        self.excused = True
        left = lines[-keep:] if keep else []
        self.endangered |= self.unread(self.path)
        if in_place:
            self.path.write_bytes(b"".join(left))
        else:
            new = self.directory / "new"
            new.write_bytes(b"".join(left))
            new.rename(self.path)
        self.written(self.path)

    @rule()
    def save(self) -> None:
        """An admin's copy; it is no news."""
        shutil.copyfile(self.path, self.directory / "a.log.save")
        self.written(self.directory / "a.log.save")

    @rule(cut=st.integers(1, 200))
    @precondition(lambda self: self.half is None and self.lost_ends < MARKS / 2)
    def lose_the_end(self, cut: int) -> None:
        """A file loses its end; a line that was half there is written to its end again."""
        self.judge()
        text = self.path.read_bytes()
        left = max(0, len(text) - cut)
        # Beyond the marks what is left may come again, in parts.
        self.lost_ends += text[left:].count(b"\n")
        os.truncate(self.path, left)
        self.written(self.path)
        # Lines of one day begin the same: by less than a line nothing is known, nor by a hole.
        self.excused |= b"\n" not in text[:left] or not text[:256].strip(b"\0")
        # Unseen, the same bytes in the same place would be the same line.
        self.judge()
        half = text[:left].rpartition(b"\n")[2]
        if half:
            with self.path.open("ab") as out:
                out.write(text[left : text.index(b"\n", left) + 1])
            line = text[left - len(half) : text.index(b"\n", left)]
            self.wanted += [line.lstrip(b"\0")] if line.strip(b"\0") else []
        self.written(self.path)

    @rule()
    @precondition(lambda self: self.half is None)
    def hole(self) -> None:
        """A writer that kept its place in a file which was cut."""
        os.truncate(self.path, self.path.stat().st_size + 3 * CHUNK)
        self.add()

    @rule(by=st.sampled_from((os.mkdir, os.mkfifo)))
    @precondition(lambda self: self.half is None)
    def no_file_for_a_while(self, by: Callable[[Path], None]) -> None:
        hidden = self.directory / "hidden"
        # What shows up meanwhile seems to have come after it.
        self.excused = True
        self.path.rename(hidden)
        by(self.path)
        for _ in range(3):
            with contextlib.suppress(OSError):
                while (chunk := self.tail.read()) is not None:
                    self.got += _told(chunk)
                    self.position = chunk.position
                    self.told += [chunk.lost] if chunk.lost else []
            self.clock.now += ROTATION_GRACE + 0.1
        (Path.rmdir if self.path.is_dir() else Path.unlink)(self.path)
        hidden.rename(self.path)

    def teardown(self) -> None:
        if self.half is not None:
            self.half_line(1)
        try:
            self.judge()
        finally:
            self.tail.close()
            shutil.rmtree(self.directory)


def _told(chunk: Chunk) -> list[bytes]:
    """Its lines; zeros before one are what a hole leaves."""
    return [line.lstrip(b"\0") for line in chunk.lines if line.strip(b"\0")]


def _fields(position: Position) -> dict[str, Any]:
    return {name: getattr(position, name) for name in position.__struct_fields__}


# Without a type in the hypothesis that we use.
TestLog = cast("Any", LogMachine).TestCase
