"""The watched folder in the hands of others: what they place there tells nobody anything."""

from __future__ import annotations

import bz2
import errno
import grp
import gzip
import lzma
import os
import pwd
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collectors.life_preserver import Replication
from collectors.log_tail import ROTATION_GRACE, LogTail
from tests.kit import Client, Daemon, needs_root
from tests.kit.daemon import following
from tests.kit.hand_clock import Clock
from tests.kit.log_reader import Reader
from tests.kit.pools import next_state

LINE = "Thu Nov 26 18:00:02 UTC 2026: {}\n"
SECRET = "ERROR: the secret is 4711"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "private"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "a.log"
    path.parent.mkdir()
    path.touch()
    return path


def append(log: Path, *lines: str) -> None:
    with log.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def begun(log: Path, *writers: str) -> Reader:
    """A reader that has read the line `one`."""
    reader = Reader(log, None, *writers)
    reader.lines()
    append(log, "one")
    assert reader.lines() == [b"one"]
    return reader


def foreign(path: Path) -> None:
    needs_root()
    path.write_text("what others say\n")
    os.chown(path, 12345, 0)


def zero_device(path: Path) -> None:
    needs_root()
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))


def of_mode(mode: int) -> Callable[[Path, Path], None]:
    def place(path: Path, _: Path) -> None:
        needs_root()
        path.write_text("what others say\n")
        path.chmod(mode)

    return place


PLACES: dict[str, Callable[[Path, Path], None]] = {
    "is a link": lambda path, secret: path.symlink_to(secret),
    "is a link ": lambda path, secret: path.symlink_to(os.path.relpath(secret, path.parent)),
    "second name": lambda path, secret: os.link(secret, path),
    "belongs to 12345": lambda path, _: foreign(path),
    "by everybody": of_mode(0o646),
    "by the group": of_mode(0o664),
}
DEVICES: dict[str, Callable[[Path, Path], None]] = {
    "fifo": lambda path, _: os.mkfifo(path),
    "directory": lambda path, _: path.mkdir(),
}
if sys.platform.startswith("linux"):
    # Elsewhere devices are in /dev alone.
    DEVICES["device"] = lambda path, _: zero_device(path)


@pytest.mark.parametrize("what", [*PLACES, *DEVICES])
def test_what_is_put_in_the_logs_place_is_refused_until_it_is_mended(
    log: Path, secret: Path, what: str
) -> None:
    reader = begun(log)
    append(log, "half")
    log.rename(log.with_name("a.log.0"))
    (PLACES | DEVICES)[what](log, secret)
    found: list[str] = []
    for _ in range(2):
        found.append(reader.refused())
        # And by who is started then, but that at a first look a link is how it was set up.
        if "is a link" not in what:
            found.append(Reader(log).refused())
        assert reader.position is not None
        assert Reader(log, reader.position).refused()
    assert all((what.strip() if what in PLACES else "not a regular") in why for why in found)
    log.rmdir() if what == "directory" else log.unlink()
    append(log, "two")
    assert reader.lines() == [b"two"]
    reader.tail.close()


@pytest.mark.parametrize("kind", ["", ".gz"])
@pytest.mark.parametrize("what", PLACES)
def test_rotated_files_of_others_are_passed_over_and_told_of_once(
    log: Path, secret: Path, what: str, kind: str
) -> None:
    reader = begun(log)
    log.unlink()
    PLACES[what](log.with_name(f"a.log.0{kind}"), secret)
    os.utime(log.with_name(f"a.log.0{kind}"))
    append(log, "two")
    assert reader.lines() == [b"two"]
    # A link is no rotated file at all.
    assert len(reader.lost) == (0 if "is a link" in what else 1)
    assert all(what in text and f"a.log.0{kind} " in text for text in reader.lost)
    append(log, "three")
    assert reader.lines() == [b"three"]
    again = Reader(log, reader.position)
    assert again.lines() == []
    assert len(reader.lost) < 2
    again.tail.close()
    reader.tail.close()


def test_a_backup_by_hard_links_silences_nothing(log: Path) -> None:
    reader = begun(log)

    def backup(number: int) -> None:
        to = log.parent.with_name(f"backup.{number}")
        shutil.copytree(log.parent, to, copy_function=os.link)

    backup(1)
    append(log, "two")
    assert reader.lines() == [b"two"]
    reader.tail.close()
    again = Reader(log, reader.position)
    append(log, "three")
    assert again.lines() == [b"three"]
    again.tail.close()
    append(log, "four")
    log.rename(log.with_name("a.log.0"))
    backup(2)
    append(log, "five")
    again = Reader(log, again.position)
    assert again.lines() == [b"four", b"five"]
    assert again.lost == []
    again.tail.close()


