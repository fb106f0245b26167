"""Deaths exactly between two steps, where a moment earlier or later would prove nothing.

A process whose files must not grow waits before its next line of the book: from outside it can
be held, for as long as it takes: the keeper before each of its lines. A starter is frozen.
"""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import psutil
import pytest

from tests.kit import needs, needs_fast, wait_for
from tests.kit.driver import Driver
from tests.kit.frozen import end_frozen, freeze, thaw
from tests.kit.hung import hung_file_system
from tests.kit.processes import books, end, family, held, holders, starters
from tests.kit.state_file import state_file
from tests.kit.torture import torture


def hold(pid: int, daemon: Driver, more: int = 5) -> None:
    """Let the book grow by `more` bytes at this process's hands, and no further."""
    (book,) = (daemon.state_dir / "keeper").glob("*.book")
    size = book.stat().st_size
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + more, resource.RLIM_INFINITY))


def let_go(pid: int) -> None:
    resource.prlimit(
        pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )


def keeper_of(daemon: Driver) -> int:
    (keeper,) = wait_for(lambda: holders(daemon.state_dir, "keeper"))
    return keeper


def held_before_it_begins(daemon: Driver, script: str) -> tuple[int, int]:
    """A job whose command was handed over, and its starter, which is frozen."""
    warm(daemon)
    (process,) = starters(daemon.state_dir)
    freeze(process)
    uid = daemon.sign(script, id="a")
    wait_for(lambda: '{"next":[4' in books(daemon.state_dir))
    assert not ledger(daemon)
    return uid, process


def held_when_it_has_begun(daemon: Driver, script: str) -> tuple[int, int]:
    """A job whose command runs, though the keeper has no `began` in its book; its starter."""
    warm(daemon)
    (process,) = starters(daemon.state_dir)
    # More than `next`, less than `began` behind it.
    hold(keeper_of(daemon), daemon, 90)
    uid = daemon.sign(script, id="a")
    wait_for(lambda: ledger(daemon))
    wait_for(lambda: '{"began":[4' in books(daemon.state_dir))
    return uid, process


def finished_once(daemon: Driver, uid: int) -> list[str]:
    with state_file(daemon.state_dir) as db:
        return [
            state
            for (state,) in db.execute(
                "SELECT body ->> 'state' FROM events WHERE body ->> 'job' = ? ORDER BY seq",
                (uid,),
            )
        ]


def warm(daemon: Driver) -> None:
    """Some lines in the book, so that the logs of what follows fit into its size."""
    for _ in range(3):
        daemon.finished(daemon.submit("true"))


def ledger(daemon: Driver) -> str:
    file = Path(daemon.state_dir / "ledger")
    return file.read_text() if file.exists() else ""


@pytest.fixture(params=["daemon lives", "daemon killed"])
def with_daemon(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "daemon killed")


def strike(daemon: Driver, keeper: int, with_daemon: bool) -> None:
    if with_daemon:
        daemon.kill()
    end(keeper)
    if with_daemon:
        daemon.start()


def test_killed_before_the_word_that_it_comes_next_it_is_started_once(
    daemon: Driver, with_daemon: bool
) -> None:
    warm(daemon)
    keeper = keeper_of(daemon)
    hold(keeper, daemon, 11)
    uid = daemon.sign("exit 3")
    wait_for(lambda: daemon.job(uid).state == "running")
    wait_for(lambda: books(daemon.state_dir).endswith('{"next":[4'))
    strike(daemon, keeper, with_daemon)
    check(daemon, uid)


def check(daemon: Driver, uid: int) -> None:
    """It ran once, to its end."""
    job = daemon.finished(uid)
    assert (job.result, job.commands[0].return_code) == ("failed", 3)
    assert ledger(daemon) == "ran\n"


def test_the_keeper_killed_before_a_command_begins_it_begins_and_keeps_its_code(
    room: Driver, with_daemon: bool
) -> None:
    uid, process = held_before_it_begins(room, "exit 3")
    strike(room, keeper_of(room), with_daemon)
    # A new pair starts others, but never this one.
    assert room.finished(room.submit("true")).result == "succeeded"
    thaw(process)
    check(room, uid)


