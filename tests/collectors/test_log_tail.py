"""The tail of a log, case by case: each line once, whatever happens to the file."""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from collectors.log_file import CHUNK
from collectors.log_kept_open import LATE
from collectors.log_marks import Position
from collectors.log_tail import ROTATION_GRACE, LogTail
from sysadmd import unix_socket
from tests.kit import needs_linux, needs_root
from tests.kit.hand_clock import Clock
from tests.kit.log_reader import Reader, append, rotate


def drain(tail: LogTail, clock: Clock) -> Iterator[bytes]:
    """All lines that are there, rotations waited out."""
    for _ in range(6):
        while (chunk := tail.read()) is not None:
            yield from chunk.lines
        clock.now += ROTATION_GRACE + 0.1


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


def begun(path: Path, clock: Clock) -> LogTail:
    """A tail that has read the line `one` of the log."""
    tail = LogTail(path, None, clock)
    list(drain(tail, clock))
    append(path, b"one")
    assert list(drain(tail, clock)) == [b"one"]
    return tail


def zero_device(path: Path) -> None:
    needs_linux("a device beside /dev")
    needs_root()
    # It would never end.
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound, unix_socket.short(path) as short:
        bound.bind(str(short))


PUT: dict[str, Callable[[Path], None]] = {
    "directory": Path.mkdir,
    "loop": lambda path: path.symlink_to(path.name),
    "fifo": os.mkfifo,
    "device": zero_device,
    "socket": bound_socket,
}


@pytest.mark.parametrize("what", PUT)
def test_what_stands_in_its_place_for_a_while_repeats_no_line(log: Path, what: str) -> None:
    clock = Clock()
    tail = begun(log, clock)
    log.unlink()
    PUT[what](log)
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


def test_behind_a_hole_within_a_line_is_another(log: Path) -> None:
    clock = Clock()
    tail = begun(log, clock)
    with log.open("ab") as out:
        out.write(b"torn" + bytes(3 * CHUNK) + b"two\n")
    assert [line.strip(b"\0") for line in drain(tail, clock)] == [b"torn", b"two"]
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


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("keep", [2, 20, 29])
def test_of_a_log_without_its_front_no_line_is_told_again(
    told: Reader, log: Path, keep: int, in_place: bool
) -> None:
    left = b"".join(log.read_bytes().splitlines(keepends=True)[-keep:])
    if in_place:
        log.write_bytes(left)
    else:
        log.with_name("new").write_bytes(left)
        log.with_name("new").rename(log)
    append(log, b"next")
    assert told.lines() == [b"next"]
    assert told.lost == []


def test_a_front_is_trimmed_while_nobody_looks(told: Reader, log: Path) -> None:
    told.down()
    log.with_name("new").write_bytes(
        b"".join(log.read_bytes().splitlines(keepends=True)[-3:]) + b"next\n"
    )
    log.with_name("new").rename(log)
    told.up()
    assert told.lines() == [b"next"]
    assert told.lost == []


@pytest.mark.parametrize("name", ["away/a.log.0", "somewhere else"])
@pytest.mark.parametrize("packed", [True, False])
def test_what_was_rotated_out_of_sight_while_nobody_looked_is_told_to_be_missing(
    told: Reader, log: Path, name: str, packed: bool
) -> None:
    told.down()
    append(log, b"unread")
    log.with_name("away").mkdir()
    rotate(log, name)
    away = log.parent / name
    if packed:
        Path(f"{away}.gz").write_bytes(gzip.compress(away.read_bytes()))
        away.unlink()
    append(log, b"next")
    told.up()
    assert told.lines() == [b"next"]
    assert len(told.lost) == 1
    assert "place lost, lines since " in told.lost[0]
    assert " UTC may be missing" in told.lost[0]


@pytest.mark.parametrize(
    "name", ["a.log.0", "a.log.old", "a.log-20261129", "a-20261129.log", "a.log.2026-11-29.gz"]
)
def test_a_rotation_is_known_by_its_name(told: Reader, log: Path, name: str) -> None:
    told.down()
    append(log, b"unread")
    text = log.read_bytes()
    rotate(log, name)
    if name.endswith(".gz"):
        (log.parent / name).write_bytes(gzip.compress(text))
    append(log, b"next")
    told.up()
    assert told.lines() == [b"unread", b"next"]
    assert told.lost == []


def test_a_generation_that_is_gone_unread_is_told(told: Reader, log: Path) -> None:
    told.down()
    rotate(log, "a.log.2")
    append(log, b"unread")
    rotate(log, "a.log.1")
    log.with_name("a.log.1").unlink()
    append(log, b"next")
    told.up()
    assert told.lines() == [b"next"]
    assert "a rotated file after it is gone" in "".join(told.lost)


def test_a_log_that_is_cut_with_no_copy_of_it_is_told(told: Reader, log: Path) -> None:
    append(log, b"unread")
    log.write_bytes(b"next\n")
    assert told.lines() == [b"next"]
    assert len(told.lost) == 1
    assert "there is no copy of it" in told.lost[0]


