"""`sysadmd stop`: the daemon goes, and with --jobs all that it has begun."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from server import stop_cli
from sysadmd.errors import CannotStop
from tests.kit import QUIET, Daemon, wait_for
from tests.kit.daemon import sysadmd
from tests.kit.processes import clean, ended, held, holders
from tests.kit.state_file import state_file

# It does not end by TERM, and its child is one more.
STUBBORN = "trap '' TERM; sleep 600 & echo begun; while :; do sleep 1; done"
CONFIG = f"{QUIET}[dispatcher]\nkill_grace = 0.5\n"


def stop(state_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return sysadmd("stop", "--state-dir", str(state_dir), *options)


def submit(daemon: Daemon, *ids: str) -> None:
    with daemon.local() as client:
        for id in ids:
            job = {"id": id, "queue": "pkg_queue", "commands": [["sh", "-c", STUBBORN]]}
            client.ask("rpc", "dispatcher", {"action": "submit", "job": job})
    jobs = daemon.state_dir / "jobs"
    wait_for(lambda: any("begun" in log.read_text() for log in jobs.glob("*/0.log")))


def test_it_ends_the_daemon_and_jobs_go_on(tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", CONFIG) as daemon:
        submit(daemon, "long")
        done = stop(daemon.state_dir)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"the daemon (pid {daemon.pid}) has ended\n"
        assert daemon.wait() == 0
        assert held(daemon.state_dir)
        none = stop(daemon.state_dir, "--jobs")
        assert none.returncode == 1
        assert "no daemon runs with the state directory" in none.stderr
        assert f"but jobs of one do (processes {min(holders(daemon.state_dir))}" in none.stderr
    clean(tmp_path / "state")


def test_with_jobs_nothing_is_left(tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", CONFIG) as daemon:
        # The second one waits for the first.
        submit(daemon, "long", "next")
        done = stop(daemon.state_dir, "--jobs")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("killing long, next\n")
        assert daemon.wait() == 0
        assert not holders(daemon.state_dir)
        assert not held(daemon.state_dir)
        with state_file(daemon.state_dir) as db:
            results = {*db.execute("SELECT result FROM jobs")}
        assert len(results) == 1
    again = stop(daemon.state_dir, "--jobs")
    assert again.returncode == 1
    assert again.stderr == (
        f"sysadmd: no daemon runs with the state directory {daemon.state_dir}\n"
    )


def test_who_has_the_directory_but_is_no_daemon_is_left_alone(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    hold = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX);"
        "print(flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", hold, str(lock)]
    other = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with ended(other):
        assert other.stdout is not None
        other.stdout.readline()
        done = stop(tmp_path)
        assert done.returncode == 1
        assert f"process {other.pid}, which has" in done.stderr
        assert other.poll() is None


def test_who_would_start_it_again_is_ended_with_it(tmp_path: Path) -> None:
    # As daemon(8) -R of FreeBSD does, by that name.
    supervisor = tmp_path / "daemon"
    shutil.copy(shutil.which("sh") or "", supervisor)
    script = (
        'trap \'kill "$child"; wait "$child"; exit 0\' TERM; '
        'while :; do "$@" & child=$!; wait "$child"; done'
    )
    with Daemon(
        tmp_path / "state", QUIET, wrapper=(str(supervisor), "-c", script, "daemon")
    ) as daemon:
        (child,) = psutil.Process(daemon.pid).children()
        done = stop(daemon.state_dir)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"the daemon (pid {child.pid}) has ended\n"
        assert daemon.wait() == 0


@pytest.mark.parametrize("options", [(), ("--jobs",)])
def test_without_a_state_directory_none_runs(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = stop(tmp_path / "none", *options)
    assert done.returncode == 1
    assert "no daemon runs with the state directory" in done.stderr
    assert not (tmp_path / "none").exists()


def test_one_that_was_started_meanwhile_is_told_and_left_alone(tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", CONFIG) as daemon:
        first = psutil.Process(daemon.pid)
        daemon.kill()
        daemon.start()
        with pytest.raises(CannotStop, match=f"another daemon \\(pid {daemon.pid}\\)"):
            stop_cli.end(daemon.state_dir, first)