def test_a_link_within_the_folder_and_one_to_it_are_followed(log: Path) -> None:
    log.rename(log.with_name("today"))
    log.symlink_to("today")
    (log.parent.parent / "way").symlink_to(log.parent.name)
    way = log.parent.parent / "way" / log.name
    reader = begun(way)
    reader.tail.close()
    append(log, "two")
    again = Reader(way, reader.position)
    assert again.lines() == [b"two"]
    # Rotated by a new link.
    append(log.with_name("tomorrow"), "three")
    log.unlink()
    log.symlink_to("tomorrow")
    assert again.lines() == [b"three"]
    log.unlink()
    log.symlink_to("..")
    assert "not a regular" in again.refused()
    again.tail.close()


def test_a_link_that_was_there_from_the_first_leads_where_it_likes(log: Path) -> None:
    there = log.parent.parent / "there"
    there.mkdir()
    log.unlink()
    log.symlink_to("../there/real.log")
    reader = Reader(log)
    assert reader.lines() == []
    append(there / "real.log", "one")
    assert reader.lines() == [b"one"]
    # By way of another, and known over a restart.
    (there / "real.log").rename(there / "other.log")
    (there / "real.log").symlink_to(there / "other.log")
    append(there / "other.log", "two")
    again = Reader(log, reader.position)
    assert again.lines() == [b"two"]
    # Elsewhere, too, only what nobody else can write; nor in a circle.
    (there / "other.log").chmod(0o666)
    assert "by everybody" in Reader(log, again.position).refused()
    (there / "other.log").unlink()
    (there / "other.log").symlink_to("real.log")
    assert "too many links" in Reader(log, again.position).refused()
    for one in (reader, again):
        one.tail.close()


def test_a_link_that_others_may_have_made_is_not_followed(log: Path, secret: Path) -> None:
    log.unlink()
    log.symlink_to(secret)
    log.parent.chmod(0o777)
    assert "can be written by everybody" in Reader(log).refused()
    log.parent.chmod(0o755)
    needs_root()
    os.chown(log, 12345, 12345, follow_symlinks=False)
    assert "belongs to 12345" in Reader(log).refused()


def test_who_is_named_in_the_settings_may_own_or_write_the_log(log: Path) -> None:
    needs_root()
    account, group = pwd.getpwnam("nobody"), grp.getgrgid(pwd.getpwnam("nobody").pw_gid)
    os.chown(log, account.pw_uid, group.gr_gid)
    reader = begun(log, account.pw_name)
    log.chmod(0o664)
    log.rename(log.with_name("a.log.0"))
    shutil.copy2(log.with_name("a.log.0"), log)
    os.chown(log, 0, group.gr_gid)
    append(log, "two")
    assert group.gr_name in reader.refused()
    reader.tail.close()
    reader = Reader(log, reader.position, f"@{group.gr_name}")
    assert reader.lines() == [b"two"]
    reader.tail.close()


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_restart_in_a_packed_log_goes_on_in_it(
    log: Path, pack: Callable[[bytes], bytes]
) -> None:
    first = begun(log)
    first.tail.close()
    lines = [b"line %d " % number + os.urandom(30).hex().encode() for number in range(5000)]
    kind = {"gzip": ".gz", "bz2": ".bz2", "lzma": ".xz"}[pack.__module__]
    text = b"".join(line + b"\n" for line in [b"one", *lines])
    log.with_name(f"a.log.0{kind}").write_bytes(pack(text))
    log.unlink()
    append(log, "last")
    found: list[bytes] = []
    position = first.position
    clock = Clock()
    while found[-1:] != [b"last"]:
        tail = LogTail(log, position, clock)
        # Each place that is kept is one to go on from; at a file's end it takes a moment.
        for _ in range(4):
            chunk = tail.read()
            clock.now += ROTATION_GRACE + 0.1
            if chunk is not None:
                found += chunk.lines
                position = chunk.position
                if chunk.lines:
                    break
        tail.close()
    assert found == [*lines, b"last"]


