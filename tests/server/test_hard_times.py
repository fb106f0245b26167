"""What befalls a daemon: its state file locked or moved away, its disk full of a job's log."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import DEADLINE, QUIET, Client, Daemon, wait_for
from tests.kit.disks import fill, small_disk
from tests.kit.processes import members

# It is under way, and known to be, before it fills the disk.
FULL = 'sh -c "sleep 2; yes | head -c 20000000; exec sleep 77"'


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A file system of six mebibytes."""
    with small_disk(tmp_path / "mount", 6) as where:
        yield where


def job(client: Client, id: str) -> dict[str, str]:
    args = {"action": "show", "job_id": id}
    found: dict[str, str] = client.ask("rpc", "dispatcher", args)["job"]
    return found


def result(client: Client, id: str) -> str | None:
    return job(client, id).get("result")


def is_full(daemon: Daemon) -> bool:
    room = os.statvfs(daemon.state_dir)
    return room.f_bavail == 0


def test_a_job_that_has_filled_the_disk_can_be_killed_and_times_out(mount: Path) -> None:
    with Daemon(mount / "state", QUIET) as daemon, daemon.client() as client:
        for id, more in (("killed", {}), ("late", {"timeout": 5})):
            order = {"commands": [FULL], "id": id, **more}
            client.ask("rpc", "dispatcher", {"action": "submit", "job": order})
        wait_for(lambda: is_full(daemon), "a full disk")
        killed = client.ask("rpc", "dispatcher", {"action": "kill", "job_id": "killed"})
        assert killed["killed"]["jobs"] == ["killed"]
        wait_for(lambda: not members(daemon.state_dir), "the ends of both")
        for log in (daemon.state_dir / "jobs").glob("*/*.log"):
            os.truncate(log, 0)
        wait_for(lambda: result(client, "killed") == "killed", "the first result")
        wait_for(lambda: result(client, "late") == "timed-out", "the second")
        # Who killed it is written down as soon as there is room.
        assert "root@127.0.0.1: kill killed" in client.trail()


