"""What becomes of jobs when the machine goes down, orderly or not, and another boot begins.

What ran ends once: with its code if the book that is left has its end, otherwise lost. Nothing
runs twice, what waited runs, and the daemon is there.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Literal

import pytest

from tests.kit import wait_for
from tests.kit.crash import another_boot, cut_power, lose, machine_crash
from tests.kit.driver import Driver
from tests.kit.jobs import Job
from tests.kit.processes import APART, begun, books, end, end_pairs, holders
from tests.kit.state_file import state_file
from tests.kit.torture import torture

LONG = "sleep 1000"
Loss = Literal["nothing", "everything"]


@pytest.fixture(params=["nothing", "everything"])
def loss(request: pytest.FixtureRequest) -> Loss:
    """What is lost of that part of the books which was not worked in."""
    return "nothing" if request.param == "nothing" else "everything"


def script(daemon: Driver, text: str) -> list[str]:
    return ["sh", "-c", f"cd {daemon.state_dir}; {text}"]


def until_go(daemon: Driver, code: int) -> list[str]:
    """A command that ends with this code when the file `go` is there."""
    return script(daemon, f"while [ ! -e go ]; do sleep 0.05; done; exit {code}")


def let_go(daemon: Driver) -> None:
    (daemon.state_dir / "go").touch()


def ledger(daemon: Driver) -> list[str]:
    file = Path(daemon.state_dir / "ledger")
    return file.read_text().split() if file.exists() else []


def is_held(daemon: Driver) -> None:
    """Until the keeper is in the middle of saying which command comes next."""

    def last() -> str:
        return books(daemon.state_dir).rpartition("\n")[2]

    wait_for(lambda: last().startswith('{"next":['), "the keeper")


def has_begun(daemon: Driver, uid: int) -> None:
    wait_for(
        lambda: f'"began":[{uid},' in books(daemon.state_dir), "the word that it has begun"
    )


def work_in(daemon: Driver) -> None:
    """Until the tables have all that the books say. An end makes the daemon read on."""
    daemon.finished(daemon.submit("true"))

    def is_known() -> bool:
        with state_file(daemon.state_dir) as db:
            (missing,) = db.execute(
                "SELECT count(*) FROM commands WHERE state = 1 AND began_at IS NULL"
            ).fetchone()
        return not missing

    wait_for(is_known, "which process it is")


def begin_unread(daemon: Driver, *commands: str | list[str]) -> int:
    """A job whose beginning stands in a book that nobody reads; there is no daemon."""
    # A keeper at work: whatever it starts in advance has not the limit of its book.
    daemon.finished(daemon.submit("true"))
    keeper = daemon.hold_book(10)
    uid = daemon.submit(*commands)
    is_held(daemon)
    daemon.kill()
    daemon.release_book(keeper)
    has_begun(daemon, uid)
    return uid


def end_unread(daemon: Driver, *commands: str | list[str], code: int) -> int:
    """A job whose first command's end stands in a book that nobody has read; no daemon."""
    uid = daemon.submit(until_go(daemon, code), *commands)
    has_begun(daemon, uid)
    daemon.kill()
    let_go(daemon)
    wait_for(lambda: f'"code":{code}' in books(daemon.state_dir), "the end in the book")
    return uid


def settled(daemon: Driver, uid: int) -> Job:
    """The job, which has ended once, under a daemon that works, at later starts as well."""
    job = daemon.finished(uid)
    for is_last in (False, False, True):
        assert daemon.finished(daemon.submit("true")).result == "succeeded"
        states = [body["state"] for _, body in daemon.events() if body["job"] == uid]
        assert states.count("finished") == 1
        assert states[-1] == "finished"
        assert daemon.job(uid) == job
        if not is_last:
            assert daemon.stop() == 0
            daemon.start()
    return job


def check_lost(daemon: Driver, uid: int) -> None:
    job = settled(daemon, uid)
    assert (job.result, job.commands[0].return_code) == ("lost", None)


