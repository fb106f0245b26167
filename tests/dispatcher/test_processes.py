"""Whose a process is, wherever it went: of those that fork twice, all of the killed job go."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

import psutil
import pytest

from dispatcher import dye, keepers
from dispatcher.identity import Identity, boot_clock
from dispatcher.processes import Family
from dispatcher.writers import Writers
from tests.kit import ROOT, needed, needs, needs_fast, needs_linux, needs_root, wait_for
from tests.kit.driver import Driver
from tests.kit.processes import APART, books, end, ended, holders, runs

# Helpers that leave group, session and parent; $PIDS gets the pid of each.
HOLDS = f"({APART} sh -c 'echo $$ >>$PIDS; exec sleep 60' &);"
HOLDS_NOTHING = f"({APART} sh -c 'echo $$ >>$PIDS; exec sleep 60' >/dev/null 2>&1 &);"


def needs_writers(daemon: Driver) -> None:
    """Go on only if this daemon can tell who has a pipe; the portable way is fuser(1)."""
    if "SYSADMD_PORTABLE" in daemon.environment:
        if sys.platform.startswith("freebsd"):
            pytest.skip("fuser(1) of FreeBSD tells nobody who has a fifo")
        needs("fuser")


def needs_memory() -> None:
    """Go on only where it is known of everybody from whom he descends."""
    needs_fast("to know who forked twice and holds nothing")
    if not sys.platform.startswith("freebsd"):
        needs_marks()


def needs_marks() -> None:
    """Go on only if we may see the marks of others; root in a container often may not."""
    needs_linux("the mark")
    needs_fast("the mark")
    needs_root()
    try:
        Path("/proc/1/timerslack_ns").read_bytes()
    except OSError:
        needed("CAP_SYS_NICE")


class Helpers:
    """Those that have written their pids to this file; ended when the test is."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._known: dict[int, psutil.Process] = {}

    def begun(self, count: int) -> list[psutil.Process]:
        """As many of them, once they are there; those that have written first."""

        def look() -> bool:
            text = self.file.read_text() if self.file.exists() else ""
            for line in text.splitlines(keepends=True):
                if line.endswith("\n") and int(line) not in self._known:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        self._known[int(line)] = psutil.Process(int(line))
            return len(self._known) >= count

        wait_for(look, f"{count} helpers")
        return list(self._known.values())

    def left(self) -> list[psutil.Process]:
        """Those that run."""
        self.begun(0)
        return [process for process in self._known.values() if runs(process)]


@contextlib.contextmanager
def helpers_of(file: Path) -> Generator[Helpers]:
    helpers = Helpers(file)
    try:
        yield helpers
    finally:
        for process in helpers.left():
            end(process.pid)


@pytest.fixture
def some(tmp_path: Path) -> Generator[Helpers]:
    with helpers_of(tmp_path / "some") as helpers:
        yield helpers


@pytest.fixture
def others(tmp_path: Path) -> Generator[Helpers]:
    with helpers_of(tmp_path / "others") as helpers:
        yield helpers


def submit(daemon: Driver, id: str, helpers: Helpers, script: str, **more: int) -> int:
    return daemon.submit(["sh", "-c", script], id=id, env={"PIDS": str(helpers.file)}, **more)


def check_only_one_of_two_jobs_goes(
    daemon: Driver, some: Helpers, others: Helpers, script: str, count: int
) -> None:
    # The killed one began first, so the other one's processes are as young as its own.
    first = submit(daemon, "a", some, script)
    some.begun(count)
    second = submit(daemon, "b", others, script)
    others.begun(count)
    daemon.ask({"kill": ["a"]})
    wait_for(lambda: not some.left(), "the end of the helpers")
    assert daemon.finished(first).result == "killed"
    assert len(others.left()) == count
    assert daemon.job(second).state == "running"
    # And the other way round: who is older than the killed one.
    third = submit(daemon, "c", some, script)
    some.begun(2 * count)
    daemon.ask({"kill": ["c"]})
    wait_for(lambda: not some.left(), "the end of the helpers")
    assert daemon.finished(third).result == "killed"
    assert len(others.left()) == count
    daemon.ask({"kill": ["b"]})
    wait_for(lambda: not others.left(), "the end of the helpers")
    assert daemon.finished(second).result == "killed"


