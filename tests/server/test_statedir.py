"""The state directory: who may have it, and what becomes of it at a start and in use."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from tests.kit import QUIET, Client, Daemon, wait_for
from tests.kit.daemon import sysadmd
from tests.kit.disks import fill, small_disk
from tests.kit.needs import needs_root
from tests.kit.processes import books, end_pairs, holders


def serve(state_dir: Path) -> subprocess.CompletedProcess[str]:
    return sysadmd("serve", "--state-dir", str(state_dir), "--listen", "127.0.0.1:0")


def submit(client: Client, id: str, command: str = "true") -> dict[str, object]:
    job = {"id": id, "commands": [command]}
    args: dict[str, object] = client.ask_raw(
        "rpc", "dispatcher", {"action": "submit", "job": job}
    )["args"]
    return args


def result(client: Client, id: str) -> str | None:
    args = {"action": "show", "job_id": id}
    found: str | None = client.ask("rpc", "dispatcher", args)["job"]["result"]
    return found


def ill(daemon: Daemon, words: str) -> bool:
    status, text = daemon.fetch("/healthz")
    return status == 503 and words in text


def test_a_directory_that_is_moved_takes_nothing_until_it_is_back(daemon: Daemon) -> None:
    there, aside = daemon.state_dir, daemon.state_dir.with_name("aside")
    with daemon.client() as client:
        go = there.with_name("go")
        submit(client, "running", f'sh -c "while [ ! -e {go} ]; do sleep 0.05; done; exit 7"')
        wait_for(lambda: [*there.glob("jobs/*/0.log")], "the start")
        there.rename(aside)
        wait_for(lambda: "is not there any more" in daemon.log.read_text(), "a look")
        refused = submit(client, "lost")
        assert refused["code"] == 507
        assert "Put back what was there" in str(refused["detail"])
        go.touch()
        # In its book the end waits for the way back.
        wait_for(lambda: '"end"' in books(aside), "the end in the book")
        aside.rename(there)
        wait_for(lambda: result(client, "running"), "the end in the tables")
        assert result(client, "running") == "failed"
        assert daemon.fetch("/healthz")[0] == 200
        assert "job" in submit(client, "kept")
    said = daemon.log.read_text()
    assert said.count("every change is refused") == 1
    assert "Traceback" not in said


def test_a_state_file_that_is_deleted_is_said_and_takes_nothing(daemon: Daemon) -> None:
    with daemon.client() as client:
        for file in daemon.state_dir.glob("state.db*"):
            file.unlink()
        assert submit(client, "lost")["code"] == 507
        assert ill(daemon, "state.db is not there any more")
        snapshot = {"systems": ["dispatcher"], "snapshot": True}
        assert client.ask_raw("events", "subscribe", snapshot)["args"]["code"] == 507
    daemon.stop()
    # Nobody has made another one meanwhile.
    assert not [*daemon.state_dir.glob("state.db*")]


def test_without_its_lock_a_directory_still_takes_no_second_daemon(daemon: Daemon) -> None:
    (daemon.state_dir / "lock").unlink()
    second = serve(daemon.state_dir)
    assert second.returncode == 1
    assert "is in use by the daemon, or a restore, with pid" in second.stderr
    assert not (daemon.state_dir / "lock").exists()
    wait_for(lambda: ill(daemon, "lock is not there any more"), "a look")


def test_directories_above_that_were_missing_are_for_everybody_to_pass(tmp_path: Path) -> None:
    state = tmp_path / "var" / "db" / "sysadmd"
    done = sysadmd("token", "add", "x", "--role", "read", "--state-dir", str(state))
    assert done.returncode == 0, done.stderr
    modes = [path.stat().st_mode & 0o777 for path in (state, *state.parents[:2])]
    assert modes == [0o700, 0o755, 0o755]


def test_a_directory_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    needs_root("chown")
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, pwd.getpwnam("nobody").pw_uid, -1)
    done = serve(state)
    assert done.returncode == 1
    assert "belongs to uid" in done.stderr
    assert not [*state.iterdir()]


@contextlib.contextmanager
def read_only(mount: Path) -> Generator[None]:
    # Busy for as long as a process that is being killed has a file open there.
    remount = ["mount", "-o", "remount,ro", str(mount)]
    wait_for(lambda: subprocess.run(remount, check=False).returncode == 0, "the remount", 10)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", mount], check=True)


@contextlib.contextmanager
def full(mount: Path) -> Generator[None]:
    fill(mount / "filler")
    try:
        yield
    finally:
        (mount / "filler").unlink()


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize(
    ("so", "words"), [(read_only, "mount its file system writable"), (full, "free some space")]
)
def test_a_disk_that_takes_nothing_is_said_at_the_start(
    tmp_path: Path,
    so: Callable[[Path], contextlib.AbstractContextManager[None]],
    words: str,
    begun: bool,
) -> None:
    with small_disk(tmp_path / "mount", 6) as mount:
        daemon = Daemon(mount / "state", QUIET)
        if begun:
            daemon.start()
            # One that is on its way would not be ended, and keep the disk busy.
            wait_for(lambda: holders(daemon.state_dir, "keeper"), "the keeper")
            daemon.stop()
            end_pairs(daemon.state_dir)
        with so(mount):
            done = serve(daemon.state_dir)
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert "move it away" not in done.stderr


def test_a_start_that_was_killed_leaves_nothing_for_the_next(tmp_path: Path) -> None:
    # openssl(1) never comes back: the kill finds the start in the middle.
    slow = tmp_path / "bin" / "openssl"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 1000\n")
    slow.chmod(0o755)
    daemon = Daemon(tmp_path / "state", QUIET)
    tls = daemon.state_dir / "tls"
    process = subprocess.Popen(
        daemon.command(), env={**os.environ, "PATH": f"{slow.parent}:{os.environ['PATH']}"}
    )
    try:
        wait_for(lambda: [*tls.glob("*")], "the scratch directory")
    finally:
        process.kill()
        process.wait()
    assert [*tls.iterdir()]
    with daemon:
        assert {file.name for file in tls.iterdir()} == {"certificate.pem", "key.pem"}
