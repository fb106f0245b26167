"""Backups that are not what was saved; and a kill at any moment of saving and restoring."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from server.backup import checking, making, placing, restoring
from server.backup.contents import Backup
from sysadmd import schema
from sysadmd.errors import BackupUnusable, StoreDamaged
from tests.kit import QUIET, Daemon, needs_root
from tests.kit.backups import events_of, output, refused, run, works
from tests.kit.processes import clean
from tests.kit.state_file import state_file

# Of 3.12 and later, where a worker has threads: the child uses nothing of theirs.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
# Sockets, and pipes that a keeper has ready.
NOT_COPIED = shutil.ignore_patterns("*.sock", "pipes")


@dataclass(frozen=True)
class Kept:
    """A state whose daemon was killed, and an earlier backup of it; to be copied."""

    state: Path
    saved: Path


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    place = tmp_path_factory.mktemp("kept")
    found = Kept(place / "state", place / "saved")
    with Daemon(place / "running", QUIET) as daemon:
        with daemon.client() as client:
            run(client, "done", "echo told")
            works("backup", daemon.state_dir, found.saved, "--with-keys")
            run(client, "later", "echo later")
        daemon.kill()
        shutil.copytree(daemon.state_dir, found.state, ignore=NOT_COPIED)
        clean(daemon.state_dir)
    # What came later is in there alone.
    assert (found.state / "state.db-wal").stat().st_size
    return found


@pytest.fixture
def copy(kept: Kept, tmp_path: Path) -> Kept:
    return copied(kept, tmp_path)


def copied(kept: Kept, place: Path) -> Kept:
    place.mkdir(exist_ok=True)
    shutil.copytree(kept.state, place / "state")
    shutil.copytree(kept.saved, place / "saved")
    return Kept(place / "state", place / "saved")


def flip(file: Path, at: int = -1) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def linked(saved: Path) -> None:
    shutil.move(saved / "jobs", saved.parent / "elsewhere")
    (saved / "jobs").symlink_to(saved.parent / "elsewhere")


def outside(saved: Path) -> None:
    text = (saved / "SHA256SUMS").read_text()
    (saved / "SHA256SUMS").write_text(text.replace("jobs/1/0.log", "jobs/../../../etc/x"))


def piped(saved: Path) -> None:
    (saved / "state.db").unlink()
    os.mkfifo(saved / "state.db")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "database": (lambda saved: flip(saved / "state.db"), "state.db is not what was saved"),
    "log": (lambda saved: flip(saved / "jobs/1/0.log"), "jobs/1/0.log is not what was"),
    "log gone": (lambda saved: (saved / "jobs/1/0.log").unlink(), "jobs/1/0.log can't be read"),
    "logs linked": (linked, "jobs/1/0.log can't be read"),
    "list": (lambda saved: flip(saved / "SHA256SUMS", 3), "is damaged"),
    "list gone": (lambda saved: (saved / "SHA256SUMS").unlink(), "can't be read"),
    "list cut": (lambda saved: os.truncate(saved / "SHA256SUMS", 75), "SHA256SUMS is not what"),
    "name": (outside, "SHA256SUMS (line 2)"),
    "manifest": (
        lambda saved: os.truncate(saved / "backup.json", 60),
        "backup.json is not what",
    ),
    "none": (
        lambda saved: (saved / "backup.json").unlink(),
        "is no backup, or not a whole one",
    ),
    "huge": (
        lambda saved: (saved / "backup.json").write_text(" " * (1 << 20)),
        "backup.json is",
    ),
    "pipe": (piped, "state.db can't be read"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_not_what_was_saved_is_not_restored(copy: Kept, kind: str) -> None:
    damage, words = DAMAGE[kind]
    before = contents(copy.state)
    damage(copy.saved)
    assert words in refused("restore", copy.state, copy.saved)
    assert words in refused("verify", copy.state, copy.saved)
    assert contents(copy.state) == before
    assert not (copy.state / "etc").exists()


def test_a_backup_of_somebody_else_is_not_said_to_be_none(copy: Kept) -> None:
    """Who is told so may delete a good one."""
    needs_root()
    os.seteuid(65534)
    try:
        with pytest.raises(BackupUnusable, match=r"can't be read: .*; run as its owner$"):
            Backup(copy.saved)
    finally:
        os.seteuid(0)


def test_of_no_file_a_byte_may_be_another_one(copy: Kept) -> None:
    """Of the database one in so many, which is long."""
    for file in [file for file in copy.saved.rglob("*") if file.is_file()]:
        saved = file.read_bytes()
        for at in range(0, len(saved), 997 if file.suffix == ".db" else 1):
            flip(file, at)
            with pytest.raises(BackupUnusable):
                Backup(copy.saved).check()
            file.write_bytes(saved)
    Backup(copy.saved).check()


def test_a_database_too_large_to_be_checked_at_a_start_is_checked(
    copy: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else backups that nobody can restore would be made, and called whole, for years."""
    monkeypatch.setattr(schema, "CHECKED_AT_START", 0)
    with state_file(copy.state) as db:
        (page,) = db.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'jobs'"
        ).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (copy.state / "state.db").open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    new = copy.saved.with_name("new")
    with pytest.raises(StoreDamaged):
        checking.check_state(copy.state)
    with pytest.raises(StoreDamaged):
        making.make(copy.state, new, with_keys=False)
    assert not new.exists()