def test_a_kill_reaches_who_forked_twice_and_holds_the_log(
    daemon: Driver, some: Helpers, others: Helpers
) -> None:
    needs_writers(daemon)
    check_only_one_of_two_jobs_goes(daemon, some, others, HOLDS + "sleep 60", 1)


def test_a_kill_reaches_who_forked_twice_and_holds_nothing(
    room: Driver, some: Helpers, others: Helpers
) -> None:
    needs_memory()
    check_only_one_of_two_jobs_goes(room, some, others, HOLDS + HOLDS_NOTHING + "sleep 60", 2)


def test_a_timeout_reaches_who_forked_twice(room: Driver, some: Helpers) -> None:
    needs_memory()
    uid = submit(room, "a", some, HOLDS + HOLDS_NOTHING + "sleep 60", timeout=1)
    some.begun(2)
    assert room.finished(uid).result == "timed-out"
    wait_for(lambda: not some.left(), "the end of the helpers")


def test_a_kill_reaches_who_was_left_by_a_command_before(room: Driver, some: Helpers) -> None:
    needs_memory()
    orders = [["sh", "-c", script] for script in (HOLDS_NOTHING + "exit 0", "sleep 60")]
    uid = room.submit(*orders, id="a", env={"PIDS": str(some.file)})
    some.begun(1)
    wait_for(lambda: f'"began":[{uid},1]' in books(room.state_dir))
    room.ask({"kill": ["a"]})
    assert room.finished(uid).result == "killed"
    wait_for(lambda: not some.left(), "the end of the helper")


def test_who_falls_to_a_starter_is_reaped_whatever_it_does(room: Driver, some: Helpers) -> None:
    ends = HOLDS_NOTHING.replace("exec sleep 60", "while [ ! -e $GO ]; do sleep 0.05; done")
    env = {"PIDS": str(some.file), "GO": str(room.state_dir / "go")}
    # Of one that serves its command, and of one that waits for another.
    for script in (ends + "exec sleep 60", ends):
        room.submit(["sh", "-c", script], env=env)
    helpers = some.begun(2)
    wait_for(lambda: '"end":[2,0]' in books(room.state_dir))
    Path(env["GO"]).touch()
    wait_for(
        lambda: not any(map(psutil.pid_exists, (each.pid for each in helpers))), "the reaping"
    )


def test_helpers_are_asked_first_and_killed_after_the_grace(
    daemon: Driver, some: Helpers
) -> None:
    needs_writers(daemon)
    asked = 'trap "echo asked" TERM; echo $$ >>$PIDS; while :; do sleep 0.02; done'
    script = f"({APART} sh -c '{asked}' &); exec sleep 60"
    uid = submit(daemon, "a", some, script)
    some.begun(1)
    daemon.ask({"kill": ["a"]})
    # The command goes at once, and its job with it.
    assert daemon.finished(uid).commands[0].return_code == -signal.SIGTERM
    wait_for(lambda: not some.left(), "the end of the helper")
    # The shell may also say what became of its sleep.
    assert b"asked\n" in daemon.output(uid)


def test_helpers_that_fork_on_when_they_are_asked_are_ended(
    room: Driver, some: Helpers, tmp_path: Path
) -> None:
    needs_memory()
    helper = tmp_path / "helper"
    again = f"({APART} {helper} &)"
    helper.write_text(
        f"#!/bin/sh\ntrap '{again}; exit' TERM\necho $$ >>$PIDS\n"
        "while :; do sleep 0.02; done >/dev/null 2>&1\n"
    )
    helper.chmod(0o755)
    uid = submit(room, "a", some, f"({again}) >/dev/null 2>&1; sleep 60")
    some.begun(1)
    room.ask({"kill": ["a"]})
    assert room.finished(uid).result == "killed"
    # The first, and the one that it has begun.
    some.begun(2)
    wait_for(lambda: not some.left(), "the end of the helpers")