def test_killed_itself_before_it_begins_a_command_is_started_once(daemon: Driver) -> None:
    uid, process = held_before_it_begins(daemon, "exit 3")
    end_frozen(process)
    check(daemon, uid)


def test_killed_with_its_keeper_before_it_begins_a_command_is_started_once(
    room: Driver, with_daemon: bool
) -> None:
    uid, process = held_before_it_begins(room, "exit 3")
    strike(room, keeper_of(room), with_daemon)
    end_frozen(process)
    check(room, uid)


def test_with_guard_and_keeper_killed_what_may_still_begin_is_waited_for(
    daemon: Driver, with_daemon: bool
) -> None:
    uid, process = held_before_it_begins(daemon, "while [ ! -e go ]; do sleep 0.05; done")
    if with_daemon:
        daemon.kill()
    for pid in reversed(holders(daemon.state_dir)):
        end(pid)
    if with_daemon:
        daemon.start()
    assert daemon.finished(daemon.submit("true")).result == "succeeded"
    thaw(process)
    wait_for(lambda: ledger(daemon))
    # It runs, so it is waited for.
    assert daemon.finished(daemon.submit("sleep 1")).result == "succeeded"
    assert daemon.job(uid).state == "running"
    (daemon.state_dir / "go").touch()
    job = daemon.finished(uid)
    # Its starter tells.
    assert (job.result, job.commands[0].return_code) == ("succeeded", 0)
    assert ledger(daemon) == "ran\n"


def test_with_all_killed_before_it_begins_a_command_is_started_once(
    daemon: Driver, with_daemon: bool
) -> None:
    uid, process = held_before_it_begins(daemon, "exit 3")
    if with_daemon:
        daemon.kill()
    for pid in reversed(holders(daemon.state_dir)):
        end(pid)
    end_frozen(process)
    if with_daemon:
        daemon.start()
    check(daemon, uid)


WAITS = "while [ ! -e go ]; do sleep 0.05; done; exit 3"


def test_the_keeper_killed_before_it_writes_that_a_command_has_begun(
    daemon: Driver, with_daemon: bool
) -> None:
    uid, _ = held_when_it_has_begun(daemon, WAITS)
    strike(daemon, keeper_of(daemon), with_daemon)
    assert daemon.finished(daemon.submit("true")).result == "succeeded"
    (daemon.state_dir / "go").touch()
    check(daemon, uid)


def test_killed_when_its_command_has_begun_a_starter_leaves_it_to_the_keeper(
    room: Driver, with_daemon: bool
) -> None:
    needs_fast("a reaper")
    uid, process = held_when_it_has_begun(room, WAITS)
    if with_daemon:
        room.kill()
    end(process)
    let_go(keeper_of(room))
    if with_daemon:
        room.start()
    assert room.finished(room.submit("true")).result == "succeeded"
    (room.state_dir / "go").touch()
    check(room, uid)


@pytest.mark.parametrize("script", [WAITS, "exit 3"], ids=["runs", "has ended"])
def test_killed_with_the_keeper_before_it_wrote_that_a_command_has_begun(
    room: Driver, with_daemon: bool, script: str
) -> None:
    needs_fast("a reaper")
    uid, process = held_when_it_has_begun(room, script)
    # The keeper, which would continue it, is held.
    end(process, signal.SIGSTOP)
    if script != WAITS:
        (command,) = psutil.Process(process).children()
        wait_for(lambda: command.status() == psutil.STATUS_ZOMBIE)
    end(process)
    strike(room, keeper_of(room), with_daemon)
    assert room.finished(room.submit("true")).result == "succeeded"
    (room.state_dir / "go").touch()
    # The guard has found it.
    check(room, uid)


