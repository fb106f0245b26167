"""The files beside a log: what can't be read, what is being packed, what was edited."""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collectors.log_file import CHUNK
from collectors.log_survey import PACKING
from collectors.log_tail import TRIES
from tests.kit.log_reader import Reader, append, rotate

Fails = Callable[[Path, int], None]


def test_a_generation_that_is_gone_behind_one_that_was_packed_is_told(
    told: Reader, log: Path
) -> None:
    rotate(log, "a.log.0")
    append(log, b"one")
    assert told.lines() == [b"one"]
    for number in (2, 1, 0):
        rotate(log, f"a.log.{number}")
        append(log, b"behind %d" % number)
    packed = log.with_name("a.log.2")
    packed.with_name("a.log.2.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    log.with_name("a.log.1").unlink()
    assert told.lines() == [b"behind 1", b"behind 0"]
    assert "a rotated file after it is gone" in "".join(told.lost)


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fails]:
    """Let a file be unreadable from a place on, as a disk's bad block makes it."""
    real, bad = os.pread, dict[int, int]()

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        start = bad.get(os.fstat(descriptor).st_ino)
        if start is None or offset + size <= start:
            return real(descriptor, size, offset)
        if offset >= start:
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, start - offset, offset)

    monkeypatch.setattr(os, "pread", pread)

    def fail(path: Path, start: int) -> None:
        bad[path.stat().st_ino] = start

    yield fail
    bad.clear()


def looks(told: Reader, count: int) -> list[bytes]:
    """The lines of so many looks, of which some fail."""
    found: list[bytes] = []
    for _ in range(count):
        with contextlib.suppress(OSError):
            told.look(found)
    return found


def test_an_archive_of_other_lines_beside_a_plain_file_of_its_name_is_read(
    told: Reader, log: Path
) -> None:
    told.down()
    log.with_name("a.log.0.gz").write_bytes(gzip.compress(b"unread\n"))
    rotate(log, "a.log.0")
    append(log, b"next")
    told.up()
    assert sorted(told.lines()) == [b"next", b"unread"]
    assert told.lost == []


def test_of_an_archive_that_is_being_written_nothing_is_told(told: Reader, log: Path) -> None:
    append(log, b"unread")
    packed = gzip.compress(log.read_bytes())
    rotate(log, "a.log.0")
    append(log, b"next")
    archive = log.with_name("a.log.0.gz")
    found: list[bytes] = []
    for end in range(0, len(packed), 40):
        archive.write_bytes(packed[:end])
        found += told.lines()
    archive.write_bytes(packed)
    found += told.lines()
    log.with_name("a.log.0").unlink()
    assert [*found, *told.lines()] == [b"unread", b"next"]
    assert told.lost == []


def test_an_archive_that_was_never_finished_is_said(told: Reader, log: Path) -> None:
    rotate(log, "a.log.0")
    log.with_name("a.log.0.gz").write_bytes(gzip.compress(os.urandom(5000))[:3])
    append(log, b"next")
    assert told.lines() == [b"next"]
    assert told.lost == []
    told.clock.now += PACKING
    assert told.lines() == []
    assert "a.log.0.gz can't be unpacked to its end" in "".join(told.lost)


@pytest.mark.parametrize("start", [0, 3, 5])
def test_a_rotated_file_that_can_not_be_read_on_holds_up_no_other(
    told: Reader, log: Path, fails: Fails, start: int
) -> None:
    """start: behind so much of what is unread."""
    told.down()
    rotate(log, "a.log.1")
    append(log, b"told")
    rotate(log, "a.log.0")
    fails(log.with_name("a.log.0"), start)
    append(log, b"next")
    told.up()
    found = looks(told, TRIES + 2)
    assert found == ([b"told", b"next"] if start == 5 else [b"next"])
    if start != 5:
        assert len([text for text in told.lost if "a.log.0 can't be read" in text]) == 1
    told.down()
    told.up()
    append(log, b"last")
    assert looks(told, TRIES + 2) == [b"last"]
    assert len([text for text in told.lost if "can't be read" in text]) == (start != 5)


def test_what_was_read_of_a_file_before_it_failed_is_not_told_again(
    told: Reader, log: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, b"told")
    assert told.lines() == [b"told"]
    size = log.stat().st_size
    told.down()
    append(log, b"unread")
    fails(log, size)
    rotate(log, "a.log.0")
    append(log, b"next")
    told.up()
    assert looks(told, TRIES + 2) == [b"next"]
    assert len(told.lost) == 1
    # As after a scrub.
    monkeypatch.undo()
    assert told.lines() == [b"unread"]


