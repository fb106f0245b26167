"""The tail of a log against a simple model: each line once, whatever happens to the file."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from collectors.log_file import CHUNK
from collectors.log_tail import MARKS, ROTATION_GRACE, LogTail, Position
from tests.kit import needs_root


class Clock:
    """A clock that the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def drain(tail: LogTail, clock: Clock) -> Iterator[bytes]:
    """All lines that are there, rotations waited out."""
    for _ in range(6):
        while (chunk := tail.read()) is not None:
            yield from chunk.lines
        clock.now += ROTATION_GRACE + 0.1


@settings(max_examples=40, stateful_step_count=20)
class LogMachine(RuleBasedStateMachine):
    """Appends, half lines, rotations and restarts in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.path = self.directory / "a.log"
        self.path.touch()
        self.moment = 10**18
        self.written(self.path)
        self.clock = Clock()
        self.tail = LogTail(self.path, None, self.clock)
        self.number = 0
        self.half = False
        self.lost = 0
        self.whole = self.rest = b""
        self.wanted: list[bytes] = []
        self.position = Position()
        self.got: list[bytes] = []
        self.read()

    def line(self) -> bytes:
        self.number += 1
        return b"Wed Nov 25 18:00:02 UTC 2026: line %d" % self.number

    def read(self) -> None:
        """Read to the end; what was read is what a daemon has committed."""
        for _ in range(80):
            while (chunk := self.tail.read()) is not None:
                self.got += chunk.lines
                self.position = chunk.position
            self.clock.now += ROTATION_GRACE + 0.1

    def written(self, path: Path) -> None:
        """In life rotations are hours apart, here less than a file's time can tell."""
        self.moment += 10**9
        os.utime(path, ns=(self.moment, self.moment))

    @rule(count=st.integers(1, 5))
    @precondition(lambda self: not self.half)
    def append(self, count: int) -> None:
        lines = [self.line() for _ in range(count)]
        with self.path.open("ab") as out:
            out.write(b"".join(line + b"\n" for line in lines))
        self.written(self.path)
        self.wanted += lines

    @rule(cut=st.integers(1, 30))
    def half_line(self, cut: int) -> None:
        with self.path.open("ab") as out:
            if self.half:
                out.write(self.rest + b"\n")
                self.wanted.append(self.whole)
            else:
                self.whole = self.line()
                self.rest = self.whole[cut:]
                out.write(self.whole[:cut])
        self.written(self.path)
        self.half = not self.half

    @rule()
    def look(self) -> None:
        self.read()
        assert self.got == self.wanted

    @rule()
    def restart(self) -> None:
        self.tail.close()
        self.tail = LogTail(self.path, self.position, self.clock)

    def shift(self) -> None:
        for number in range(60, -1, -1):
            for end in ("", ".gz"):
                old = self.directory / f"a.log.{number}{end}"
                if old.exists():
                    old.rename(self.directory / f"a.log.{number + 1}{end}")

    @rule(again=st.booleans())
    @precondition(lambda self: not self.half)
    def rename(self, again: bool) -> None:
        """newsyslog: .0 becomes .1, the log .0; with `again` twice before anyone looks."""
        for _ in range(1 + again):
            self.shift()
            self.path.rename(self.directory / "a.log.0")
            self.path.touch()
            self.written(self.path)
            self.append(1)

    @rule(again=st.booleans())
    @precondition(lambda self: not self.half and self.path.stat().st_size > 0)
    def copy_and_truncate(self, again: bool) -> None:
        self.read()
        for _ in range(1 + again):
            self.append(1)
            self.shift()
            shutil.copyfile(self.path, self.directory / "a.log.0")
            self.written(self.directory / "a.log.0")
            os.truncate(self.path, 0)
            self.written(self.path)

    @rule()
    @precondition(lambda self: (self.directory / "a.log.0").exists())
    def compress(self) -> None:
        """As gzip does: the time is kept, the inode is another."""
        plain, packed = self.directory / "a.log.0", self.directory / "a.log.0.gz"
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        times = plain.stat()
        os.utime(packed, ns=(times.st_atime_ns, times.st_mtime_ns))
        plain.unlink()

    @rule()
    def save(self) -> None:
        """An admin's copy; it is no news."""
        self.read()
        shutil.copyfile(self.path, self.directory / "a.log.save")
        self.written(self.directory / "a.log.save")

    @rule(cut=st.integers(1, 200))
    @precondition(lambda self: not self.half and self.lost < MARKS / 2)
    def lose_the_end(self, cut: int) -> None:
        """A file loses its end; a line that was half there is written to its end again."""
        self.read()
        text = self.path.read_bytes()
        left = max(0, len(text) - cut)
        # Beyond the marks what is left may come again, in parts.
        self.lost += text[left:].count(b"\n")
        os.truncate(self.path, left)
        self.written(self.path)
        # Unseen, the same bytes in the same place would be the same line.
        self.read()
        half = text[:left].rpartition(b"\n")[2]
        if half:
            with self.path.open("ab") as out:
                out.write(text[left : text.index(b"\n", left) + 1])
            line = text[left - len(half) : text.index(b"\n", left)]
            self.wanted += [line.lstrip(b"\0")] if line.strip(b"\0") else []
        self.written(self.path)

    @rule()
    @precondition(lambda self: not self.half)
    def hole(self) -> None:
        """A writer that kept its place in a file which was cut."""
        os.truncate(self.path, self.path.stat().st_size + 3 * CHUNK)
        self.append(1)

    @rule(by=st.sampled_from((os.mkdir, os.mkfifo)))
    @precondition(lambda self: not self.half)
    def no_file_for_a_while(self, by: Callable[[Path], None]) -> None:
        hidden = self.directory / "hidden"
        self.path.rename(hidden)
        by(self.path)
        for _ in range(3):
            with contextlib.suppress(OSError):
                while (chunk := self.tail.read()) is not None:
                    self.got += chunk.lines
                    self.position = chunk.position
            self.clock.now += ROTATION_GRACE + 0.1
        (Path.rmdir if self.path.is_dir() else Path.unlink)(self.path)
        hidden.rename(self.path)

    def teardown(self) -> None:
        if self.half:
            self.half_line(1)
        self.read()
        self.tail.close()
        shutil.rmtree(self.directory)
        assert self.got == self.wanted