@pytest.mark.parametrize("told", [False, True])
def test_without_a_reaper_what_a_killed_starter_leaves_is_lost_and_not_run_again(
    tmp_path: Path, told: bool
) -> None:
    with Driver(tmp_path, portable=True, kill_grace=0.3) as daemon:
        if told:
            warm(daemon)
            (process,) = starters(tmp_path)
            uid = daemon.sign(WAITS)
            wait_for(lambda: '{"began":[4' in books(tmp_path))
            end(process)
        else:
            uid, process = held_when_it_has_begun(daemon, WAITS)
            end(process)
            strike(daemon, keeper_of(daemon), with_daemon=False)
        assert daemon.finished(daemon.submit("true")).result == "succeeded"
        if told:
            # It lives, so it is waited for, under another daemon as well.
            assert daemon.job(uid).state == "running"
            daemon.kill()
            daemon.start()
            assert daemon.job(uid).state == "running"
        (tmp_path / "go").touch()
        job = daemon.finished(uid)
        assert (job.result, job.commands[0].return_code) == ("lost", None)
        assert ledger(daemon) == "ran\n"


def test_a_command_of_which_nobody_knows_who_it_is_can_be_killed(tmp_path: Path) -> None:
    needs("fuser")
    with Driver(tmp_path, portable=True, kill_grace=0.3) as daemon:
        uid, process = held_when_it_has_begun(daemon, WAITS)
        end(process)
        let_go(keeper_of(daemon))
        daemon.ask({"kill": ["a"]})
        assert daemon.finished(uid).result == "killed"
        assert not held(tmp_path)


@pytest.mark.parametrize("with_keeper", [False, True], ids=["alone", "with its keeper"])
@pytest.mark.parametrize("place", ["directory", "program"])
def test_a_start_that_hangs_holds_up_nobody_and_can_be_killed(
    daemon: Driver, tmp_path: Path, with_keeper: bool, place: str
) -> None:
    warm(daemon)
    (process,) = starters(tmp_path)
    with hung_file_system(tmp_path / "disk") as disk:
        if place == "directory":
            uid = daemon.submit("true", "true", id="a", cwd=str(disk))
        else:
            uid = daemon.submit(str(disk / "program"), "true", id="a")
        wait_for((tmp_path / f"jobs/{uid}/0.log").exists)
        assert daemon.finished(daemon.submit("true")).result == "succeeded"
        if with_keeper:
            end(keeper_of(daemon))
            assert daemon.finished(daemon.submit("true")).result == "succeeded"
        assert daemon.ask({"kill": ["a"]})["killed"] == ["a"]
        job = daemon.finished(uid)
        assert job.result == "killed"
        assert job.commands[1].state == "skipped"
        wait_for(lambda: process not in starters(tmp_path))
    assert daemon.finished(daemon.submit("true")).result == "succeeded"


def test_a_start_that_hung_goes_on_when_the_disk_answers(daemon: Driver) -> None:
    warm(daemon)
    with hung_file_system(daemon.state_dir / "disk") as disk:
        uid = daemon.submit("true", cwd=str(disk))
        wait_for((daemon.state_dir / f"jobs/{uid}/0.log").exists)
        assert daemon.finished(daemon.submit("true")).result == "succeeded"
    assert daemon.finished(uid).commands[0].return_code == 126


def test_killed_between_end_and_record_the_code_is_known(
    room: Driver, with_daemon: bool
) -> None:
    warm(room)
    uid = room.sign("echo $$ >pid; while [ ! -e go ]; do sleep 0.05; done; exit 3", id="a")
    pid = wait_for(lambda: (room.state_dir / "pid").exists() and the_pid(room))
    wait_for(lambda: f'"pid":{pid}' in books(room.state_dir))
    keeper = keeper_of(room)
    hold(keeper, room)
    (room.state_dir / "go").touch()
    wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z")
    assert room.job(uid).state == "running"
    strike(room, keeper, with_daemon)
    check(room, uid)


def the_pid(daemon: Driver) -> str:
    return (daemon.state_dir / "pid").read_text().strip()


def test_a_full_disk_delays_and_loses_nothing(daemon: Driver) -> None:
    warm(daemon)
    keeper = keeper_of(daemon)
    hold(keeper, daemon, 80)
    uids = [daemon.sign("exit 3") for _ in range(3)]
    wait_for(lambda: ledger(daemon))
    # What it has forked meanwhile has inherited the limit.
    for process in family([keeper]):
        let_go(process.pid)
    for uid in uids:
        assert daemon.finished(uid).commands[0].return_code == 3
    assert ledger(daemon) == "ran\n" * 3