def test_a_full_disk_that_prevents_a_start_is_named_and_nothing_else_blamed(
    mount: Path,
) -> None:
    with Daemon(mount / "state", QUIET) as daemon:
        pass
    fill(mount / "filler")
    done = subprocess.run(daemon.command(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "free some space" in done.stderr
    assert "move it away" not in done.stderr
    (mount / "filler").unlink()
    with daemon, daemon.client() as client:
        assert client.ask("rpc", "identify")["type"] == "server"


def test_a_state_file_that_another_process_locks_is_waited_for(daemon: Daemon) -> None:
    with daemon.client() as client:
        go = daemon.state_dir / "go"
        until_told = f'sh -c "while [ ! -e {go} ]; do sleep 0.05; done"'
        client.ask("rpc", "dispatcher", {"action": "run", "short": until_told})
        other = sqlite3.connect(daemon.state_dir / "state.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            refused = client.ask_raw("rpc", "dispatcher", {"action": "run", "x": "true"})
            assert refused["args"]["code"] == 503
            assert "locked" in refused["args"]["detail"]
            go.touch()
            wait_for(lambda: "jobs stand still" in daemon.log.read_text(), "the log line")
        finally:
            other.execute("ROLLBACK")
            other.close()
        wait_for(lambda: result(client, "short") == "succeeded", "the job's end")


def test_jobs_of_a_state_file_that_was_moved_away_are_taken_for_no_others(
    daemon: Daemon,
) -> None:
    with daemon.client() as client:
        client.ask("rpc", "dispatcher", {"action": "run", "old": 'sh -c "sleep 3; exit 7"'})
        wait_for(lambda: [*daemon.state_dir.glob("jobs/*/0.log")], "the start")
        (log,) = daemon.state_dir.glob("jobs/*/0.log")
    daemon.kill()
    for file in daemon.state_dir.glob("state.db*"):
        file.unlink()
    with daemon.start(), daemon.client() as client:
        begun = time.monotonic()
        client.ask("rpc", "dispatcher", {"action": "run", "new": 'sh -c "sleep 5"'})
        (aside,) = daemon.state_dir.glob("jobs-aside-*")
        assert (aside / log.relative_to(daemon.state_dir / "jobs")).exists()
        wait_for(lambda: "jobs-aside-" in daemon.log.read_text())
        wait_for(lambda: result(client, "new"), "the new job's end")
        assert result(client, "new") == "succeeded"
        assert time.monotonic() - begun > 4


def test_a_paused_queue_stays_paused_while_it_is_gone_from_the_configuration(
    tmp_path: Path,
) -> None:
    with_queue = f"{QUIET}[dispatcher.queues]\nq = 1\n"
    with Daemon(tmp_path / "state", with_queue) as daemon, daemon.client() as client:
        client.ask("rpc", "dispatcher", {"action": "pause", "queue": "q"})
        for config in (QUIET, with_queue):
            daemon.config.write_text(config)
            daemon.reload()
        order = {"commands": ["true"], "id": "w", "queue": "q"}
        client.ask("rpc", "dispatcher", {"action": "submit", "job": order})
        client.ask("rpc", "dispatcher", {"action": "run", "other": "true"})
        wait_for(lambda: result(client, "other") == "succeeded", "another job")
        assert job(client, "w")["state"] == "pending"


def test_a_signal_in_the_first_moments_is_not_the_systems_to_handle(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("there is no /proc to see who takes signals")
    for number in (signal.SIGTERM, signal.SIGINT):
        command = Daemon(tmp_path / "state", QUIET).command()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            wait_for(lambda: takes(process.pid, signal.SIGHUP), "the first moments")  # noqa: B023
            # The last that it takes care of.
            process.send_signal(signal.SIGHUP)
            process.send_signal(number)
            _, errors = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
        assert process.returncode == 0, errors.decode()
        assert b"Traceback" not in errors


def test_a_reload_asked_for_in_the_first_moments_is_done(tmp_path: Path) -> None:
    # The configuration has been read when the signal comes, and is not the one that is meant.
    before = (
        "import os, signal, pathlib, server.service as s; run = s.run; "
        "s.run = lambda kind, options, settings: (options.config.write_text('log_level = 5'), "
        "os.kill(os.getpid(), signal.SIGHUP), run(kind, options, settings))[2]"
    )
    with Daemon(tmp_path / "state", QUIET, before=before) as daemon:
        wait_for(lambda: "reload refused" in daemon.log.read_text(), "the reload")


def takes(pid: int, number: signal.Signals) -> bool:
    """Does the process handle this signal itself? Source: proc_pid_status(5), SigCgt."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize(
    "put", ["mkfifo $f", "ln -s /etc/passwd $f", "ln -s /dev/tty $f", "mkdir $f", ": > $f"]
)
def test_a_job_that_replaces_its_log_holds_nobody_up(tmp_path: Path, put: str) -> None:
    with Daemon(tmp_path / "state", QUIET) as daemon:
        with daemon.client() as client:
            client.ask("events", "subscribe", {"systems": ["dispatcher"]})
            # Its log is read while it runs, too: for its progress.
            script = f"f=jobs/1/0.log; echo before; rm $f; {put}; sleep 1.5; echo after"
            commands = [["sh", "-c", script], ["true"]]
            order = {"id": "one", "commands": commands, "cwd": str(daemon.state_dir)}
            client.ask("rpc", "dispatcher", {"action": "submit", "job": order})
            client.until(lambda frame: frame["args"]["state"] == "finished")
            assert result(client, "one") == "succeeded"
        with daemon.client() as client:
            log = client.ask("rpc", "dispatcher", {"action": "log", "job_id": "one"})
            assert "root" not in log["text"]
            client.ask("rpc", "logs", {"action": "read_logs", "logs": ["dispatcher"]})
            asked = {"systems": ["dispatcher"], "after": "", "snapshot": True}
            client.ask_raw("events", "subscribe", asked)
            assert result(client, "one") == "succeeded"
        assert daemon.stop() == 0