def test_what_may_not_be_read_is_told_once_not_at_each_start(
    told: Reader, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As archives of mode 0400 for a daemon that is not root."""
    rotate(log, "a.log.0")
    append(log, b"next")
    assert told.lines() == [b"next"]
    other = log.with_name("a.log.1")
    append(other, b"unread")
    real = os.open

    def forbidden(path: str, *args: int, **named: int) -> int:
        if path == "a.log.1":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *args, **named)

    monkeypatch.setattr(os, "open", forbidden)
    for _ in range(3):
        assert told.lines() == []
        # Written to by somebody else, it is the same.
        append(other, b"more")
        assert told.lines() == []
        told.down()
        told.up()
    assert len(told.lost) == 1
    assert "a.log.1 can't be read (Permission denied)" in told.lost[0]
    monkeypatch.undo()
    assert told.lines() == [b"unread", *3 * [b"more"]]


def test_what_was_there_before_a_folder_could_be_listed_is_no_news(log: Path) -> None:
    for number in (2, 1):
        append(log.with_name(f"a.log.{number}"), b"old %d" % number)
        os.utime(log.with_name(f"a.log.{number}"), (10**9 - number, 10**9 - number))
    told = Reader(log)
    real = os.scandir

    def forbidden(_: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", forbidden)
        told.lines()
        append(log, b"one")
        assert told.lines() == [b"one"]
        told.down()
        told.up()
        assert told.lines() == []
    assert os.scandir is real
    assert told.lines() == []
    rotate(log, "a.log.0")
    append(log, b"next")
    assert told.lines() == [b"next"]
    assert told.lost == []
    told.down()


def test_of_many_refused_files_a_few_are_named(told: Reader, log: Path) -> None:
    for number in range(200):
        path = log.with_name(f"a.log.{number}")
        append(path, b"of %d" % number)
        path.chmod(0o666)
    assert told.lines() == []
    text = "".join(told.lost)
    assert "can be written by everybody" in text
    assert "and 197 more files" in text
    assert len(text) < 1000
    append(log, b"next")
    assert told.lines() == [b"next"]
    assert "".join(told.lost) == text


def test_days_of_the_month_are_no_numbers_of_generations(tmp_path: Path) -> None:
    """`mv log log.$(date +%d)`: in the order of their times."""
    log = tmp_path / "a.log"
    log.touch()
    told = Reader(log)
    told.lines()
    for day in (*range(26, 31), *range(1, 4)):
        append(log, b"of %02d" % day)
        rotate(log, f"a.log.{day:02d}")
        assert told.lines() == [b"of %02d" % day]
        if day == 29:
            told.down()
            append(log, b"of 30")
            rotate(log, "a.log.30")
            append(log, b"of 31")
            rotate(log, "a.log.31")
            append(log, b"next")
            told.up()
            assert told.lines() == [b"of 30", b"of 31", b"next"]
            log.with_name("a.log.30").unlink()
    assert told.lost == []
    told.down()


def test_what_comes_late_behind_a_hole_is_told(told: Reader, log: Path) -> None:
    rotate(log, "a.log.0")
    append(log, b"next")
    assert told.lines() == [b"next"]
    late = log.with_name("a.log.0")
    os.truncate(late, late.stat().st_size + 3 * CHUNK)
    append(late, b"late")
    assert [line.lstrip(b"\0") for line in told.lines()] == [b"late"]
    os.truncate(late, late.stat().st_size + 3 * CHUNK)
    assert told.lines() == []


def edited(log: Path, lines: list[bytes]) -> None:
    """As an editor leaves it: another file of its name."""
    new = log.with_name("new")
    new.write_bytes(b"".join(lines))
    new.rename(log)


@pytest.mark.parametrize("without", [range(1), range(3, 5), range(27, 28), range(20, 28)])
def test_lines_that_an_editor_removed_make_no_other_line_news(
    told: Reader, log: Path, without: range
) -> None:
    append(log, b"unread")
    lines = log.read_bytes().splitlines(keepends=True)
    edited(log, [line for number, line in enumerate(lines) if number not in without])
    append(log, b"next")
    assert told.lines() == [b"unread", b"next"]
    assert told.lost == []


@pytest.mark.parametrize("in_place", [True, False])
def test_an_edited_line_makes_no_other_line_news(
    told: Reader, log: Path, in_place: bool
) -> None:
    append(log, b"unread")
    lines = log.read_bytes().replace(b"line 3", b"LINE 3")
    if in_place:
        log.write_bytes(lines)
    else:
        edited(log, [lines])
    assert told.lines() == [b"unread"]
    assert told.lost == []


@pytest.mark.parametrize("keep", [2, 5, 29])
@pytest.mark.parametrize("of", [7, 30])
def test_a_log_that_lost_its_last_lines_to_an_editor_is_known(
    log: Path, keep: int, of: int
) -> None:
    told = Reader(log)
    told.lines()
    append(log, *(b"25 18:00:%02d: line %d" % (n, n) for n in range(of)))
    assert len(told.lines()) == of
    edited(log, log.read_bytes().splitlines(keepends=True)[:keep])
    append(log, b"next")
    assert told.lines() == [b"next"]
    assert told.lost == []
    told.down()


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("how", ["renamed", "deleted", "renamed while down"])
def test_the_same_lines_in_the_next_log_are_told(log: Path, how: str, count: int) -> None:
    """Lines that differ in nothing are as many events as there are lines."""
    told = Reader(log)
    told.lines()
    lines = [b"25 18:00:%02d: the same in 2026" % n for n in range(count)][:1] * count
    for number in range(3):
        append(log, *lines)
        if how == "renamed while down" and number:
            told.up()
        assert told.lines() == lines
        if how == "renamed while down":
            told.down()
        if how != "deleted":
            rotate(log, f"a.log-2026112{number}")
        else:
            log.unlink()
            log.touch()
    told.down()
