"""Guard, keeper and starters that somebody stops: nothing stands, and nothing runs twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.kit import needs_linux, wait_for
from tests.kit.driver import WAYS, Driver
from tests.kit.frozen import end_frozen, freeze, thaw, was_killed
from tests.kit.processes import books, end, ended, holders, starters

WAITS = "while [ ! -e go ]; do sleep 0.05; done; exit 3"


@pytest.fixture(params=WAYS)
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    """One that soon has had patience enough."""
    portable = request.param == "portable"
    with Driver(tmp_path, portable=portable, kill_grace=0.3, rousing_round=0.2) as running:
        yield running


def begin(daemon: Driver, script: str = WAITS, **more: str | float) -> int:
    """A job that signs the ledger, once the book says that it runs."""
    uid = daemon.sign(script, **more)
    wait_for(lambda: f'"began":[{uid},' in books(daemon.state_dir))
    return uid


def check(daemon: Driver, *uids: int, code: int = 3) -> None:
    """They ran once, to their ends."""
    (daemon.state_dir / "go").touch()
    for uid in uids:
        assert daemon.finished(uid).commands[0].return_code == code
    assert (daemon.state_dir / "ledger").read_text() == "ran\n" * len(uids)


def the(daemon: Driver, role: str) -> int:
    (pid,) = wait_for(lambda: holders(daemon.state_dir, role))
    return pid


def troubles(daemon: Driver) -> str:
    return "\n".join(daemon.ask({"troubles": 1})["troubles"])


def wait_for_trouble(daemon: Driver, text: str) -> None:
    wait_for(lambda: text in troubles(daemon), text)


def wait_until_well(daemon: Driver) -> None:
    wait_for(lambda: not troubles(daemon), "an end of all trouble")


def test_a_pair_that_is_stopped_while_it_is_started_goes_on(daemon: Driver) -> None:
    the(daemon, "keeper")
    for depth in (1, 2):

        def starting(depth: int = depth) -> list[psutil.Process]:
            """Who starts the guard, the guard, and the keeper, as far as they are there."""
            found = psutil.Process(daemon.pid).children(recursive=True)
            if len(found) >= depth:
                return found
            # They may have come through unseen: once more.
            for pid in reversed(holders(daemon.state_dir)):
                end(pid)
            return []

        for process in wait_for(starting):
            end(process.pid, signal.SIGSTOP)
        assert daemon.finished(daemon.submit("true")).result == "succeeded"


@pytest.mark.parametrize("roles", [["keeper"], ["guard"], ["guard", "keeper"]], ids="+".join)
def test_who_was_stopped_goes_on(daemon: Driver, roles: list[str]) -> None:
    before = begin(daemon)
    pair = holders(daemon.state_dir)
    for role in roles:
        end(the(daemon, role), signal.SIGSTOP)
    after = daemon.sign(WAITS)
    if roles == ["keeper"]:
        wait_for(lambda: "keeper" in (daemon.state_dir / "keeper.log").read_text())
    else:
        wait_for_trouble(daemon, "was stopped and is told to go on")
    check(daemon, before, after)
    wait_until_well(daemon)
    assert holders(daemon.state_dir) == pair


def test_a_keeper_that_is_stopped_again_and_again_starts_jobs_all_the_same(
    daemon: Driver,
) -> None:
    before = begin(daemon)
    code = f"import os\nwhile True: os.kill({the(daemon, 'keeper')}, {int(signal.SIGSTOP)})"
    log = daemon.state_dir / "keeper.log"
    with ended(subprocess.Popen([sys.executable, "-c", code], text=True)):
        wait_for(lambda: "was stopped" in log.read_text(), "the first stop")
        check(daemon, before, daemon.sign("exit 3"))
    assert log.read_text().count("was stopped by a signal; it goes on") == 1


def test_a_job_that_stops_its_starter_goes_on(daemon: Driver) -> None:
    again = "for n in 1 2 3 4 5; do kill -STOP $PPID; sleep 0.1; echo $n; done; exit 3"
    uid = daemon.sign(again)
    check(daemon, uid)
    assert daemon.output(uid) == b"1\n2\n3\n4\n5\n"


def test_a_job_that_stops_its_starter_may_be_killed(daemon: Driver) -> None:
    uid = daemon.sign("while :; do kill -STOP $PPID; sleep 0.01; done", id="a")
    wait_for(lambda: '"began"' in books(daemon.state_dir))
    daemon.ask({"kill": ["a"]})
    assert daemon.finished(uid).result == "killed"


def test_a_job_that_stops_itself_stays_so(daemon: Driver) -> None:
    # Elsewhere it is in its starter's session. When that one ends, the system has it go on, and
    # hang up. Source: POSIX, _exit(), orphaned process groups.
    needs_linux("a job's own session")
    uid = begin(daemon, "kill -STOP $$; exit 3")
    # Its starter is gone, so it is the keeper's, or nobody's.
    for pid in starters(daemon.state_dir, busy=True):
        end(pid)
    assert daemon.finished(daemon.submit("sleep 1")).result == "succeeded"
    assert daemon.job(uid).state == "running"


def test_a_stopped_starter_of_a_dead_keeper_goes_on(daemon: Driver) -> None:
    uid = begin(daemon)
    keeper = the(daemon, "keeper")
    freeze(keeper)
    (process,) = starters(daemon.state_dir, busy=True)
    end(process, signal.SIGSTOP)
    end_frozen(keeper)
    wait_for_trouble(daemon, "a starter of the dead keeper")
    check(daemon, uid)


def test_a_stopped_starter_goes_on_under_the_next_daemon(daemon: Driver) -> None:
    uid = begin(daemon)
    daemon.kill()
    for pid in reversed(holders(daemon.state_dir)):
        end(pid)
    (process,) = starters(daemon.state_dir, busy=True)
    end(process, signal.SIGSTOP)
    daemon.start()
    check(daemon, uid)


def test_the_job_of_a_starter_that_does_not_go_on_may_be_killed(daemon: Driver) -> None:
    uid = begin(daemon, id="a")
    (process,) = starters(daemon.state_dir, busy=True)
    freeze(process)
    daemon.ask({"kill": ["a"]})
    wait_for(lambda: was_killed(process))
    assert daemon.finished(uid).result == "killed"


def test_what_a_stopped_keeper_was_asked_to_start_is_started_once_by_another(
    daemon: Driver,
) -> None:
    before = begin(daemon)
    keeper = the(daemon, "keeper")
    freeze(keeper)
    asked = [daemon.sign("exit 3") for _ in range(3)]
    wait_for(lambda: all(daemon.job(uid).state == "running" for uid in asked))
    wait_for_trouble(daemon, "did not go on when told to, so it was ended")
    wait_for(lambda: was_killed(keeper))
    check(daemon, before, *asked)
    wait_until_well(daemon)


def test_what_a_stopped_keeper_has_handed_over_begins_once(daemon: Driver) -> None:
    daemon.finished(daemon.submit("true"))
    (process,) = starters(daemon.state_dir)
    freeze(process)
    uid = daemon.sign("exit 3")
    wait_for(lambda: f'"next":[{uid},' in books(daemon.state_dir))
    keeper = the(daemon, "keeper")
    freeze(keeper)
    asked = daemon.sign("exit 3")
    wait_for(lambda: was_killed(keeper))
    # What it was asked for and had not handed over does not wait for the other start.
    assert daemon.finished(asked).result == "failed"
    thaw(process)
    check(daemon, asked, uid)


def test_a_guard_that_does_not_go_on_is_replaced(daemon: Driver) -> None:
    before = begin(daemon)
    guard, keeper = the(daemon, "guard"), the(daemon, "keeper")
    freeze(guard)
    wait_for(lambda: was_killed(guard))
    wait_for(lambda: len(holders(daemon.state_dir, "keeper")) == 2)
    check(daemon, before, daemon.sign("exit 3"))
    wait_for(lambda: keeper not in holders(daemon.state_dir))
    wait_until_well(daemon)


def test_a_pair_that_does_not_go_on_is_replaced(daemon: Driver) -> None:
    before = begin(daemon)
    pair = holders(daemon.state_dir)
    for pid in pair:
        freeze(pid)
    asked = daemon.sign("exit 3")
    left = set(pair)

    def none_left() -> bool:
        left.difference_update([pid for pid in left if was_killed(pid)])
        return not left

    wait_for(none_left)
    check(daemon, before, asked)
    wait_until_well(daemon)


def test_a_stopped_keeper_is_got_round_by_the_next_daemon(daemon: Driver) -> None:
    before = begin(daemon)
    keeper = the(daemon, "keeper")
    freeze(keeper)
    asked = daemon.sign("exit 3")
    wait_for(lambda: daemon.job(asked).state == "running")
    daemon.kill()
    daemon.start()
    # Not even now anybody has to wait for it.
    assert daemon.finished(daemon.submit("true")).result == "succeeded"
    wait_for(lambda: was_killed(keeper))
    check(daemon, before, asked)


def test_a_keeper_that_waits_for_its_disk_is_told_of_and_left_alone(daemon: Driver) -> None:
    before = begin(daemon)
    keeper = daemon.hold_book(5)
    asked = daemon.sign("exit 3")
    wait_for_trouble(daemon, "does not answer, though nobody has stopped it")
    assert holders(daemon.state_dir, "keeper") == [keeper]
    daemon.release_book(keeper)
    check(daemon, before, asked)
    wait_until_well(daemon)
    assert holders(daemon.state_dir, "keeper") == [keeper]
