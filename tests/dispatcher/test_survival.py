"""What happens to jobs when processes die, and to processes when nobody needs them any more."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.kit import ROOT, needs_fast, wait_for
from tests.kit.driver import PROGRAM, Driver
from tests.kit.frozen import end_frozen, freeze, thaw
from tests.kit.processes import books, end, end_pairs, holders, starters
from tests.kit.state_file import state_file

SLOW = ["sh", "-c", "echo first; while [ ! -e go ]; do sleep 0.05; done; echo second; exit 7"]


def start_slow(daemon: Driver, **more: str) -> int:
    """A job that ends, with code 7, when `let_go` says so; returns once it has begun."""
    uid = daemon.submit(SLOW, cwd=str(daemon.state_dir), **more)
    wait_for(lambda: daemon.output(uid) == b"first\n")
    # It may write before the keeper has written that it has begun.
    wait_for(lambda: f'"began":[{uid},' in books(daemon.state_dir))
    return uid


def let_go(daemon: Driver) -> None:
    (daemon.state_dir / "go").touch()


def check_slow(daemon: Driver, uid: int) -> None:
    job = daemon.finished(uid)
    assert (job.result, job.commands[0].return_code) == ("failed", 7)
    assert daemon.output(uid) == b"first\nsecond\n"
    assert job.commands[0].log_size == 13


def test_a_job_goes_on_when_the_daemon_is_killed_and_is_adopted(daemon: Driver) -> None:
    uid = start_slow(daemon)
    daemon.kill()
    daemon.start()
    assert daemon.job(uid).state == "running"
    let_go(daemon)
    check_slow(daemon, uid)


def test_a_job_that_ends_while_there_is_no_daemon_is_known_by_its_true_code(
    daemon: Driver,
) -> None:
    uid = start_slow(daemon)
    daemon.kill()
    let_go(daemon)
    wait_for(lambda: daemon.output(uid).endswith(b"second\n") and not holders(daemon.state_dir))
    daemon.start()
    check_slow(daemon, uid)


def test_what_waits_starts_in_order_under_the_next_daemon(daemon: Driver) -> None:
    start_slow(daemon, queue="pkg_queue")
    waiting = [
        daemon.submit(
            ["sh", "-c", f"echo {n} >>order"], queue="pkg_queue", cwd=str(daemon.state_dir)
        )
        for n in range(5)
    ]
    daemon.kill()
    daemon.start()
    let_go(daemon)
    for uid in waiting:
        assert daemon.finished(uid).result == "succeeded"
    assert (daemon.state_dir / "order").read_text().split() == ["0", "1", "2", "3", "4"]


def test_a_pause_holds_over_a_restart(room: Driver) -> None:
    for queue in ("pkg_queue", None):
        room.ask({"pause": queue})
        uid = room.submit("true", queue=queue)
        room.kill()
        room.start()
        # Another queue's job comes and goes meanwhile.
        room.finished(room.submit("true", queue="iocage_queue"))
        assert room.job(uid).state == "pending"
        room.ask({"resume": queue})
        assert room.finished(uid).result == "succeeded"


def test_a_queue_that_is_no_longer_configured_drains(room: Driver) -> None:
    first = start_slow(room, queue="pkg_queue")
    second = room.submit("true", queue="pkg_queue")
    room.kill()
    room.settings["queues"] = {"other": 1}
    room.start()
    reply = room.ask({"submit": [{"commands": ["true"], "queue": "pkg_queue"}]})
    assert reply["error"] == "bad-request"
    let_go(room)
    check_slow(room, first)
    assert room.finished(second).result == "succeeded"


def test_the_guard_tells_the_end_of_what_a_killed_keeper_leaves(room: Driver) -> None:
    uid = start_slow(room)
    (keeper,) = holders(room.state_dir, "keeper")
    end(keeper)
    # Others are started by a new pair at once.
    assert room.finished(room.submit("true")).result == "succeeded"
    let_go(room)
    check_slow(room, uid)


def test_what_a_killed_keeper_leaves_is_told_even_when_the_daemon_is_killed_too(
    room: Driver,
) -> None:
    uid = start_slow(room)
    room.kill()
    (keeper,) = holders(room.state_dir, "keeper")
    end(keeper)
    let_go(room)
    wait_for(lambda: not holders(room.state_dir))
    room.start()
    check_slow(room, uid)


def test_a_keeper_without_its_guard_drains(daemon: Driver) -> None:
    uid = start_slow(daemon)
    (guard,) = holders(daemon.state_dir, "guard")
    (old,) = holders(daemon.state_dir, "keeper")
    end(guard)
    wait_for(lambda: len(holders(daemon.state_dir, "keeper")) == 2)
    assert daemon.finished(daemon.submit("true")).result == "succeeded"
    let_go(daemon)
    check_slow(daemon, uid)
    wait_for(lambda: old not in holders(daemon.state_dir, "keeper"))


def test_when_guard_and_keeper_are_killed_a_job_ends_as_lost_with_its_whole_log(
    daemon: Driver,
) -> None:
    uid = start_slow(daemon, queue="pkg_queue")
    after = daemon.submit("true", queue="pkg_queue")
    end_pairs(daemon.state_dir)
    # It lives, so it is waited for; what comes behind it in its queue waits as well.
    assert daemon.finished(daemon.submit("true")).result == "succeeded"
    assert daemon.job(uid).state == "running"
    assert daemon.job(after).state == "pending"
    daemon.kill()
    daemon.start()
    assert daemon.job(uid).state == "running"
    let_go(daemon)
    job = daemon.finished(uid)
    assert (job.result, job.commands[0].return_code) == ("lost", None)
    assert daemon.output(uid) == b"first\nsecond\n"
    assert job.commands[0].log_size == 13
    assert daemon.finished(after).result == "succeeded"


def test_starters_without_guard_and_keeper_tell_the_ends_of_their_commands(
    daemon: Driver,
) -> None:
    uid = start_slow(daemon)
    for pid in reversed(holders(daemon.state_dir)):
        end(pid)
    assert daemon.finished(daemon.submit("true")).result == "succeeded"
    daemon.kill()
    daemon.start()
    assert daemon.job(uid).state == "running"
    let_go(daemon)
    check_slow(daemon, uid)


def test_the_keeper_tells_the_end_of_what_a_killed_starter_leaves(room: Driver) -> None:
    needs_fast("a reaper")
    uid = start_slow(room)
    (starter,) = starters(room.state_dir)
    wait_for(lambda: '"began"' in books(room.state_dir))
    end(starter)
    assert room.finished(room.submit("true")).result == "succeeded"
    let_go(room)
    check_slow(room, uid)


def test_a_job_of_dead_guard_and_keeper_can_still_be_killed(daemon: Driver) -> None:
    uid = daemon.submit("sleep 60", id="a")
    wait_for(lambda: daemon.job(uid).state == "running")
    wait_for(lambda: '"began"' in books(daemon.state_dir))
    end_pairs(daemon.state_dir)
    wait_for(lambda: holders(daemon.state_dir, "keeper"))
    daemon.ask({"kill": ["a"]})
    job = daemon.finished(uid)
    assert (job.result, job.commands[0].return_code) == ("killed", None)


def test_a_kill_is_gone_on_with_by_the_next_daemon(daemon: Driver) -> None:
    daemon.settings["kill_grace"] = 1
    daemon.kill()
    daemon.start()
    uid = daemon.submit(["sh", "-c", "trap '' TERM; echo up; sleep 60; sleep 60"], id="a")
    wait_for(lambda: daemon.output(uid) == b"up\n")
    daemon.ask({"kill": ["a"]})
    daemon.kill()
    daemon.start()
    job = daemon.finished(uid)
    assert (job.result, job.commands[0].return_code) == ("killed", -9)


def test_a_timeout_counts_on_while_there_is_no_daemon(daemon: Driver) -> None:
    uid = daemon.submit("sleep 60", timeout=2)
    wait_for(lambda: daemon.job(uid).started)
    daemon.kill()
    daemon.start()
    assert daemon.finished(uid).result == "timed-out"


def test_nothing_lingers_after_a_stop_without_jobs(daemon: Driver) -> None:
    daemon.finished(daemon.submit("true"))
    daemon.stop()
    wait_for(lambda: not holders(daemon.state_dir))
    assert not list((daemon.state_dir / "keeper").glob("*.sock"))
    daemon.start()
    # The books of the dead are worked in and gone; one pair is there.
    wait_for(lambda: len(holders(daemon.state_dir)) == 2)
    wait_for(lambda: len(list((daemon.state_dir / "keeper").glob("*.keeper"))) == 1)


def test_a_stop_leaves_running_jobs_alone(daemon: Driver) -> None:
    uid = start_slow(daemon)
    daemon.stop()
    let_go(daemon)
    daemon.start()
    check_slow(daemon, uid)


def test_another_version_starts_its_own_keeper_and_lets_the_old_one_drain(
    room: Driver,
) -> None:
    uid = start_slow(room)
    (old,) = holders(room.state_dir, "keeper")
    room.kill()
    room.version = "99.0"
    room.start()
    assert room.finished(room.submit("true")).result == "succeeded"
    assert len(holders(room.state_dir, "keeper")) == 2
    let_go(room)
    check_slow(room, uid)
    wait_for(lambda: old not in holders(room.state_dir, "keeper"))
    assert len(holders(room.state_dir, "keeper")) == 1


def test_a_keeper_that_does_not_answer_does_not_hold_up_the_start(room: Driver) -> None:
    uid = start_slow(room)
    (keeper,) = holders(room.state_dir, "keeper")
    room.kill()
    freeze(keeper)
    room.start()
    assert room.finished(room.submit("true")).result == "succeeded"
    let_go(room)
    thaw(keeper)
    check_slow(room, uid)


def test_the_book_is_begun_anew_when_it_has_grown(room: Driver) -> None:
    uid = start_slow(room)
    (file,) = (room.state_dir / "keeper").glob("*.1.book")
    with file.open("a") as book:
        # Blank lines are allowed: as many as make it long.
        book.write("\n" * 1_200_000)
    # Each of these makes the daemon read on.
    wait_for(
        lambda: (
            room.finished(room.submit("true"))
            and list((room.state_dir / "keeper").glob("*.2.book"))
        )
    )
    wait_for(lambda: room.finished(room.submit("true")) and not file.exists())
    room.kill()
    room.start()
    assert room.job(uid).state == "running"
    let_go(room)
    check_slow(room, uid)


def test_a_torn_line_spoils_no_other(room: Driver) -> None:
    uid = start_slow(room)
    room.kill()
    (file,) = (room.state_dir / "keeper").glob("*.1.book")
    (keeper,) = holders(room.state_dir, "keeper")
    freeze(keeper)
    with file.open("a") as book:
        book.write('{"next":[99')
    end_frozen(keeper)
    let_go(room)
    wait_for(lambda: not holders(room.state_dir))
    room.start()
    check_slow(room, uid)


def test_nothing_of_the_daemon_is_open_in_guard_keeper_and_job(tmp_path: Path) -> None:
    """Who reads the daemon's output to its end waits for the daemon alone."""
    extra = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(extra, True)
    with Driver(tmp_path).start(stdin=subprocess.PIPE, pass_fds=[extra]) as daemon:
        os.close(extra)
        assert daemon.process is not None
        assert daemon.process.stdout is not None
        uid = start_slow(daemon)
        for role in ("guard", "keeper"):
            (pid,) = holders(tmp_path, role)
            if not Path("/proc/self/fd").exists():
                # The end of the daemon's output, below, shows what counts.
                break
            files = {
                entry.name: str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()
            }
            assert files["0"] == "/dev/null"
            assert files["1"] == files["2"] == f"{tmp_path}/keeper.log"
            pipes = tmp_path / "pipes"
            kept = [
                ("keeper", str(tmp_path)),
                ("keeper", f"{pipes}/{uid}.0.pipe"),
                ("keeper", f"{pipes}/spare.{pid}"),
            ]
            others = set(files.values()) - {"/dev/null", f"{tmp_path}/keeper.log"}
            assert not [
                name
                for name in others
                if not name.startswith((f"{tmp_path}/keeper/", "socket:", "pipe:"))
                and (role, name) not in kept
            ]
        daemon.process.terminate()
        assert daemon.process.stdout.read() == ""
        daemon.stop()
        let_go(daemon)
        daemon.start()
        check_slow(daemon, uid)