# What a state is known by: its events, and its logs.
State = tuple[list[Any], dict[str, str]]


def contents(state: Path) -> State:
    """Without a change of it."""
    place = state.with_name("looked-at")
    place.mkdir()
    for file in (file for file in state.glob("state.db*") if file.suffix != ".new"):
        shutil.copy(file, place)
    try:
        events = events_of(place)
    finally:
        shutil.rmtree(place)
    logs = {str(log.relative_to(state)): log.read_text() for log in state.glob("jobs/*/*")}
    return events, logs


# What changes names, or waits for the disk: in between nothing is seen from outside.
STEPS = ("mkdir", "open", "rename", "replace", "unlink", "rmdir", "fsync")


def killed_at(step: int, work: Callable[[], object]) -> int | None:
    """Do this in a child, which is killed before its step of this number.

    Returns how many steps there were, if it has not so many.
    """
    reads, writes = os.pipe()
    pid = os.fork()
    if not pid:
        count = 0

        def counted(name: str) -> Callable[..., Any]:
            real = getattr(os, name)

            def call(*arguments: Any, **more: Any) -> Any:
                nonlocal count
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                return real(*arguments, **more)

            return call

        try:
            for name in STEPS:
                setattr(os, name, counted(name))
            work()
            os.write(writes, b"%d" % count)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writes)
    with os.fdopen(reads, "rb") as file:
        said = file.read()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == (0 if said else -signal.SIGKILL)
    return int(said) if said else None


def moments(kept: Kept, place: Path, work: Callable[[Kept], object]) -> Iterator[Kept]:
    """A copy for each moment at which a kill has found the work."""
    for step in itertools.count():
        one = copied(kept, place / str(step))
        if killed_at(step, partial(work, one)) is not None:
            # Those of copying files, and those that put them in place.
            assert step > 20
            return
        yield one
        shutil.rmtree(place / str(step))


def test_a_backup_that_is_killed_at_any_moment_is_whole_or_none(
    kept: Kept, tmp_path: Path
) -> None:
    before = contents(kept.state)
    wholes = 0
    new = "new"

    def work(one: Kept) -> None:
        making.make(one.state, one.saved.with_name(new), with_keys=True)

    for one in moments(kept, tmp_path, work):
        assert contents(one.state) == before
        try:
            Backup(one.saved.with_name(new)).check()
        except BackupUnusable as error:
            assert "is no backup, or not a whole one" in str(error)
        else:
            assert events_of(one.saved.with_name(new)) == before[0]
            wholes += 1
    # The last steps come behind the manifest.
    assert 0 < wholes < 5


def test_a_restore_that_is_killed_at_any_moment_leaves_one_state_whole(
    kept: Kept, tmp_path: Path
) -> None:
    old = contents(kept.state)
    logs = {"jobs/1/0.log": "told\n"}
    seen: set[bool] = set()

    def work(one: Kept) -> None:
        restoring.restore(one.state, one.saved, "root")

    for one in moments(kept, tmp_path, work):
        pending = placing.is_pending(one.state)
        # Also if who goes on with it is killed in turn, ever later.
        ends = (killed_at(step, partial(placing.settle, one.state)) for step in range(99))
        assert any(end is not None for end in ends)
        is_new = contents(one.state) != old
        if is_new:
            events, found = contents(one.state)
            assert (events, found) == (events_of(one.saved), logs)
            (aside,) = one.state.glob("before-restore-*")
            assert contents(aside) == old
        assert is_new or not pending
        assert not [*one.state.glob("restor*")]
        seen.add(is_new)
    assert seen == {False, True}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mount --bind is Linux's")
def test_what_was_lost_is_said_though_the_rest_has_to_wait(copy: Kept) -> None:
    needs_root("mount")
    old, token = contents(copy.state), copy.state / "admin.token"
    subprocess.run(["mount", "--bind", token, token], check=True)
    try:
        said = refused("restore", copy.state, copy.saved)
        assert "the last event that it has: " in said
        assert "not all of it could be put in its place" in said
        assert "unmount it" in said
        assert "unmount it" in refused("backup", copy.state, copy.saved.with_name("new"))
    finally:
        subprocess.run(["umount", token], check=True)
    assert works("verify", copy.state).startswith("whole: ")
    (aside,) = copy.state.glob("before-restore-*")
    assert contents(aside) == old


@pytest.mark.parametrize("renames", range(0, 14, 2))
def test_the_next_start_finishes_what_was_cut_off(copy: Kept, renames: int) -> None:
    """Killed before a rename of this number, the next daemon has the one or the other state."""
    left = renames

    def work() -> None:
        real = os.rename

        def rename(*arguments: Any, **more: Any) -> None:
            nonlocal left
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            real(*arguments, **more)

        os.rename = rename
        restoring.restore(copy.state, copy.saved, "root")

    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    is_new = placing.is_pending(copy.state) or bool([*copy.state.glob("before-restore-*")])
    assert is_new == (renames > 0)
    # Whoever comes first.
    if renames % 4:
        assert works("verify", copy.state).startswith(f"whole: {3 if is_new else 6} events")
    with Daemon(copy.state, QUIET) as daemon, daemon.client() as client:
        assert output(client, "done") == "told\n"
        reply = client.ask_raw("rpc", "dispatcher", {"action": "show", "job_id": "later"})
        assert (reply["name"] == "error") == is_new
    with closing(sqlite3.connect(copy.state / "state.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