def test_what_was_worked_in_as_running_is_lost(daemon: Driver, loss: Loss) -> None:
    uid = daemon.submit(LONG)
    work_in(daemon)
    assert machine_crash(daemon, loss) == [uid]
    check_lost(daemon, uid)


def test_what_was_written_down_as_begun_and_not_read_is_lost(
    daemon: Driver, loss: Loss
) -> None:
    uid = begin_unread(daemon, LONG)
    assert machine_crash(daemon, loss) == [uid]
    check_lost(daemon, uid)


def test_another_job_that_has_ended_before_changes_nothing(daemon: Driver, loss: Loss) -> None:
    first = daemon.submit(["sh", "-c", "exit 3"])
    daemon.finished(first)
    uid = begin_unread(daemon, LONG)
    machine_crash(daemon, loss)
    check_lost(daemon, uid)
    job = settled(daemon, first)
    assert (job.result, job.commands[0].return_code) == ("failed", 3)


def test_a_command_of_which_nothing_is_left_is_lost(daemon: Driver) -> None:
    uid = begin_unread(daemon, LONG)
    cut_power(daemon)
    for file in (daemon.state_dir / "keeper").iterdir():
        file.unlink()
    another_boot(daemon.state_dir)
    daemon.start()
    check_lost(daemon, uid)


def test_a_command_that_was_handed_over_and_not_begun_runs_at_most_once(
    daemon: Driver, loss: Loss
) -> None:
    daemon.hold_book(10)
    uid = daemon.submit(script(daemon, "echo ran >>ledger"))
    is_held(daemon)
    machine_crash(daemon, loss)
    job = settled(daemon, uid)
    assert (job.result, ledger(daemon)) in [("lost", []), ("succeeded", ["ran"])]


def test_an_end_that_stands_in_the_book_is_the_jobs_end(daemon: Driver) -> None:
    uid = end_unread(daemon, code=3)
    assert machine_crash(daemon) == [uid]
    job = settled(daemon, uid)
    assert (job.result, job.commands[0].return_code) == ("failed", 3)


def test_an_end_that_the_book_has_lost_is_lost(daemon: Driver) -> None:
    uid = end_unread(daemon, code=3)
    machine_crash(daemon, "everything")
    check_lost(daemon, uid)


def test_a_mark_of_the_other_way_to_tell_boots_makes_no_difference(
    room: Driver, loss: Loss
) -> None:
    """As when the daemon was started with SYSADMD_PORTABLE before, and is now without."""
    uid = room.submit(LONG)
    work_in(room)
    machine_crash(room, loss, "~1000")
    check_lost(room, uid)


@pytest.mark.parametrize("before", [False, True], ids=["alone", "another job before"])
def test_what_ends_by_an_orderly_shutdown_keeps_its_code(daemon: Driver, before: bool) -> None:
    if before:
        daemon.finished(daemon.submit("true"))
    uid = daemon.submit("sleep 300")
    has_begun(daemon, uid)
    daemon.stop()
    for pid in begun(daemon.state_dir)[-1:]:
        end(pid, signal.SIGTERM)
    wait_for(lambda: '"code":-15' in books(daemon.state_dir), "the end in the book")
    machine_crash(daemon)
    job = settled(daemon, uid)
    assert (job.result, job.commands[0].return_code) == ("failed", -15)


def check_between(daemon: Driver, uid: int) -> None:
    job = settled(daemon, uid)
    assert job.result == "lost"
    assert [command.return_code for command in job.commands] == [0, None, None]
    assert job.commands[2].state == "skipped"
    assert ledger(daemon) == []


def test_a_job_is_lost_between_two_commands_of_which_the_first_one_has_a_code(
    daemon: Driver,
) -> None:
    sign = script(daemon, "echo ran >>ledger")
    uid = end_unread(daemon, sign, sign, code=0)
    machine_crash(daemon)
    check_between(daemon, uid)