def test_a_send_log_is_one_of_the_folder_and_its_own(
    log: Path, secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "total estimated size is 4G\n12:00:00   1G   tank/usr@a\n"
    secret.write_text(text)
    send = log.with_name("send")
    replication = Replication(log.parent)
    for name in (str(secret), "/proc/kmsg", "/dev/zero", "/", "/..", "/\0", "/x" * 9999):
        replication.begin(name, "tank/usr")
        assert replication.look(10.0) is None
    caplog.clear()
    for place in (*PLACES.values(), *DEVICES.values()):
        place(send, secret)
        replication.begin(str(send), "tank/usr")
        for _ in range(2):
            assert replication.look(10.0) is None
        send.rmdir() if send.is_dir() else send.unlink()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len({*PLACES, *DEVICES})
    assert all(str(send) in text for text in said)
    send.write_text(text)
    replication.begin(str(send), "tank/usr")
    assert replication.look(10.0) == "Replicating tank: 1G/4G (25%)"


def told(client: Client, text: str) -> list[dict[str, Any]]:
    """The frames up to the line that says so."""
    return client.until(lambda frame: frame["args"].get("message") == text)


def test_a_line_that_names_a_file_which_never_answers_holds_up_no_other(
    tmp_path: Path,
) -> None:
    log = tmp_path / "lpreserver.log"
    log.touch()
    os.mkfifo(tmp_path / "fifo")
    starting = "Starting replication SYNC task on tank: {}"
    with Daemon(tmp_path / "state", following(log)) as daemon:
        for number, name in enumerate(("/proc/kmsg", "/dev/zero", tmp_path / "fifo")):
            with daemon.client() as client:
                client.ask("events", "subscribe", {"systems": ["life-preserver"]})
                append(log, LINE.format(starting.format(name)))
                told(client, starting.format(name))
            daemon.stop()
            daemon.start()
            with daemon.client() as client:
                client.ask("events", "subscribe", {"systems": ["life-preserver"]})
                append(log, LINE.format(f"Creating snapshot on tank/{number}"))
                told(client, f"Creating snapshot on tank/{number}")


def test_what_of_the_folder_is_not_read_is_told(tmp_path: Path, secret: Path) -> None:
    log = tmp_path / "lpreserver.log"
    log.touch()
    everything = {"systems": ["life-preserver", "system-state"], "since": "now"}
    with Daemon(tmp_path / "state", following(log)) as daemon, daemon.client() as client:
        client.ask("events", "subscribe", everything)
        log.unlink()
        log.symlink_to(secret)
        trouble = next_state(client, lambda args: "error" in args)
        assert "is a link out of its folder" in trouble["error"]
        log.unlink()
        os.link(secret, tmp_path / "lpreserver.log.1")
        os.utime(secret)
        # What it unpacks to would take a GiB of memory.
        greedy = lzma.compress(b"x\n", format=lzma.FORMAT_ALONE)
        greedy = greedy[:1] + (2**30).to_bytes(4, "little") + greedy[5:]
        (tmp_path / "lpreserver.log.0.xz").write_bytes(greedy)
        append(log, LINE.format("Creating snapshot on tank"))
        frames = told(client, "Creating snapshot on tank")
        errors = " ".join(frame["args"].get("error", "") for frame in frames)
        assert errors.count("lpreserver.log.1 has a second name") == 1
        assert errors.count("lpreserver.log.0.xz can't be unpacked") == 1
        assert not any(SECRET in str(frame) for frame in frames)
        assert SECRET not in daemon.log.read_text()


def test_who_writes_to_a_file_that_is_refused_has_it_told_once(log: Path) -> None:
    reader = begun(log)
    log.rename(log.with_name("a.log.1"))
    append(log, "two")
    foreign(log.with_name("a.log.0"))
    assert reader.lines() == [b"two"]
    for number in range(5):
        append(log.with_name("a.log.0"), f"more {number}")
        assert reader.lines() == []
    assert len(reader.lost) == 1
    again = Reader(log, reader.position)
    assert again.lines() == []
    assert again.lost == []


def test_a_rotated_file_that_fails_holds_up_nothing_and_is_read_when_it_can_be(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = begun(log)
    append(log, "two")
    log.rename(log.with_name("a.log.1"))
    append(log, "three")
    assert reader.lines() == [b"two", b"three"]
    log.with_name("a.log.0").write_text("what was restored\n")
    inode, real = log.with_name("a.log.0").stat().st_ino, os.pread

    def fails(descriptor: int, size: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_ino == inode:
            raise OSError(errno.EIO, "the disk fails")
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", fails)
    append(log, "four")
    assert reader.lines() == [b"four"]
    assert reader.lines() == []
    assert len(reader.lost) == 1
    assert "can't be read (the disk fails)" in reader.lost[0]
    monkeypatch.setattr(os, "pread", real)
    assert reader.lines() == [b"what was restored"]