# Without a type in the hypothesis that we use.
TestLog = cast("Any", LogMachine).TestCase


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "a.log"
    path.touch()
    return path


def test_what_stood_there_before_the_first_look_is_passed_over(log: Path) -> None:
    log.write_bytes(b"old\nhalf of a li")
    tail = LogTail(log, None, Clock())
    assert list(drain(tail, Clock())) == []
    with log.open("ab") as out:
        out.write(b"ne\nnew\n")
    assert list(drain(tail, Clock())) == [b"new"]
    tail.close()


def test_an_inode_that_a_later_log_has_got_hides_no_older_one(log: Path) -> None:
    for number in (2, 1):
        rotated = log.with_name(f"a.log.{number}")
        rotated.write_bytes(b"of %d\n" % number)
        moment = (5 - number) * 10**9
        os.utime(rotated, ns=(moment, moment))
    # The empty file that was looked at first was deleted, and its inode used again.
    position = Position(inode=rotated.stat().st_ino, modified=10**9, marks=((0, ""),))
    clock = Clock()
    tail = LogTail(log, position, clock)
    assert list(drain(tail, clock)) == [b"of 2", b"of 1"]
    tail.close()


def test_a_file_that_comes_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    clock = Clock()
    tail = LogTail(tmp_path / "later.log", None, clock)
    assert list(drain(tail, clock)) == []
    (tmp_path / "later.log").write_bytes(b"first\n")
    assert list(drain(tail, clock)) == [b"first"]
    tail.close()