@pytest.mark.parametrize("with_daemon", [False, True], ids=["daemon lives", "daemon killed"])
def test_what_had_not_begun_when_it_was_killed_never_begins(
    daemon: Driver, with_daemon: bool
) -> None:
    warm(daemon)
    keeper = keeper_of(daemon)
    freeze(keeper)
    try:
        uid = daemon.submit(
            ["sh", "-c", "echo ran >>ledger"], "true", id="a", cwd=str(daemon.state_dir)
        )
        wait_for(lambda: daemon.job(uid).state == "running")
        assert daemon.ask({"kill": ["a"]})["killed"] == ["a"]
        if with_daemon:
            daemon.kill()
            daemon.start()
        # Nobody has to wait for the keeper.
        job = daemon.finished(uid)
    finally:
        thaw(keeper)
    assert job.result == "killed"
    assert [command.state for command in job.commands] == ["skipped", "skipped"]
    assert daemon.finished(daemon.submit("true")).result == "succeeded"
    assert not ledger(daemon)
    assert finished_once(daemon, uid) == ["pending", "running", "finished"]


def test_what_had_not_begun_when_its_time_was_up_never_begins(daemon: Driver) -> None:
    warm(daemon)
    keeper = keeper_of(daemon)
    freeze(keeper)
    try:
        uid = daemon.sign("exit 3", timeout=0.5)
        assert daemon.finished(uid).result == "timed-out"
    finally:
        thaw(keeper)
    assert daemon.finished(daemon.submit("true")).result == "succeeded"
    assert not ledger(daemon)


def test_what_had_not_begun_when_the_daemon_stopped_begins_under_the_next(room: Driver) -> None:
    warm(room)
    keeper = keeper_of(room)
    freeze(keeper)
    uid = room.sign("exit 3")
    wait_for(lambda: room.job(uid).state == "running")
    room.stop()
    thaw(keeper)
    wait_for(lambda: not holders(room.state_dir))
    assert not ledger(room)
    room.start()
    check(room, uid)


@pytest.mark.parametrize("portable", [False, True], ids=["fast", "portable"])
def test_a_hail_of_kills_and_stops_loses_doubles_and_confuses_nothing(
    tmp_path: Path, portable: bool
) -> None:
    targets = ["daemon", "keeper", "daemon+keeper", "daemon", "keeper+daemon"]
    targets += ["stop keeper+daemon", "stop guard+stop keeper"]
    if not portable:
        targets += ["starter", "keeper", "starter+keeper", "keeper+starter+daemon"]
    with Driver(tmp_path, portable=portable, kill_grace=1, progress_interval=0.2) as daemon:
        daemon.stop()
        tally = torture(daemon, seed=7, jobs=60, kills=16, targets=targets)
    assert not tally.lost
    assert not tally.doubled
    assert not tally.wrong
    # Without a reaper a killed starter costs the code, but nobody else does.
    assert not tally.unknown


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    "targets",
    [
        ("daemon", "keeper", "daemon+keeper", "keeper+daemon"),
        ("guard+keeper", "daemon", "guard+keeper+daemon"),
        ("guard", "keeper", "daemon"),
        ("starter", "keeper", "starter+keeper", "keeper+starter", "starter+daemon"),
        ("stop keeper", "stop guard+keeper", "stop starter+keeper", "stop guard+daemon"),
    ],
    ids=["one", "both", "guard", "starter", "stopped"],
)
def test_a_long_hail_of_kills(tmp_path: Path, seed: int, targets: tuple[str, ...]) -> None:
    with Driver(tmp_path, kill_grace=1, progress_interval=0.2) as daemon:
        daemon.stop()
        tally = torture(daemon, seed=seed, jobs=300, kills=100, targets=targets)
    assert not tally.lost
    assert not tally.doubled
    assert not tally.wrong
    assert not tally.unknown
