"""Jobs that the keeper has ahead of their time: begun without the daemon, or given back."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.keepers import KeeperLine, Link
from dispatcher.lending import Lending
from dispatcher.lent import AHEAD, Terms
from dispatcher.output_files import pipe_path
from dispatcher.queue import Queues
from sysadmd.errors import Stopping
from tests.kit import wait_for
from tests.kit.crash import another_boot, cut_power, machine_crash
from tests.kit.driver import Driver
from tests.kit.processes import books, end, holders
from tests.kit.state_file import state_file
from tests.kit.waiting import DEADLINE

# Enough that not all of them are lent at once.
MANY = AHEAD + 3
QUEUES = {"q": 1, "other": 1}


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Driver]:
    """A daemon that calls nothing back because it has not moved for a while."""
    with Driver(
        tmp_path, kill_grace=0.3, queues=QUEUES, lent_stale=1000, lent_quick=60_000
    ) as driver:
        yield driver


def lent(daemon: Driver) -> list[int]:
    with state_file(daemon.state_dir) as db:
        return [uid for (uid,) in db.execute("SELECT job FROM lent ORDER BY job")]


def has_begun(daemon: Driver, uid: int) -> bool:
    with state_file(daemon.state_dir) as db:
        query = "SELECT 1 FROM commands WHERE job = ? AND began_at IS NOT NULL"
        return db.execute(query, (uid,)).fetchone() is not None


def ledger(daemon: Driver) -> list[int]:
    """The numbers of the jobs that have run, in that order."""
    file = daemon.state_dir / "ledger"
    return [int(word) for word in file.read_text().split()] if file.exists() else []


def signs(daemon: Driver, number: int, **more: Any) -> int:
    script = ["sh", "-c", f"echo {number} >>ledger"]
    return daemon.submit(script, cwd=str(daemon.state_dir), queue="q", **more)


def line_up(daemon: Driver, count: int = MANY) -> tuple[int, list[int]]:
    """A job that runs until `let_go`, and behind it jobs that sign; one before it is short."""
    daemon.ask({"pause": "q"})
    daemon.submit("true", queue="q")
    wait = ["sh", "-c", "until test -e go; do sleep 0.02; done"]
    gate = daemon.submit(wait, cwd=str(daemon.state_dir), queue="q")
    uids = [signs(daemon, number) for number in range(count)]
    daemon.ask({"resume": "q"})
    return gate, uids


def lend(daemon: Driver, count: int = MANY) -> tuple[int, list[int]]:
    """As `line_up`; the first of those that sign are with the keeper."""
    gate, uids = line_up(daemon, count)
    wait_for(lambda: lent(daemon) == uids[:AHEAD], "what is lent")
    # A change that is committed after it: by then the keeper has been told.
    daemon.ask({"resume": "other"})
    return gate, uids


def let_go(daemon: Driver) -> None:
    (daemon.state_dir / "go").touch()


def story(daemon: Driver, uids: list[int]) -> list[tuple[int, str]]:
    """Of these jobs alone, in the order in which it was told."""
    events = [body for _, body in daemon.events()]
    return [(body["job"], body["state"]) for body in events if body["job"] in uids]


def check(daemon: Driver, uids: list[int], numbers: list[int] | None = None) -> None:
    """All of them have succeeded, each once, one after the other."""
    jobs = [daemon.finished(uid) for uid in uids]
    assert {job.result for job in jobs} == {"succeeded"}
    assert ledger(daemon) == (list(range(len(uids))) if numbers is None else numbers)
    told = [word for word in story(daemon, uids) if word[1] != "pending"]
    assert told == [(uid, state) for uid in uids for state in ("running", "finished")]
    times = [time for job in jobs for time in (job.created, job.started, job.finished)]
    for job in jobs:
        assert job.created <= (job.started or 0) <= (job.finished or 0), times
    assert lent(daemon) == []


def test_the_keeper_begins_what_it_was_lent_without_a_word(patient: Driver) -> None:
    gate, uids = lend(patient)
    end(patient.pid, signal.SIGSTOP)
    let_go(patient)
    wait_for(lambda: ledger(patient) == list(range(AHEAD)), "what the keeper has")
    assert patient.job(gate).state == "running"
    end(patient.pid, signal.SIGCONT)
    check(patient, uids)
    assert '"returned"' not in books(patient.state_dir)


def test_without_a_daemon_it_begins_none_of_them(patient: Driver) -> None:
    gate, uids = lend(patient)
    patient.kill()
    wait_for(lambda: books(patient.state_dir).count('"returned"') == AHEAD, "all of them back")
    let_go(patient)
    wait_for(lambda: f'{{"end":[{gate},0]' in books(patient.state_dir), "the end of the gate")
    assert ledger(patient) == []
    patient.start()
    check(patient, uids)


def test_killed_with_its_daemon_in_the_midst_of_them_each_runs_once(patient: Driver) -> None:
    _, uids = lend(patient)
    end(patient.pid, signal.SIGSTOP)
    let_go(patient)
    wait_for(lambda: len(ledger(patient)) >= 3, "some of them")
    (keeper,) = holders(patient.state_dir, "keeper")
    end(keeper)
    patient.kill()
    patient.start()
    for uid in uids:
        patient.finished(uid)
    assert ledger(patient) == list(range(MANY))


def test_killed_alone_the_keeper_takes_none_of_them_along(patient: Driver) -> None:
    _, uids = lend(patient)
    (keeper,) = holders(patient.state_dir, "keeper")
    end(keeper)
    wait_for(lambda: lent(patient) == [], "all of them back")
    let_go(patient)
    check(patient, uids)


def test_a_pause_calls_them_back(patient: Driver) -> None:
    gate, uids = lend(patient)
    patient.ask({"pause": "q"})
    let_go(patient)
    patient.finished(gate)
    # Another queue's job comes and goes meanwhile.
    patient.finished(patient.submit("true"))
    assert (ledger(patient), lent(patient)) == ([], [])
    patient.ask({"resume": "q"})
    check(patient, uids)


def test_the_time_of_a_lent_job_is_counted_from_its_beginning(patient: Driver) -> None:
    """Not from when the daemon hears of it."""
    patient.ask({"pause": "q"})
    patient.submit("true", queue="q")
    wait = ["sh", "-c", "until test -e go; do sleep 0.02; done"]
    patient.submit(wait, cwd=str(patient.state_dir), queue="q")
    last = patient.submit("sleep 1000", queue="q", timeout=500)
    patient.ask({"resume": "q"})
    wait_for(lambda: lent(patient) == [last], "what is lent")
    patient.ask({"resume": "other"})
    end(patient.pid, signal.SIGSTOP)
    let_go(patient)
    wait_for(lambda: f'{{"began":[{last},0]' in books(patient.state_dir), "its beginning")
    end(patient.pid, signal.SIGCONT)
    wait_for(lambda: has_begun(patient, last), "the same in the tables")
    lines = [json.loads(line) for line in books(patient.state_dir).split()]
    (at,) = [line["at"] for line in lines if line.get("next") == [last, 0]]
    with state_file(patient.state_dir) as db:
        (deadline,) = db.execute("SELECT deadline FROM jobs WHERE uid = ?", (last,)).fetchone()
    assert deadline == at + 500
    patient.ask({"kill": [patient.job(last).id]})
    assert patient.finished(last).result == "killed"


def test_a_lent_job_is_killed_as_any_that_waits(patient: Driver) -> None:
    _, uids = lend(patient)
    victim = patient.job(uids[1])
    assert patient.ask({"kill": [victim.id]}) == {"killed": [victim.id]}
    assert patient.job(uids[1]).result == "killed"
    assert patient.job(uids[1]).commands[0].state == "skipped"
    let_go(patient)
    check(patient, [uids[0], *uids[2:]], [0, *range(2, MANY)])
    assert story(patient, [uids[1]]) == [(uids[1], "pending"), (uids[1], "finished")]


def test_all_of_a_queue_are_killed_whether_they_are_lent_or_not(patient: Driver) -> None:
    gate, uids = lend(patient)
    ids = [patient.job(uid).id for uid in (gate, *uids)]
    assert patient.ask({"kill": ids}) == {"killed": ids}
    assert {patient.finished(uid).result for uid in (gate, *uids)} == {"killed"}
    assert patient.finished(signs(patient, 7)).result == "succeeded"
    assert ledger(patient) == [7]


def test_what_does_not_move_is_called_back(tmp_path: Path) -> None:
    with Driver(tmp_path, queues=QUEUES, lent_stale=0.02, lent_quick=60_000) as daemon:
        _, uids = line_up(daemon)
        wait_for(lambda: books(tmp_path).count('"returned"') == AHEAD, "all of them back")
        wait_for(lambda: lent(daemon) == [], "the same in the tables")
        let_go(daemon)
        check(daemon, uids)


def test_a_job_that_comes_as_another_ends_is_not_forgotten(tmp_path: Path) -> None:
    """Whichever of the two the daemon hears of first, and whatever it does just then."""
    with Driver(tmp_path, queues=QUEUES) as daemon:
        for number in range(150):
            first = daemon.submit("true", queue="q")
            until = time.monotonic() + number * 4e-5
            while time.monotonic() < until:
                pass
            second = daemon.submit("true", queue="q")
            assert daemon.finished(first).result == "succeeded"
            assert daemon.finished(second).result == "succeeded"


def test_what_is_lent_when_the_power_fails_may_have_run(patient: Driver) -> None:
    _, uids = lend(patient)
    machine_crash(patient, "everything")
    results = [patient.finished(uid).result for uid in uids]
    assert results == ["lost"] * AHEAD + ["succeeded"] * (MANY - AHEAD)
    assert ledger(patient) == [*range(AHEAD, MANY)]


def test_what_was_given_back_before_the_power_failed_has_not(patient: Driver) -> None:
    gate, uids = lend(patient)
    patient.kill()
    wait_for(lambda: books(patient.state_dir).count('"returned"') == AHEAD, "all of them back")
    machine_crash(patient, "nothing")
    assert patient.finished(gate).result == "lost"
    check(patient, uids)


def test_a_job_with_a_secret_is_not_lent_nor_what_waits_behind_it(patient: Driver) -> None:
    patient.ask({"pause": "q"})
    patient.submit("true", queue="q")
    gate = patient.submit("sleep 1000", queue="q")
    signs(patient, 0)
    signs(patient, 1, env={"A": "b"})
    signs(patient, 2)
    patient.ask({"resume": "q"})
    wait_for(lambda: lent(patient), "what is lent")
    assert len(lent(patient)) == 1
    patient.ask({"kill": [patient.job(gate).id]})
    wait_for(lambda: ledger(patient) == [0, 1, 2], "all of them")


def test_one_that_cannot_begin_has_an_end_and_holds_nobody_up(patient: Driver) -> None:
    _, uids = lend(patient)
    # Its output can't be made.
    (patient.state_dir / pipe_path(uids[1], 0)).mkdir()
    let_go(patient)
    job = patient.finished(uids[1])
    assert (job.result, job.commands[0].return_code) == ("failed", 126)
    check(patient, [uids[0], *uids[2:]], [0, *range(2, MANY)])
    assert patient.ask({"pause": "q"}) == {}


def test_what_a_turn_lends_is_called_back_with_what_is_before_it() -> None:
    """Given back without it, that would have to wait behind it."""

    async def body() -> None:
        recalled: list[list[int]] = []
        free = asyncio.Event()
        lending = Lending(recalled.append, free)
        link = Link("keeper", "", draining=False, line=KeeperLine(), lends=True, given={1})
        queues = Queues().configure({"q": 1, "other": 1}).adopt("q", [2, 3, 4], [1])
        queues = queues.lend("q", 2)
        lending.watch(queues)
        # A turn is under way.
        assert lending.call_back(["q", "other"])
        assert lending.terms(link) == Terms(frozenset({1}), frozenset({"q"}))
        assert recalled == []
        lending.watch(queues.lend("q", 3))
        free.set()
        lending.tell()
        assert recalled == [[2, 3]]
        # They are on their way, and nothing is lent of any other.
        assert lending.call_back(["q", "other"])
        assert not lending.call_back(["other"])
        lending.tell()
        assert recalled == [[2, 3]]
        lending.watch(queues.give_back([2, 3]))
        assert not lending.call_back(["q"])
        assert lending.terms(link) == Terms(frozenset({1}), frozenset())

    asyncio.run(body())


def test_called_back_at_any_moment_they_keep_their_order(tmp_path: Path) -> None:
    with Driver(tmp_path, kill_grace=0.3, queues=QUEUES) as daemon:
        daemon.ask({"pause": "q"})
        uids = [signs(daemon, number) for number in range(100)]
        daemon.ask({"resume": "q"})
        while daemon.job(uids[-1]).state != "finished":
            daemon.ask({"reload": {"queues": QUEUES}})
        check(daemon, uids)


def test_stale_at_any_moment_they_keep_their_order(tmp_path: Path) -> None:
    with Driver(tmp_path, kill_grace=0.3, queues=QUEUES, lent_stale=0.005) as daemon:
        daemon.ask({"pause": "q"})
        uids = [signs(daemon, number) for number in range(100)]
        daemon.ask({"resume": "q"})
        check(daemon, uids)


def test_a_pause_waits_for_a_keeper_that_says_nothing(patient: Driver) -> None:
    gate, uids = lend(patient)
    # Nothing is left in the book that would make the next daemon take a turn.
    wait_for(lambda: has_begun(patient, gate), "that it has begun, in the tables")
    pair = [holders(patient.state_dir, role)[0] for role in ("guard", "keeper")]
    end(patient.pid, signal.SIGSTOP)
    for pid in pair:
        end(pid, signal.SIGSTOP)
    patient.kill()
    patient.start()
    # It has the next ones, and so far nobody can take them away from it.
    assert lent(patient) == uids[:AHEAD]
    let_go(patient)
    patient.ask({"pause": "q"})
    assert lent(patient) == []
    begun = [uid for uid in uids if patient.job(uid).state != "pending"]
    for uid in begun:
        patient.finished(uid)
    patient.finished(patient.submit("true", queue="other"))
    assert ledger(patient) == list(range(len(begun)))
    patient.ask({"resume": "q"})
    check(patient, uids)


def test_a_pause_that_waits_for_a_keeper_keeps_no_daemon_from_its_end(patient: Driver) -> None:
    lend(patient)
    for role in ("guard", "keeper"):
        end(holders(patient.state_dir, role)[0], signal.SIGSTOP)
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(DEADLINE)
        door.connect(str(patient.door))
        door.sendall(b'{"pause": "q"}\n')
        # It is under way: what comes behind it is answered.
        patient.ask({"resume": "other"})
        assert patient.stop() == 0
        assert json.loads(door.recv(65536))["error"] == Stopping.code


def test_booked_in_another_boot_they_have_ended_after_they_began(patient: Driver) -> None:
    _, uids = lend(patient, 3)
    end(patient.pid, signal.SIGSTOP)
    let_go(patient)
    wait_for(lambda: f'{{"end":[{uids[-1]},0]' in books(patient.state_dir), "all of them")
    wait_for(lambda: time.time() > patient.job(uids[0]).created / 1000 + 1, "a later moment")
    machine_crash(patient, "nothing")
    check(patient, uids)


@pytest.mark.parametrize("logs", ["kept", "lost"])
def test_a_book_cut_by_a_power_failure_has_nothing_run_twice(
    patient: Driver, logs: str
) -> None:
    """What it says of an earlier lending says nothing of a later one."""
    wait = ["sh", "-c", "until test -e go$0; do sleep 0.02; done"]
    daemon = patient
    daemon.ask({"pause": "q"})
    for number in ("1", "2"):
        daemon.submit("true", queue="q")
        daemon.submit([*wait, number], cwd=str(daemon.state_dir), queue="q")
    last = signs(daemon, 7)
    daemon.ask({"resume": "q"})
    wait_for(lambda: last in lent(daemon), "what is lent")
    daemon.ask({"reload": {"queues": QUEUES}})
    wait_for(lambda: lent(daemon) == [], "all of them back")
    (book,) = (daemon.state_dir / "keeper").glob("*.book")
    kept = book.stat().st_size
    (daemon.state_dir / "go1").touch()
    wait_for(lambda: last in lent(daemon), "what is lent again")
    daemon.ask({"resume": "other"})
    end(daemon.pid, signal.SIGSTOP)
    (daemon.state_dir / "go2").touch()
    wait_for(lambda: ledger(daemon) == [7], "the last one")
    cut_power(daemon)
    book.write_bytes(book.read_bytes()[:kept])
    if logs == "lost":
        shutil.rmtree(daemon.state_dir / "jobs" / str(last))
    another_boot(daemon.state_dir)
    daemon.start()
    assert daemon.finished(last).result == "lost"
    assert ledger(daemon) == [7]


def test_one_behind_a_job_that_fails_before_its_last_command_has_its_turn(
    patient: Driver,
) -> None:
    daemon, wait = patient, "until test -e go; do sleep 0.02; done; exit 1"
    daemon.ask({"pause": "q"})
    daemon.submit("true", queue="q")
    # Its keeper does not know that the job ends here.
    daemon.submit(["sh", "-c", wait], "true", cwd=str(daemon.state_dir), queue="q")
    uid = daemon.submit("sleep 1000", queue="q")
    daemon.ask({"resume": "q"})
    wait_for(lambda: lent(daemon) == [uid], "what is lent")
    let_go(daemon)
    wait_for(lambda: daemon.job(uid).state == "running", "its turn")
    assert daemon.ask({"kill": [daemon.job(uid).id]})
    assert daemon.finished(uid).result == "killed"


def test_several_at_once_are_told_of_in_their_order(tmp_path: Path) -> None:
    wait = ["sh", "-c", "until test -e go; do sleep 0.02; done"]
    with Driver(
        tmp_path, queues={"q": 2, "other": 1}, lent_stale=1000, lent_quick=60_000
    ) as daemon:
        daemon.ask({"pause": "q"})
        daemon.submit("true", queue="q")
        for _ in range(2):
            daemon.submit(wait, cwd=str(tmp_path), queue="q")
        uids = [daemon.submit(*each, queue="q") for each in (["sleep 0.3"], ["true"], ["true"])]
        daemon.ask({"resume": "q"})
        wait_for(lambda: lent(daemon) == uids, "what is lent")
        daemon.ask({"resume": "other"})
        end(daemon.pid, signal.SIGSTOP)
        let_go(daemon)
        wait_for(lambda: f'{{"end":[{uids[0]},0]' in books(tmp_path), "the longest")
        end(daemon.pid, signal.SIGCONT)
        jobs = [daemon.finished(uid) for uid in uids]
        told = [uid for uid, state in story(daemon, uids) if state == "running"]
    assert told == uids
    assert all((job.started or 0) <= (job.finished or 0) for job in jobs)


MARKS = """
import fcntl, os, sys, time
ledger = os.open("marks", os.O_RDWR | os.O_CREAT | os.O_APPEND)
os.write(ledger, b"+%d\\n" % int(sys.argv[1]))
time.sleep(0.005)
os.write(ledger, b"-%d\\n" % int(sys.argv[1]))
sys.exit(int(sys.argv[2]))
"""


def test_no_more_run_at_once_than_may_however_jobs_end(tmp_path: Path) -> None:
    (tmp_path / "marks.py").write_text(MARKS)

    def marks(number: int, code: int = 0) -> list[str]:
        return [sys.executable, "-IS", "marks.py", str(number), str(code)]

    def commands(number: int) -> list[list[str]]:
        # Short ones, such as fail before their last command, and such as have several.
        if number % 2:
            return [["true"]]
        return [marks(number, code=int(number % 3 == 0)), *[marks(number)] * (number % 5 % 3)]

    where = str(tmp_path)
    with Driver(tmp_path, queues={"q": 2}) as daemon:
        daemon.ask({"pause": "q"})
        uids = [daemon.submit(*commands(number), cwd=where, queue="q") for number in range(40)]
        daemon.ask({"resume": "q"})
        jobs = [daemon.finished(uid) for uid in uids]
    results = ["succeeded" if n % 2 or n % 3 else "failed" for n in range(40)]
    assert [job.result for job in jobs] == results
    running: set[int] = set()
    for mark in (tmp_path / "marks").read_text().split():
        (running.add if mark[0] == "+" else running.remove)(int(mark[1:]))
        assert len(running) <= 2
    started = [job.started or 0 for job in jobs]
    assert started == sorted(started)