def test_lines_that_were_rotated_and_compressed_while_nobody_looked_are_read(log: Path) -> None:
    clock = Clock()
    tail = LogTail(log, None, clock)
    list(drain(tail, clock))
    with log.open("ab") as out:
        out.write(b"one\n")
    first = tail.read()
    assert first is not None
    tail.close()
    with log.open("ab") as out:
        out.write(b"two\n")
    log.with_name("a.log.0.bz2").write_bytes(bz2.compress(log.read_bytes()))
    log.unlink()
    log.write_bytes(b"three\n")
    again = LogTail(log, first.position, clock)
    assert list(drain(again, clock)) == [b"two", b"three"]
    again.close()


def test_a_file_of_equal_size_in_its_place_is_another_log(log: Path) -> None:
    clock = Clock()
    tail = LogTail(log, None, clock)
    list(drain(tail, clock))
    with log.open("ab") as out:
        out.write(b"aaaa\n")
    assert list(drain(tail, clock)) == [b"aaaa"]
    other = log.with_name("other")
    other.write_bytes(b"bbbb\n")
    other.rename(log)
    assert list(drain(tail, clock)) == [b"bbbb"]
    tail.close()


def test_a_line_without_end_is_cut_once_and_its_rest_passed_over(log: Path) -> None:
    clock = Clock()
    tail = LogTail(log, None, clock)
    list(drain(tail, clock))
    with log.open("ab") as out:
        out.write(b"x" * (20 * CHUNK) + b" end\nnext\n")
    lines = list(drain(tail, clock))
    assert [len(lines[0]), *lines[1:]] == [CHUNK, b"next"]
    tail.close()


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "directory.log").mkdir()
    os.mkfifo(tmp_path / "fifo.log")
    for name in ("directory.log", "fifo.log"):
        tail = LogTail(tmp_path / name, None, Clock())
        with pytest.raises(OSError, match=name):
            tail.read()


def append(path: Path, *lines: bytes) -> None:
    with path.open("ab") as out:
        out.writelines(line + b"\n" for line in lines)


def begun(path: Path, clock: Clock) -> LogTail:
    """A tail that has read the line `one` of the log."""
    tail = LogTail(path, None, clock)
    list(drain(tail, clock))
    append(path, b"one")
    assert list(drain(tail, clock)) == [b"one"]
    return tail


@pytest.mark.parametrize("what", ["directory", "fifo", "device", "socket", "loop"])
def test_what_stands_in_its_place_for_a_while_repeats_no_line(log: Path, what: str) -> None:
    clock = Clock()
    tail = begun(log, clock)
    log.unlink()
    if what == "directory":
        log.mkdir()
    elif what == "loop":
        log.symlink_to(log.name)
    else:
        if what == "device":
            needs_root()
        kind = {"fifo": stat.S_IFIFO, "device": stat.S_IFCHR, "socket": stat.S_IFSOCK}[what]
        # The zero device: it would never end.
        os.mknod(log, 0o600 | kind, os.makedev(1, 5))
    for _ in range(5):
        with contextlib.suppress(OSError):
            assert tail.read() is None
        clock.now += ROTATION_GRACE
    (Path.rmdir if log.is_dir() else Path.unlink)(log)
    append(log, b"two")
    assert list(drain(tail, clock)) == [b"two"]
    tail.close()


@pytest.mark.parametrize("shifted", [True, False])
def test_files_that_were_rotated_in_one_moment_are_each_read_once(
    log: Path, shifted: bool
) -> None:
    clock = Clock()
    log.with_name("a.log.9").write_bytes(b"old\n")
    tail = begun(log, clock)
    moment = log.stat().st_mtime_ns
    numbers = (3, 2, 1) if shifted else (1, 2, 3)
    for line, number in zip((b"two", b"three", b"four"), numbers, strict=True):
        append(log, line)
        log.rename(log.with_name(f"a.log.{number}"))
    append(log, b"five")
    for path in (log, *log.parent.glob("a.log.[123]")):
        os.utime(path, ns=(moment, moment))
    assert sorted(drain(tail, clock)) == [b"five", b"four", b"three", b"two"]
    tail.close()