@pytest.mark.parametrize("role", ["guard", "keeper"])
def test_a_polite_signal_ends_neither_guard_nor_keeper(room: Driver, role: str) -> None:
    uid = start_slow(room)
    (pid,) = holders(room.state_dir, role)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        end(pid, number)
    let_go(room)
    check_slow(room, uid)
    assert holders(room.state_dir, role) == [pid]


def test_a_commands_end_in_a_machine_crash_is_lost(room: Driver) -> None:
    """After a crash of the machine another boot id meets running commands."""
    uid = start_slow(room)
    after = room.submit("true", queue="pkg_queue")
    room.finished(after)
    room.kill()
    end_pairs(room.state_dir)
    let_go(room)
    with state_file(room.state_dir) as db:
        db.execute("UPDATE jobs SET boot = 'another' WHERE uid = ?", (uid,))
    room.start()
    job = room.finished(uid)
    assert (job.result, job.commands[0].return_code) == ("lost", None)


def test_a_job_that_kills_the_daemon_itself_goes_on(daemon: Driver) -> None:
    script = (
        f"echo one; kill -9 {daemon.pid}; echo two;"
        " while [ ! -e go ]; do sleep 0.05; done; echo three"
    )
    uid = daemon.submit(["sh", "-c", script], "echo four", cwd=str(daemon.state_dir))
    daemon.wait()
    daemon.start()
    let_go(daemon)
    job = daemon.finished(uid)
    assert job.result == "succeeded"
    assert daemon.output(uid) == b"one\ntwo\nthree\n"
    assert daemon.output(uid, 1) == b"four\n"


def test_the_programs_files_may_vanish_under_a_running_keeper(tmp_path: Path) -> None:
    """As in the middle of an upgrade: the keeper has imported all that it will ever need."""
    copy = tmp_path / "copy"
    for room in ("sysadmd", "dispatcher"):
        shutil.copytree(ROOT / room, copy / room)
    program = copy / PROGRAM.relative_to(ROOT)
    program.parent.mkdir(parents=True)
    shutil.copy(PROGRAM, program)
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    with Driver(state_dir, program=program) as daemon:
        wait_for(lambda: holders(state_dir, "keeper"))
        uid = start_slow(daemon)
        shutil.rmtree(copy)
        assert daemon.finished(daemon.submit("no-such-program")).result == "failed"
        let_go(daemon)
        check_slow(daemon, uid)