@pytest.mark.parametrize("pause", [0.0, 0.005, 0.05])
def test_a_chain_of_forks_is_ended_whose_links_live_shorter_than_a_look(
    room: Driver, tmp_path: Path, pause: float
) -> None:
    needs_memory()
    lock = tmp_path / "lock"
    chain, stop = tmp_path / "chain", tmp_path / "stop"
    # Whoever of them lives has the lock. None can be asked to end.
    chain.write_text(
        "import fcntl, os, signal, time\n"
        f"file = os.open({str(lock)!r}, os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "os.write(file, b'held')\n"
        f"while not os.path.exists({str(stop)!r}):\n"
        "    if os.fork():\n"
        "        os._exit(0)\n"
        "    os.setsid()\n"
        f"    time.sleep({pause})\n"
    )
    script = f"{sys.executable} {chain} >/dev/null 2>&1 & sleep 60"
    uid = room.submit(["sh", "-c", script], id="a")
    wait_for(lambda: lock.exists() and lock.read_bytes(), "the chain")
    try:
        room.ask({"kill": ["a"]})
        assert room.finished(uid).result == "killed"
        with lock.open("rb") as file:
            wait_for(lambda: taken(file), "the end of the chain")
    finally:
        stop.touch()


def taken(file: BinaryIO) -> bool:
    """Nobody else holds the lock."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def test_who_follows_a_log_is_no_part_of_its_job(daemon: Driver, some: Helpers) -> None:
    needs_writers(daemon)
    uid = submit(daemon, "a", some, "echo begun;" + HOLDS + "sleep 60")
    wait_for(lambda: daemon.output(uid) == b"begun\n")
    log = daemon.state_dir / "jobs" / str(uid) / "0.log"
    with subprocess.Popen(["tail", "-f", str(log)], stdout=subprocess.PIPE) as reader:
        try:
            assert reader.stdout is not None
            assert reader.stdout.readline() == b"begun\n"
            some.begun(1)
            daemon.ask({"kill": ["a"]})
            wait_for(lambda: not some.left(), "the end of the helper")
            assert reader.poll() is None
        finally:
            reader.kill()


@pytest.mark.parametrize("begin", [f"({APART} {{}} &);", "{} &"], ids=["apart", "in its group"])
def test_daemon_guard_and_keeper_that_a_job_began_are_spared(
    daemon: Driver, some: Helpers, tmp_path: Path, begin: str
) -> None:
    program = tmp_path / "program"
    program.write_text(
        f"#!/bin/sh\necho $$ >>$PIDS\nexec {' '.join(map(repr, daemon.command()))}\n"
    )
    program.chmod(0o755)
    go = tmp_path / "go"
    script = f"until [ -e {go} ]; do sleep 0.02; done; {begin.format(program)} sleep 60"
    env = {"PIDS": str(some.file)}
    if "SYSADMD_PORTABLE" in daemon.environment:
        env["SYSADMD_PORTABLE"] = "1"
    uid = daemon.submit(["sh", "-c", script], id="a", env=env)
    wait_for(lambda: '"began"' in books(tmp_path))
    daemon.kill()
    for pid in reversed(holders(tmp_path)):
        end(pid)
    go.touch()
    some.begun(1)
    wait_for(lambda: len(holders(tmp_path)) == 2, "another guard and keeper")
    pair = holders(tmp_path)
    helped = daemon.submit("sleep 60", id="b")
    wait_for(lambda: daemon.job(helped).state == "running")
    daemon.ask({"kill": ["a"]})
    assert daemon.finished(uid).result == "killed"
    wait_for(lambda: len(some.left()) == 1)
    assert holders(tmp_path) == pair
    assert daemon.job(helped).state == "running"
    assert daemon.finished(daemon.submit("true")).result == "succeeded"


DYED = (
    "import os, sys; from dispatcher import dye; dye.dye(int(sys.argv[1]));"
    "os.execvp('sh', ['sh', '-c', sys.argv[2]])"
)
UID = 4711


def start_dyed(
    script: str, helpers: Helpers, *before: str, stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[str]:
    """A shell that carries the mark of UID; before: the command that starts it."""
    return subprocess.Popen(
        [*before, sys.executable, "-c", DYED, str(UID), script],
        env={**os.environ, "PIDS": str(helpers.file), "PYTHONPATH": str(ROOT)},
        stdin=stdin,
        text=True,
        process_group=0,
    )


def start_leader(script: str, helpers: Helpers) -> tuple[Identity, subprocess.Popen[str]]:
    earliest = boot_clock()
    process = start_dyed(script, helpers)
    return Identity(process.pid, earliest, boot_clock()), process


def test_helpers_are_found_when_their_command_is_gone_already(some: Helpers) -> None:
    needs_marks()
    leader, process = start_leader(HOLDS_NOTHING, some)
    assert process.wait() == 0
    (helper,) = some.begun(1)
    # Who has got the orphan takes the guard's part.
    guard = helper.ppid()
    family = Family(
        leader, since=leader.earliest, mark=dye.mark(UID), spare=lambda pid: pid == guard
    )
    assert family.look()
    assert not Family(
        leader, since=leader.earliest, mark=dye.mark(UID + 1), spare=lambda pid: pid == guard
    ).look()
    assert not Family(leader, since=leader.earliest, spare=lambda pid: pid == guard).look()
    family.terminate()
    wait_for(lambda: not family.look(), "the end of the helper")
    assert not some.left()


def test_a_mark_that_came_from_elsewhere_makes_nobody_a_member(
    some: Helpers, others: Helpers
) -> None:
    needs_marks()
    # A service that a job of the same mark left long ago, and what it begins now.
    gate, gate_end = os.pipe()
    script = "echo $$ >>$PIDS; read go; sleep 60 & echo $! >>$PIDS; wait"
    service = start_dyed(script, others, stdin=gate)
    os.close(gate)
    with ended(service):
        others.begun(1)
        # Starts are told in ticks.
        before = boot_clock()
        wait_for(lambda: boot_clock() - before > 0.1)
        leader, process = start_leader(HOLDS_NOTHING + "sleep 60", some)
        with ended(process):
            some.begun(1)
            os.write(gate_end, b"go\n")
            os.close(gate_end)
            others.begun(2)
            # And what another daemon's keeper has begun after ours: its parent shows that.
            keeper = ("sh", "-c", '"$@" & wait', "sh")
            with ended(start_dyed("echo $$ >>$PIDS; exec sleep 60", others, *keeper)):
                others.begun(3)
                family = Family(leader, since=leader.earliest, mark=dye.mark(UID))
                while family.kill():
                    pass
                assert not some.left()
                assert len(others.left()) == 3


def test_who_can_write_to_any_of_several_files_is_a_member(
    some: Helpers, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    log = tmp_path / "log"
    log.touch()
    reader = os.open(fifo, os.O_RDWR)
    one = HOLDS.replace("' &", f"' >{fifo} 2>/dev/null &")
    two = HOLDS.replace("' &", f"' 2>{log} >/dev/null &")
    neither = HOLDS.replace("' &", f"' >{tmp_path}/other 2>/dev/null <{log} &")
    leader, process = start_leader(one + two + neither, some)
    assert process.wait() == 0
    some.begun(3)
    assert not Family(leader, since=leader.earliest, files=[tmp_path / "none"]).look()
    assert not Family(
        leader, since=leader.earliest, files=[fifo, log], spare=lambda _: True
    ).look()
    family = Family(leader, since=leader.earliest, files=[tmp_path / "none", fifo, log])
    assert family.look()
    while family.kill():
        pass
    os.close(reader)
    (left,) = some.left()
    assert left.pid in Writers([tmp_path / "other"])


def test_marks_of_jobs_that_may_run_at_once_differ() -> None:
    for place in (0, 1, 2**63):
        marks = {dye.mark(uid, place) for uid in range(10**6, 10**6 + dye.MARKS)}
        assert marks == set(range(1, dye.MARKS + 1))


def test_a_command_carries_its_jobs_mark_and_the_keeper_none(room: Driver) -> None:
    needs_marks()
    place = room.state_dir.stat().st_ino
    show = "cat /proc/self/timerslack_ns; (setsid cat /proc/self/timerslack_ns)"
    uid = room.submit(["sh", "-c", show])
    room.finished(uid)
    assert room.output(uid).split() == [str(50_000 + dye.mark(uid, place)).encode()] * 2
    assert not keepers.is_of_pair(room.state_dir, room.pid)
    assert [dye.dyed(pid) for pid in (*holders(room.state_dir), room.pid)] == [None] * 3