def test_a_link_that_leads_to_another_day_while_nobody_looked(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    for day in (24, 25, 26):
        (tmp_path / f"a-202611{day}.log").touch()
    log.symlink_to("a-20261124.log")
    told = Reader(log)
    told.lines()
    append(log, b"of 24")
    assert told.lines() == [b"of 24"]
    told.down()
    append(log, b"late on 24")
    for day in (25, 26):
        log.unlink()
        log.symlink_to(f"a-202611{day}.log")
        append(log, b"of %d" % day)
    told.up()
    assert told.lines() == [b"late on 24", b"of 25", b"of 26"]
    assert told.lost == []
    told.down()


@pytest.mark.parametrize("moved", [True, False])
def test_a_line_that_comes_late_to_a_rotated_log_is_told(
    told: Reader, log: Path, moved: bool
) -> None:
    with log.open("ab") as late:
        rotate(log, "a.log.0")
        append(log, b"next")
        assert told.lines() == [b"next"]
        if moved:
            log.with_name("a.log.0").unlink()
        late.write(b"late\nhalf")
        late.flush()
        assert told.lines() == [b"late", b"half"]
    rotate(log, "a.log.1" if not moved else "a.log.0")
    append(log, b"last")
    assert told.lines() == [b"last"]
    assert told.lost == []


@pytest.mark.parametrize("restarted", [True, False])
def test_an_archive_that_is_packed_or_copied_anew_is_no_news(
    told: Reader, log: Path, restarted: bool
) -> None:
    rotate(log, "a.log.0")
    append(log, b"next")
    assert told.lines() == [b"next"]
    if restarted:
        told.down()
    text = log.with_name("a.log.0").read_bytes()
    log.with_name("a.log.0.txt").write_bytes(text)
    log.with_name("a.log.0.gz").write_bytes(gzip.compress(text))
    log.with_name("a.log.0").unlink()
    rotate(log, "a.log.1")
    append(log, b"last")
    if restarted:
        told.up()
    assert told.lines() == [b"last"]
    assert told.lost == []


def test_files_are_read_in_the_order_of_their_numbers_whatever_the_clock_said(
    told: Reader, log: Path
) -> None:
    told.down()
    append(log, b"one")
    rotate(log, "a.log.1")
    append(log, b"two")
    rotate(log, "a.log.0")
    append(log, b"three")
    os.utime(log.with_name("a.log.1"), (2**31, 2**31))
    os.utime(log.with_name("a.log.0"), (1, 1))
    told.up()
    assert told.lines() == [b"one", b"two", b"three"]
    assert told.lost == []


def test_many_rotated_files_are_not_waited_for_one_by_one(told: Reader, log: Path) -> None:
    told.down()
    for number in range(40, 0, -1):
        rotate(log, f"a.log.{number}")
        append(log, b"line of %d" % number)
    told.up()
    found: list[bytes] = []
    while (chunk := told.tail.read()) is not None:
        found += chunk.lines
    # All, and the newest may be written to still.
    assert found == [b"line of %d" % number for number in range(40, 1, -1)]
    assert told.tail.unsettled
    assert told.lines() == [b"line of 1"]


def test_the_log_of_another_file_system_is_another(told: Reader, log: Path) -> None:
    """Equal inodes on two devices: content decides."""
    told.down()
    assert told.position is not None
    told.position = msgspec.structs.replace(
        told.position, device=told.position.device + 1, offset=0, head=b"", tail=b"", marks=()
    )
    append(log, b"next")
    told.up()
    assert told.lines()[-1] == b"next"
    assert len(told.lost) == 1


def test_a_position_of_before_is_taken_over(log: Path) -> None:
    """Of a version that knew finished files by inode and time."""
    for number in (3, 2, 1):
        log.with_name(f"a.log.{number}").write_bytes(b"of %d\n" % number)
        moment = 10**9 * (9 - number)
        os.utime(log.with_name(f"a.log.{number}"), ns=(moment, moment))
    append(log, b"one")
    done = log.with_name("a.log.2").stat()
    place = Reader(log)
    place.lines()
    place.down()
    assert place.position is not None
    old = Position(
        place.position.inode,
        place.position.offset,
        place.position.fingerprint,
        modified=10**9 * 7,
        done=((done.st_ino, done.st_mtime_ns),),
        head=place.position.head,
        marks=place.position.marks,
    )
    told = Reader(log, old)
    # The first was older, the second is in the list, the third is news.
    assert told.lines() == [b"of 1"]
    assert told.position is not None
    assert told.position.files is not None
    assert told.lost == []
    told.down()


def test_what_fails_is_opened_anew(
    told: Reader, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the file system is gone and back: the old descriptor fails for ever."""
    append(log, b"next")
    real = os.pread

    def gone(*_: object) -> bytes:
        raise OSError(errno.EIO, "the device is gone")

    monkeypatch.setattr(os, "pread", gone)
    with pytest.raises(OSError, match="gone"):
        told.tail.read()
    monkeypatch.setattr(os, "pread", real)
    assert told.lines() == [b"next"]
    assert told.lost == []


@pytest.mark.parametrize("what", ["short copy", "end", "middle", "copy"])
def test_what_is_copied_out_of_the_log_is_no_news(log: Path, what: str) -> None:
    told = Reader(log)
    told.lines()
    append(
        log, *(b"25 18:00:%02d: line %d" % (n, n) for n in range(3 if what[0] == "s" else 30))
    )
    assert told.lines()
    lines = log.read_bytes().splitlines(keepends=True)
    part = {"end": lines[-20:], "middle": lines[9:20]}.get(what, lines)
    log.with_name("a.log.4711").write_bytes(b"".join(part))
    append(log, *(b"26 18:00:%02d: line %d" % (n, n) for n in range(20)))
    assert len(told.lines()) == 20
    told.down()
    told.up()
    append(log, b"next")
    assert told.lines() == [b"next"]
    # Nor when that is not being read any more.
    rotate(log, "a.log.0")
    append(log, b"last")
    assert told.lines() == [b"last"]
    told.down()
    told.up()
    assert told.lines() == []
    assert told.lost == []
    told.down()


@pytest.mark.parametrize("packed", [True, False])
def test_a_rotated_file_of_zeros_is_dealt_with_once(
    told: Reader, log: Path, packed: bool
) -> None:
    rotate(log, "a.log.1")
    if packed:
        log.with_name("a.log.0.gz").write_bytes(gzip.compress(bytes(5000)))
    else:
        log.with_name("a.log.0").write_bytes(bytes(5000))
    append(log, b"next")
    for _ in range(2):
        lines = told.lines()
        assert lines in ([b"next"], [])
        told.down()
        told.up()
    told.down()


def test_a_copy_of_what_is_not_read_yet_hides_no_line_of_it(told: Reader, log: Path) -> None:
    told.down()
    rotate(log, "a.log.1")
    append(log, *(b"26 18:00:%02d: line %d" % (n, n) for n in range(20)))
    log.with_name("a.log.0.save").write_bytes(log.read_bytes())
    append(log, b"more")
    rotate(log, "a.log.0")
    append(log, b"next")
    told.up()
    lines = told.lines()
    assert len(lines) == 22
    assert set(lines[-3:]) >= {b"more", b"next"}


def test_an_archive_that_got_the_inode_of_the_empty_log_is_known(
    told: Reader, log: Path
) -> None:
    rotate(log, "a.log.0")
    assert told.lines() == []
    told.down()
    assert told.position is not None
    assert not told.position.offset
    log.rename(log.with_name("elsewhere"))
    info = log.with_name("a.log.0").stat()
    told.position = msgspec.structs.replace(told.position, inode=info.st_ino)
    append(log, b"next")
    told.up()
    assert told.lines() == [b"next"]


def test_what_comes_back_after_its_place_was_lost_is_not_told_again(
    told: Reader, log: Path
) -> None:
    told.down()
    away = log.with_name("away")
    log.rename(away)
    append(log, b"meanwhile")
    told.up()
    assert told.lines() == [b"meanwhile"]
    assert len(told.lost) == 1
    away.rename(log)
    append(log, b"next")
    assert told.lines() == [b"next"]


def test_an_archive_whose_plain_file_is_overwritten_is_still_known(
    told: Reader, log: Path
) -> None:
    """As logrotate's `shred` does."""
    rotate(log, "a.log.1")
    append(log, b"next")
    assert told.lines() == [b"next"]
    plain = log.with_name("a.log.1")
    log.with_name("a.log.1.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.write_bytes(os.urandom(500).replace(b"\n", b"") + b"\n")
    told.lines()
    plain.unlink()
    assert told.lines() == []


def test_open_files_are_let_go_of(told: Reader, log: Path) -> None:
    rotate(log, "a.log.0")
    append(log, b"next")
    told.lines()
    log.with_name("a.log.0").unlink()
    told.clock.now += LATE
    told.lines()
    open_files = len(list(Path("/dev/fd").iterdir()))
    rotate(log, "a.log.1")
    log.unlink()
    log.mkdir()
    late = log.with_name("a.log.1")
    for number in range(20):
        append(late, b"late %d" % number)
        with contextlib.suppress(OSError):
            told.lines()
    assert len(list(Path("/dev/fd").iterdir())) <= open_files + 1
    log.rmdir()
    append(log, b"last")
    assert told.lines()[-1:] == [b"last"]


def test_a_log_that_was_cut_and_is_restored_is_not_told_again(told: Reader, log: Path) -> None:
    text = log.read_bytes()
    log.write_bytes(b"other\n")
    assert told.lines() == [b"other"]
    assert len(told.lost) == 1
    log.with_name("restored").write_bytes(text + b"next\n")
    log.with_name("restored").rename(log)
    assert told.lines() == [b"next"]
