"""/healthz with each of its reasons, taken for real, and without it when it is over."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

from server.loop_clock import BEAT, LATE
from tests.kit import QUIET, Daemon, wait_for
from tests.kit.frozen import freeze, was_killed
from tests.kit.hung import hung_file_system
from tests.kit.processes import end, holders

WELL = (200, "ok\n")


def wait_until_ill(daemon: Daemon, reason: str) -> None:
    def ill() -> bool:
        status, text = daemon.fetch("/healthz")
        return status == 503 and reason in text.splitlines()

    wait_for(ill, reason)


def wait_until_well(daemon: Daemon) -> None:
    wait_for(lambda: daemon.fetch("/healthz") == WELL, "health")


def submit(daemon: Daemon, command: str) -> None:
    with daemon.client() as client:
        client.ask("rpc", "dispatcher", {"action": "submit", "job": {"commands": [command]}})


def run(daemon: Daemon, command: str) -> None:
    """To its end: by then there is a keeper."""
    with daemon.client() as client:
        client.ask("events", "subscribe", "dispatcher")
        client.ask("rpc", "dispatcher", {"action": "submit", "job": {"commands": [command]}})
        client.until(lambda frame: frame["args"]["state"] == "finished")


def test_a_journal_that_cant_be_written(tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", QUIET) as daemon:
        wait_until_well(daemon)
        with closing(sqlite3.connect(daemon.state_dir / "state.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            with daemon.client() as client:
                args = {"action": "submit", "job": {"commands": ["true"]}}
                detail = client.ask_raw("rpc", "dispatcher", args)["args"]["detail"]
            status, text = daemon.fetch("/healthz")
            assert status == 503
            assert detail.startswith(text.strip())
        submit(daemon, "true")
        wait_until_well(daemon)


def test_jobs_that_no_keeper_can_be_started_for(tmp_path: Path) -> None:
    # It is started by the interpreter that the daemon runs in, which is gone for a while.
    python = tmp_path / "python"
    before = f"sys.executable = {str(python)!r}"
    python.symlink_to(sys.executable)
    with Daemon(tmp_path / "state", QUIET, before=before) as daemon:
        run(daemon, "true")
        python.unlink()
        for pid in holders(daemon.state_dir):
            end(pid, signal.SIGKILL)
        reason = "accepted jobs can't be started: there is no keeper; the log says why"
        wait_until_ill(daemon, reason)
        python.symlink_to(sys.executable)
        wait_until_well(daemon)


def test_jobs_that_a_keeper_does_not_take(tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", QUIET) as daemon:
        run(daemon, "true")
        # The disk lets it write nothing more.
        (keeper,) = holders(daemon.state_dir, "keeper")
        unlimited = resource.RLIM_INFINITY
        (book,) = (daemon.state_dir / "keeper").glob("*.book")
        resource.prlimit(keeper, resource.RLIMIT_FSIZE, (book.stat().st_size + 5, unlimited))
        try:
            submit(daemon, "true")
            reason = "accepted jobs can't be started: the keeper does not take them"
            wait_until_ill(daemon, reason)
        finally:
            resource.prlimit(keeper, resource.RLIMIT_FSIZE, (unlimited, unlimited))
        wait_until_well(daemon)


def test_a_start_that_hangs_is_no_keeper_that_does_not_answer(tmp_path: Path) -> None:
    patience = "import dispatcher.runner; dispatcher.runner.UNANSWERED = 0.1"
    hung = hung_file_system(tmp_path / "pool")
    with hung as place, Daemon(tmp_path / "state", QUIET, before=patience) as daemon:
        submit(daemon, str(place / "program"))
        # The keeper itself calls it hanging, after 5 s.
        wait_for(lambda: "the start of command 0" in daemon.log.read_text())
        wait_until_well(daemon)
        for pid in holders(daemon.state_dir, "keeper"):
            end(pid, signal.SIGKILL)
        run(daemon, "true")
        wait_until_well(daemon)
        with daemon.client() as client:
            client.ask("events", "subscribe", "dispatcher")
            jobs = client.ask("rpc", "dispatcher", {"action": "list"})["jobs"]
            (id,) = jobs["no_queue"]
            client.ask("rpc", "dispatcher", {"action": "kill", "job_id": id})
            client.until(lambda frame: frame["args"]["state"] == "finished")


def test_a_guard_that_is_stopped_and_does_not_go_on_is_told_of(tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", QUIET) as daemon, daemon.client() as client:
        run(daemon, "true")
        client.ask("events", "subscribe", "system-state")
        (guard,) = holders(daemon.state_dir, "guard")
        id = next((daemon.state_dir / "keeper").glob("*.guard")).stem
        stopped = f"the guard {id} (process {guard}) was stopped and"
        freeze(guard)
        says = f"{stopped} is told to go on. See who stops it"
        wait_until_ill(daemon, says)
        assert client.event()["args"]["error"] == f"jobs: {says}"
        wait_for(lambda: was_killed(guard))
        error = client.event()["args"]["error"]
        assert error.startswith(f"jobs: {stopped} did not go on when told to, so it was ended")
        run(daemon, "true")
        wait_until_well(daemon)
        assert "error" not in client.event()["args"]


def test_a_collector_that_raises(tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    before = (
        "import collectors.hostname as h, pathlib; name = h.host_name; "
        f"flag = pathlib.Path({str(flag)!r}); "
        "h.host_name = lambda: name() if not flag.exists() else 1 / 0"
    )
    config = QUIET.replace("enabled = false", "interval = 1", 1)
    with Daemon(tmp_path / "state", config, before=before) as daemon:
        wait_until_well(daemon)
        flag.touch()
        wait_until_ill(
            daemon, "the collector hostname failed and is started again; see the log"
        )
        flag.unlink()
        wait_until_well(daemon)


def test_a_collector_whose_source_is_in_trouble_is_not_dead(tmp_path: Path) -> None:
    config = QUIET.replace(
        "zpool]\nenabled = false", 'zpool]\nenabled = true\ncommand = "no-zpool-here"'
    )
    with Daemon(tmp_path / "state", config) as daemon:
        wait_for(
            lambda: (
                'sysadmd_collector_failures_total{collector="zpool"} 0.0'
                not in daemon.fetch("/metrics")[1]
            ),
            "a look that failed",
        )
        assert daemon.fetch("/healthz") == WELL


def test_a_collector_that_does_not_come_back_from_a_look(tmp_path: Path) -> None:
    # It sleeps for an hour, and that is more than its rounds allow.
    before = "import collectors.supervisor as s; s.SILENT = 1.0; s.ROUNDS = 0"
    config = QUIET.replace("enabled = false", "interval = 3600", 1)
    with Daemon(tmp_path / "state", config, before=before) as daemon:
        wait_until_ill(daemon, "the collector hostname has not looked for 1 s")


def test_a_loop_that_stood_still(tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", QUIET) as daemon:
        # Its loop turns.
        wait_until_well(daemon)
        os.kill(daemon.pid, signal.SIGSTOP)
        time.sleep(LATE + 2 * BEAT)
        os.kill(daemon.pid, signal.SIGCONT)
        status, text = daemon.fetch("/healthz")
        assert status == 503
        assert text.startswith("the daemon stood still for ")
        lag = dict(
            line.rsplit(" ", 1)
            for line in daemon.fetch("/metrics")[1].splitlines()
            if line.startswith("sysadmd_loop_")
        )
        assert float(lag["sysadmd_loop_lag_seconds_sum"]) >= LATE
        within = float(lag['sysadmd_loop_lag_seconds_bucket{le="1.0"}'])
        assert within < float(lag['sysadmd_loop_lag_seconds_bucket{le="+Inf"}'])
        assert float(lag["sysadmd_loop_stood_still_seconds_total"]) > 0
