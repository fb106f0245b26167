"""Deaths exactly between two steps, where a moment earlier or later would prove nothing.

A keeper whose files must not grow waits before its next line of the book: from outside it can
be held, for as long as it takes, before `next`, before `began` and before `end`.
"""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.kit import wait_for
from tests.kit.driver import Driver
from tests.kit.processes import books, end, holders
from tests.kit.torture import torture

# Bytes of a `next` line are fewer, of both it and a `began` line more.
ONE_LINE = 60


def hold(daemon: Driver, more: int) -> int:
    """Let the keeper's book grow by `more` bytes and no further; returns the keeper's pid."""
    (keeper,) = wait_for(lambda: holders(daemon.state_dir, "keeper"))
    (book,) = (daemon.state_dir / "keeper").glob("*.book")
    size = book.stat().st_size
    resource.prlimit(keeper, resource.RLIMIT_FSIZE, (size + more, resource.RLIM_INFINITY))
    return keeper


def warm(daemon: Driver) -> None:
    """Some lines in the book, so that the logs of what follows fit into its size."""
    for _ in range(3):
        daemon.finished(daemon.submit("true"))


def submit(daemon: Driver, script: str, **more: str) -> int:
    """A job that signs a ledger when it runs."""
    return daemon.submit(
        ["sh", "-c", f"echo ran >>ledger; {script}"], cwd=str(daemon.state_dir), **more
    )


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
    keeper = hold(daemon, 10)
    uid = submit(daemon, "exit 3")
    wait_for(lambda: daemon.job(uid).state == "running")
    wait_for(lambda: books(daemon.state_dir).endswith('{"next":[4'))
    strike(daemon, keeper, with_daemon)
    job = daemon.finished(uid)
    assert (job.result, job.commands[0].return_code) == ("failed", 3)
    assert ledger(daemon) == "ran\n"


def test_killed_between_spawn_and_record_a_running_command_keeps_its_code(
    room: Driver, with_daemon: bool
) -> None:
    warm(room)
    keeper = hold(room, ONE_LINE)
    uid = submit(room, "while [ ! -e go ]; do sleep 0.05; done; exit 3")
    wait_for(lambda: ledger(room))
    strike(room, keeper, with_daemon)
    (room.state_dir / "go").touch()
    job = room.finished(uid)
    assert (job.result, job.commands[0].return_code) == ("failed", 3)
    assert ledger(room) == "ran\n"


def test_killed_between_spawn_and_record_an_ended_command_keeps_its_code(
    room: Driver, with_daemon: bool
) -> None:
    warm(room)
    keeper = hold(room, ONE_LINE)
    uid = submit(room, "echo $$ >pid; exit 3")
    pid = wait_for(lambda: (room.state_dir / "pid").exists() and the_pid(room))
    wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z")
    strike(room, keeper, with_daemon)
    job = room.finished(uid)
    assert (job.result, job.commands[0].return_code) == ("failed", 3)
    assert ledger(room) == "ran\n"


def the_pid(daemon: Driver) -> str:
    return (daemon.state_dir / "pid").read_text().strip()


def test_killed_between_end_and_record_the_code_is_known(
    room: Driver, with_daemon: bool
) -> None:
    warm(room)
    uid = submit(room, "echo $$ >pid; while [ ! -e go ]; do sleep 0.05; done; exit 3", id="a")
    pid = wait_for(lambda: (room.state_dir / "pid").exists() and the_pid(room))
    wait_for(lambda: f'"pid":{pid}' in books(room.state_dir))
    keeper = hold(room, 5)
    (room.state_dir / "go").touch()
    wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z")
    assert room.job(uid).state == "running"
    strike(room, keeper, with_daemon)
    job = room.finished(uid)
    assert (job.result, job.commands[0].return_code) == ("failed", 3)
    assert ledger(room) == "ran\n"


def test_with_the_guard_killed_too_what_was_between_spawn_and_record_is_lost(
    daemon: Driver, with_daemon: bool
) -> None:
    warm(daemon)
    keeper = hold(daemon, ONE_LINE)
    uid = submit(daemon, "while [ ! -e go ]; do sleep 0.05; done; echo end", id="a")
    wait_for(lambda: ledger(daemon))
    if with_daemon:
        daemon.kill()
    for pid in (*holders(daemon.state_dir, "guard"), keeper):
        end(pid)
    if with_daemon:
        daemon.start()
    # Its log is held, so it is waited for.
    daemon.finished(daemon.submit("sleep 1"))
    assert daemon.job(uid).state == "running"
    (daemon.state_dir / "go").touch()
    job = daemon.finished(uid)
    assert (job.result, job.commands[0].return_code) == ("lost", None)
    assert daemon.output(uid) == b"end\n"
    assert ledger(daemon) == "ran\n"


def test_with_the_guard_killed_too_such_a_command_can_be_killed(daemon: Driver) -> None:
    warm(daemon)
    keeper = hold(daemon, ONE_LINE)
    uid = submit(daemon, "sleep 60", id="a")
    wait_for(lambda: ledger(daemon))
    for pid in (*holders(daemon.state_dir, "guard"), keeper):
        end(pid)
    daemon.ask({"kill": ["a"]})
    job = daemon.finished(uid)
    assert (job.result, job.commands[0].return_code) == ("killed", None)


def test_a_full_disk_delays_and_loses_nothing(daemon: Driver) -> None:
    warm(daemon)
    keeper = hold(daemon, ONE_LINE)
    uids = [submit(daemon, "exit 3") for _ in range(3)]
    wait_for(lambda: ledger(daemon))
    resource.prlimit(
        keeper, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )
    for uid in uids:
        assert daemon.finished(uid).commands[0].return_code == 3
    assert ledger(daemon) == "ran\n" * 3


@pytest.mark.parametrize("portable", [False, True], ids=["fast", "portable"])
def test_a_hail_of_kills_loses_doubles_and_confuses_nothing(
    tmp_path: Path, portable: bool
) -> None:
    targets = ["daemon", "keeper", "daemon+keeper", "daemon", "keeper+daemon"]
    with Driver(tmp_path, portable=portable, kill_grace=1, progress_interval=0.2) as daemon:
        daemon.stop()
        tally = torture(daemon, seed=7, jobs=60, kills=16, targets=targets)
    assert not tally.lost
    assert not tally.doubled
    assert not tally.wrong
    # Without a reaper, what a killed keeper leaves can't tell its code.
    assert portable or not tally.unknown


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    "targets",
    [
        ("daemon", "keeper", "daemon+keeper", "keeper+daemon"),
        ("guard+keeper", "daemon", "guard+keeper+daemon"),
        ("guard", "keeper", "daemon"),
    ],
    ids=["one", "both", "guard"],
)
def test_a_long_hail_of_kills(tmp_path: Path, seed: int, targets: tuple[str, ...]) -> None:
    with Driver(tmp_path, kill_grace=1, progress_interval=0.2) as daemon:
        daemon.stop()
        tally = torture(daemon, seed=seed, jobs=300, kills=100, targets=targets)
    assert not tally.lost
    assert not tally.doubled
    assert not tally.wrong
    assert "guard" in str(targets) or not tally.unknown
