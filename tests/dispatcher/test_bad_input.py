"""Jobs and machines that misbehave: no crash, no mix-up, nobody else's process harmed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dispatcher import logs
from tests.kit import needs_root, wait_for
from tests.kit.clock import Clocks
from tests.kit.driver import Driver
from tests.kit.processes import APART, begun, end, end_pairs, held, members


def test_a_log_that_is_deleted_under_its_job_harms_nothing(daemon: Driver) -> None:
    uid = daemon.submit(
        ["sh", "-c", "echo one; while [ ! -e go ]; do sleep 0.05; done; echo two; exit 3"],
        "echo never",
        cwd=str(daemon.state_dir),
    )
    wait_for(lambda: any(body.get("to") == 4 for _, body in daemon.events()))
    (daemon.state_dir / "jobs" / str(uid) / "0.log").unlink()
    daemon.kill()
    daemon.start()
    (daemon.state_dir / "go").touch()
    job = daemon.finished(uid)
    assert (job.result, job.commands[0].return_code) == ("failed", 3)
    assert job.commands[0].log_size == 8
    # What was deleted is missing, and known to be.
    assert logs.read(logs.path(daemon.state_dir, uid, 0), 0, 100) == (4, b"two\n")


def test_a_whole_directory_deleted_under_its_job_is_made_again(room: Driver) -> None:
    script = f"rm -r {room.state_dir}/jobs/*; echo lost"
    uid = room.submit(["sh", "-c", script], "echo there")
    job = room.finished(uid)
    assert (job.result, job.commands[0].log_size) == ("succeeded", 5)
    assert room.output(uid, 0) == b""
    assert room.output(uid, 1) == b"there\n"


@pytest.mark.parametrize("role", ["daemon", "both"])
def test_a_clock_that_steps_back_by_an_hour_harms_nothing(
    daemon: Driver, tmp_path_factory: pytest.TempPathFactory, role: str
) -> None:
    an_hour_ago = Clocks(tmp_path_factory.mktemp("clock"), -3600).environment
    script = "echo one; while [ ! -e go ]; do sleep 0.05; done; exit 3"
    adopted = daemon.submit(["sh", "-c", script], cwd=str(daemon.state_dir))
    timed = daemon.submit("sleep 60", timeout=3)
    wait_for(lambda: daemon.output(adopted) == b"one\n")
    wait_for(lambda: daemon.job(timed).started)
    # A command may write before the keeper has written that it has begun.
    wait_for(lambda: len(begun(daemon.state_dir)) == 2)
    daemon.kill()
    if role == "both":
        # Only the identity of the processes is left to tell what runs.
        end_pairs(daemon.state_dir)
    daemon.environment.update(an_hour_ago)
    daemon.start()
    other = daemon.submit("true")
    assert daemon.finished(other).result == "succeeded"
    assert (daemon.job(other).created or 0) < (daemon.job(adopted).created or 0)
    assert daemon.job(adopted).state == "running"
    (daemon.state_dir / "go").touch()
    job = daemon.finished(adopted)
    if role == "daemon":
        assert (job.result, job.commands[0].return_code) == ("failed", 3)
    else:
        assert (job.result, job.commands[0].return_code) == ("lost", None)
    before = time.monotonic()
    assert daemon.finished(timed).result == "timed-out"
    assert time.monotonic() - before < 20
    # The clock steps forward again: the order of the journal is none of its business.
    daemon.kill()
    for name in an_hour_ago:
        del daemon.environment[name]
    daemon.start()
    assert daemon.finished(daemon.submit("true")).result == "succeeded"
    seqs = [seq for seq, _ in daemon.events()]
    assert seqs == list(range(1, len(seqs) + 1))


@pytest.mark.parametrize("mode", ["fast", "portable"])
def test_a_pid_that_another_process_has_by_now_is_not_taken_for_the_job(
    tmp_path: Path, mode: str
) -> None:
    needs_root("unshare")
    release = tuple(map(int, Path("/proc/sys/kernel/osrelease").read_text().split(".")[:2]))
    if release < (6, 14):
        pytest.skip("pid_max belongs to the whole machine on this kernel")
    script = Path(__file__).with_name("pid_reuse.py")
    result = subprocess.run(
        [
            *("unshare", "--pid", "--fork", "--mount-proc", "--kill-child"),
            *(sys.executable, str(script), str(tmp_path), mode),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("proven\n")


def test_a_job_that_closes_its_descriptors_is_followed_to_its_end(daemon: Driver) -> None:
    script = (
        "import os, time\n"
        "os.write(1, b'bye\\n')\n"
        "for number in range(64):\n"
        "    try: os.close(number)\n"
        "    except OSError: pass\n"
        "while not os.path.exists('go'): time.sleep(0.05)\n"
        "os._exit(5)\n"
    )
    cwd = str(daemon.state_dir)
    uid = daemon.submit([sys.executable, "-S", "-c", script], cwd=cwd)
    orphan = daemon.submit([sys.executable, "-S", "-c", script], cwd=cwd)
    wait_for(lambda: daemon.output(uid) == daemon.output(orphan) == b"bye\n")
    daemon.kill()
    daemon.start()
    assert daemon.job(uid).state == "running"
    (daemon.state_dir / "go").touch()
    job = daemon.finished(uid)
    assert (job.commands[0].return_code, job.commands[0].log_size) == (5, 4)
    assert daemon.finished(orphan).commands[0].return_code == 5


def test_a_job_that_closes_its_descriptors_is_waited_for_without_guard_and_keeper(
    daemon: Driver,
) -> None:
    script = (
        "import os, time\n"
        "os.write(1, b'bye\\n')\n"
        "os.close(1); os.close(2)\n"
        "while not os.path.exists('go'): time.sleep(0.05)\n"
    )
    uid = daemon.submit([sys.executable, "-S", "-c", script], cwd=str(daemon.state_dir))
    wait_for(lambda: daemon.output(uid) == b"bye\n" and begun(daemon.state_dir))
    daemon.kill()
    end_pairs(daemon.state_dir)
    daemon.start()
    # Nobody holds the log, and yet it lives.
    daemon.finished(daemon.submit("sleep 1"))
    assert daemon.job(uid).state == "running"
    (daemon.state_dir / "go").touch()
    assert daemon.finished(uid).result == "lost"


# Sleepers that note their pids: one each that is the job's child, in its group, in a session of
# its own, in the background without a parent, and behind a shell there.
TREE = f"""
trap '' TERM
{APART} sh -c 'sh -c "$SLEEP"; :' & sh -c "$SLEEP" &
(sh -c 'sh -c "$SLEEP" & sh -c "$SLEEP"; :' &)
echo up; sh -c "$SLEEP"; sh -c "$SLEEP"
"""


@pytest.fixture
def tree(daemon: Driver) -> Iterator[int]:
    """A job that ignores TERM, with children in its group and in sessions of their own."""
    pids = daemon.state_dir / "pids"
    sleep = {"SLEEP": f"echo $$ >>{pids}; exec sleep 300"}
    uid = daemon.submit(["sh", "-c", TREE], id="tree", env=sleep)
    wait_for(lambda: pids.exists() and pids.read_text().count("\n") == 5)
    assert daemon.output(uid) == b"up\n"
    yield uid
    if held(daemon.state_dir):
        for pid in pids.read_text().split():
            end(int(pid))


def test_a_tree_that_ignores_term_is_killed_to_the_last(daemon: Driver, tree: int) -> None:
    daemon.ask({"kill": ["tree"]})
    job = daemon.finished(tree)
    assert (job.result, job.commands[0].return_code) == ("killed", -9)
    wait_for(lambda: not held(daemon.state_dir))


def test_term_is_heard_before_kill(daemon: Driver) -> None:
    uid = daemon.submit(
        ["sh", "-c", "trap 'echo heard; exit 9' TERM; echo up; while :; do sleep 0.05; done"],
        id="a",
    )
    wait_for(lambda: daemon.output(uid) == b"up\n")
    daemon.ask({"kill": ["a"]})
    job = daemon.finished(uid)
    assert (job.result, job.commands[0].return_code) == ("killed", 9)
    assert daemon.output(uid).endswith(b"heard\n")


def test_a_job_that_stops_itself_can_be_killed_and_goes_on_if_continued(
    daemon: Driver,
) -> None:
    first = daemon.submit(["sh", "-c", "kill -STOP $$; exit 4"], id="a")
    second = daemon.submit(["sh", "-c", "kill -STOP $$; exit 4"], id="b")

    def stopped() -> list[psutil.Process]:
        found = members(daemon.state_dir)
        return [process for process in found if process.status() == psutil.STATUS_STOPPED]

    wait_for(lambda: len(stopped()) == 2)
    daemon.kill()
    daemon.start()
    daemon.ask({"kill": ["a"]})
    job = daemon.finished(first)
    assert (job.result, job.commands[0].return_code) == ("killed", -15)
    assert daemon.job(second).state == "running"
    stopped()[0].resume()
    assert daemon.finished(second).commands[0].return_code == 4


def test_a_job_that_forks_away_from_itself_is_killed_to_the_last(daemon: Driver) -> None:
    # Each generation is in a group of its own, and its parent is gone at once.
    away = "os.setpgid(0, 0)"
    if "SYSADMD_PORTABLE" in daemon.environment:
        # Without a session of its own, who leaves the group can't be told from others.
        away = ""
    script = (
        "import os, time\n"
        "os.write(1, b'up\\n')\n"
        "until = time.monotonic() + 50\n"
        "while time.monotonic() < until:\n"
        "    if os.fork(): time.sleep(0.02); os._exit(0)\n"
        f"    {away}\n"
        "    time.sleep(0.02)\n"
    )
    main = f"import os, time\nif os.fork() == 0: exec({script!r})\ntime.sleep(60)"
    uid = daemon.submit([sys.executable, "-S", "-c", main], id="bomb")
    wait_for(lambda: b"up\n" in daemon.output(uid))
    daemon.ask({"kill": ["bomb"]})
    assert daemon.finished(uid).result == "killed"
    wait_for(lambda: not held(daemon.state_dir), seconds=30)


def test_a_job_that_forks_in_its_group_is_killed_to_the_last(daemon: Driver) -> None:
    script = (
        "import os, time\n"
        "os.write(1, b'up\\n')\n"
        "until = time.monotonic() + 30\n"
        "for number in range(3):\n"
        "    os.fork()\n"
        "while time.monotonic() < until:\n"
        "    if os.fork() == 0: time.sleep(0.05); os._exit(0)\n"
        "    time.sleep(0.01)\n"
        "    try: os.waitpid(-1, os.WNOHANG)\n"
        "    except OSError: pass\n"
    )
    uid = daemon.submit([sys.executable, "-S", "-c", script], id="bomb")
    wait_for(lambda: len(members(daemon.state_dir)) > 8)
    daemon.ask({"kill": ["bomb"]})
    assert daemon.finished(uid).result == "killed"
    wait_for(lambda: not held(daemon.state_dir))


def test_a_job_that_ends_while_a_grandchild_writes_on_is_finished(daemon: Driver) -> None:
    script = "sh -c 'while [ ! -e stop ]; do echo more; sleep 0.02; done' & echo end"
    uid = daemon.submit(["sh", "-c", script], "echo next", cwd=str(daemon.state_dir))
    job = daemon.finished(uid)
    assert job.result == "succeeded"
    size = job.commands[0].log_size or 0
    wait_for(lambda: len(daemon.output(uid)) > size)
    daemon.kill()
    daemon.start()
    assert daemon.job(uid) == job
    # It is not the job's any more: nothing of it is told.
    assert all((body.get("to") or 0) <= size for _, body in daemon.events())
    (daemon.state_dir / "stop").touch()
    wait_for(lambda: not held(daemon.state_dir))