def test_a_job_is_lost_whose_second_command_was_about_to_begin(
    daemon: Driver, loss: Loss
) -> None:
    sign = script(daemon, "echo ran >>ledger")
    uid = daemon.submit(until_go(daemon, 0), sign, sign)
    has_begun(daemon, uid)
    # The line of the end fits, and not another one.
    daemon.hold_book(85)
    let_go(daemon)
    wait_for(lambda: daemon.job(uid).commands[1].state == "running", "the second command")
    machine_crash(daemon, loss)
    check_between(daemon, uid)


def test_a_job_that_was_being_killed_ends_once(daemon: Driver) -> None:
    uid = daemon.submit(script(daemon, "trap '' TERM; echo up; sleep 1000"), id="a")
    wait_for(lambda: daemon.output(uid) == b"up\n")
    daemon.ask({"kill": ["a"]})
    machine_crash(daemon)
    assert settled(daemon, uid).result in ("killed", "lost")


def test_what_waits_runs_once_and_in_order_behind_what_is_lost(
    daemon: Driver, loss: Loss
) -> None:
    running = daemon.submit(LONG, queue="pkg_queue")
    has_begun(daemon, running)
    waiting = [
        daemon.submit(script(daemon, f"echo {n} >>ledger"), queue="pkg_queue") for n in range(4)
    ]
    machine_crash(daemon, loss)
    for uid in waiting:
        assert daemon.finished(uid).result == "succeeded"
    check_lost(daemon, running)
    assert ledger(daemon) == ["0", "1", "2", "3"]


def test_a_command_without_guard_and_keeper_is_lost_in_a_crash_like_others(
    daemon: Driver,
) -> None:
    uid = daemon.submit(LONG)
    work_in(daemon)
    end_pairs(daemon.state_dir)
    wait_for(lambda: len(holders(daemon.state_dir)) == 2, "others")
    assert machine_crash(daemon) == [uid]
    check_lost(daemon, uid)


def test_one_crash_after_the_other_loses_nothing_but_what_ran(daemon: Driver) -> None:
    lost: list[int] = []
    for _ in range(3):
        lost.append(daemon.submit(LONG))
        has_begun(daemon, lost[-1])
        machine_crash(daemon)
    for uid in lost:
        check_lost(daemon, uid)


def test_a_power_cut_leaves_nobody_and_a_loss_nothing_but_what_was_worked_in(
    daemon: Driver,
) -> None:
    """Of the kit itself."""
    uid = daemon.submit(["sh", "-c", f"{APART} sleep 1000 & sleep 1000"])
    work_in(daemon)
    daemon.kill()
    for pid in holders(daemon.state_dir):
        end(pid)
    cut_power(daemon)
    assert not holders(daemon.state_dir)
    with state_file(daemon.state_dir) as db:
        ((keeper, generation, position),) = db.execute("SELECT * FROM books").fetchall()
    lose(daemon.state_dir, "everything")
    (file,) = (daemon.state_dir / "keeper").glob("*.book")
    assert file.name == f"{keeper}.{generation}.book"
    assert file.stat().st_size == position
    assert another_boot(daemon.state_dir) == [uid]


TARGETS = ("daemon", "keeper", "daemon+keeper", "keeper+daemon")


@pytest.mark.parametrize("portable", [False, True], ids=["fast", "portable"])
def test_a_hail_of_kills_and_crashes_loses_what_ran_and_nothing_else(
    tmp_path: Path, portable: bool
) -> None:
    with Driver(tmp_path, portable=portable, kill_grace=1, progress_interval=0.2) as daemon:
        daemon.stop()
        tally = torture(daemon, seed=7, jobs=60, kills=8, crashes=6, targets=TARGETS)
    assert not tally.lost
    assert not tally.doubled
    assert not tally.wrong
    assert not tally.unknown


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_long_hail_of_kills_and_crashes(tmp_path: Path, seed: int) -> None:
    with Driver(tmp_path, kill_grace=1, progress_interval=0.2) as daemon:
        daemon.stop()
        tally = torture(daemon, seed=seed, jobs=300, kills=60, crashes=40, targets=TARGETS)
    assert not tally.lost
    assert not tally.doubled
    assert not tally.wrong
    assert not tally.unknown