def test_a_log_that_is_being_compressed_is_not_read_twice(log: Path) -> None:
    clock = Clock()
    tail = begun(log, clock)
    log.rename(log.with_name("a.log.0"))
    append(log, b"two")
    log.with_name("a.log.0.bz2").write_bytes(b"BZh91AY&SY")
    assert list(drain(tail, clock)) == [b"two"]
    log.with_name("a.log.0.bz2").write_bytes(
        bz2.compress(log.with_name("a.log.0").read_bytes())
    )
    log.rename(log.with_name("a.log.1"))
    append(log, b"three")
    assert list(drain(tail, clock)) == [b"three"]
    tail.close()


def test_of_a_damaged_file_what_stands_before_the_damage_is_read(log: Path) -> None:
    clock = Clock()
    tail = begun(log, clock)
    log.rename(log.with_name("a.log.1"))
    lines = [b"line %d %s" % (n, os.urandom(20).hex().encode()) for n in range(5000)]
    whole = gzip.compress(b"".join(line + b"\n" for line in lines))
    log.with_name("a.log.0.gz").write_bytes(whole[: len(whole) // 2])
    append(log, b"last")
    found = list(drain(tail, clock))
    assert found[:1000] == lines[:1000]
    assert found[-1] == b"last"
    tail.close()


def test_a_hole_in_the_log_is_passed_over_at_once(log: Path) -> None:
    clock = Clock()
    tail = begun(log, clock)
    os.truncate(log, 2**40)
    assert list(drain(tail, clock)) == []
    append(log, b"two")
    assert list(drain(tail, clock)) == [b"two"]
    tail.close()


def test_a_log_that_lost_its_end_is_not_read_again(log: Path) -> None:
    clock = Clock()
    tail = begun(log, clock)
    append(log, b"two", b"three")
    assert list(drain(tail, clock)) == [b"two", b"three"]
    os.truncate(log, len(b"one\ntw"))
    assert list(drain(tail, clock)) == []
    append(log, b"x", b"four")
    assert list(drain(tail, clock)) == [b"twx", b"four"]
    tail.close()


@pytest.mark.parametrize("left", [1, 15, 30, 95])
@pytest.mark.parametrize("new", [1, 200])
def test_lines_behind_what_is_left_of_a_log_are_news(log: Path, left: int, new: int) -> None:
    """As after a rollback of its file system: shorter than it was, or longer again."""
    clock = Clock()
    tail = begun(log, clock)
    for number in range(99):
        append(log, b"line %d" % number)
        assert len(list(drain(tail, clock))) == 1
    assert tail.read() is None
    os.truncate(log, len(b"".join(log.read_bytes().splitlines(keepends=True)[:left])))
    news = [b"new %d" % number for number in range(new)]
    append(log, *news)
    found = list(drain(tail, clock))
    tail.close()
    # Where so much is missing that not each line's end is remembered, some come again.
    assert found[-new:] == news
    assert len(found) - new <= (0 if left > 80 else left)


def test_of_a_log_that_lost_more_than_its_marks_nothing_new_is_lost(log: Path) -> None:
    clock = Clock()
    tail = begun(log, clock)
    log.rename(log.with_name("a.log.0"))
    append(log, *(b"line %d" % number for number in range(500)))
    assert len(list(drain(tail, clock))) == 500
    os.truncate(log, len(b"".join(log.read_bytes().splitlines(keepends=True)[:100])))
    append(log, b"new")
    assert list(drain(tail, clock))[-1:] == [b"new"]
    tail.close()


def test_a_longer_log_without_its_last_lines_is_known_in_another_file(log: Path) -> None:
    clock = Clock()
    tail = begun(log, clock)
    append(log, *(b"line %d" % number for number in range(300)))
    assert len(list(drain(tail, clock))) == 300
    text = b"".join(log.read_bytes().splitlines(keepends=True)[:-2])
    other = log.with_name("written by an editor")
    other.write_bytes(text + b"new\n")
    other.rename(log)
    assert list(drain(tail, clock)) == [b"new"]
    tail.close()


def test_an_empty_log_is_not_known_by_its_inode_after_rotations(log: Path) -> None:
    clock = Clock()
    first = LogTail(log, None, clock).read()
    assert first is not None
    append(log, b"one")
    log.with_name("a.log.0.gz").write_bytes(gzip.compress(log.read_bytes()))
    # As where the new file gets the inode of the old one.
    os.truncate(log, 0)
    append(log, b"two")
    tail = LogTail(log, first.position, clock)
    assert list(drain(tail, clock)) == [b"one", b"two"]
    tail.close()


def zstd(path: Path) -> Path:
    subprocess.run(["zstd", "-q", "--rm", path], check=True)
    return path.with_name(path.name + ".zst")


def test_logs_that_were_packed_by_zstd_are_read_once(log: Path) -> None:
    clock = Clock()
    tail = begun(log, clock)
    place = LogTail(log, None, clock).read()
    assert place is not None
    tail.close()
    append(log, b"two")
    log.rename(log.with_name("a.log.1"))
    zstd(log.with_name("a.log.1"))
    append(log, b"three")
    log.rename(log.with_name("a.log.0"))
    broken = zstd(log.with_name("a.log.0"))
    append(log, b"four")
    tail = LogTail(log, place.position, clock)
    assert list(drain(tail, clock)) == [b"two", b"three", b"four"]
    tail.close()
    broken.write_bytes(broken.read_bytes()[:6])
    tail = LogTail(log, place.position, clock)
    assert list(drain(tail, clock)) == [b"two", b"four"]
    tail.close()


def test_what_can_not_be_unpacked_is_said(
    log: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    tail = begun(log, clock)
    append(log, b"two")
    log.rename(log.with_name("a.log.0"))
    zstd(log.with_name("a.log.0"))
    append(log, b"three")
    tail.close()
    monkeypatch.setenv("PATH", str(log.parent))
    tail = LogTail(log, Position(modified=1), clock)
    assert list(drain(tail, clock)) == [b"three"]
    tail.close()
    assert "no command zstd" in caplog.text


def test_what_an_admin_puts_beside_the_log_is_no_news(log: Path) -> None:
    clock = Clock()
    tail = begun(log, clock)
    log.with_name("a.log.errors").write_bytes(b"one\n")
    log.rename(log.with_name("a.log.0"))
    append(log, b"two")
    assert list(drain(tail, clock)) == [b"two"]
    tail.close()


def test_a_log_that_came_and_was_rotated_while_nobody_looked_is_read(tmp_path: Path) -> None:
    clock = Clock()
    log = tmp_path / "later.log"
    log.with_name("later.log.7").write_bytes(b"old\n")
    first = LogTail(log, None, clock).read()
    assert first is not None
    append(log, b"one")
    log.rename(log.with_name("later.log.0"))
    append(log, b"two")
    tail = LogTail(log, first.position, clock)
    assert list(drain(tail, clock)) == [b"one", b"two"]
    tail.close()


def test_a_kill_after_the_last_half_line_of_a_rotated_log_loses_nothing(log: Path) -> None:
    clock = Clock()
    tail = begun(log, clock)
    with log.open("ab") as out:
        out.write(b"half")
    log.rename(log.with_name("a.log.1"))
    append(log, b"two")
    log.rename(log.with_name("a.log.0"))
    append(log, b"three")
    found: list[bytes] = []
    while True:
        chunk = tail.read()
        clock.now += ROTATION_GRACE
        if chunk is not None:
            # Each place that is kept is one to go on from.
            tail.close()
            tail = LogTail(log, chunk.position, clock)
            found += chunk.lines
            if chunk.lines == [b"three"]:
                break
    assert found == [b"half", b"two", b"three"]
    tail.close()
