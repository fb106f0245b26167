"""The daemon ends in time whatever hangs, says what hung, and its watchdog ends with it."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.kit.daemon import MAIN, QUIET, Daemon
from tests.kit.hung import hung_file_system
from tests.kit.processes import command_line, ended, runs
from tests.kit.waiting import DEADLINE, wait_for

# A thread may do it; only the watchdog can; the loop goes on, its end does not.
SLEEP = "time.sleep(1000)"
LOCK = "re.match('(a+)+$', 'a' * 64 + 'b')"
POOL = "asyncio.get_running_loop().run_in_executor(None, time.sleep, 1000)"
# What is promised: s.
IN_TIME = 20


def hanging(what: str, *limits: float) -> str:
    """Python to run first in a daemon which does this at its first reload, on its loop.

    limits: when it gives up, when its stacks are asked for, when it is killed; else the real.
    """
    text = f"""
import asyncio, os, re, time
from server import own_log, signals
real = own_log.set_level
def begin(level):
    own_log.set_level = hang
    real(level)
def hang(level):
    os.write(2, b"it hangs\\n")
    {what}
own_log.set_level = begin
names = ("STOP_TIMEOUT", "STACKS_AFTER", "KILL_AFTER")
vars(signals).update(zip(names, {limits!r}))
"""
    return f"exec({text!r})"


@contextmanager
def hung(path: Path, what: str, *limits: float) -> Generator[Daemon]:
    with Daemon(path / "state", QUIET, before=hanging(what, *limits)) as daemon:
        os.kill(daemon.pid, signal.SIGHUP)
        wait_for(lambda: "it hangs" in daemon.log.read_text())
        try:
            yield daemon
        finally:
            daemon.kill()


def watchdog(daemon: Daemon) -> psutil.Process | None:
    """The one child that is a watchdog."""
    for child in psutil.Process(daemon.pid).children():
        if any(word.endswith("/countdown.py") for word in command_line(child)):
            return child
    return None


def is_told(daemon: Daemon, *words: str) -> bool:
    """Is a stack in the log which shows the hanging call, and all of these words?"""
    text = daemon.log.read_text()
    return all(word in text for word in ("in hang", *words))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_hanging_loop_is_ended_and_what_hung_is_said(tmp_path: Path, number: int) -> None:
    with hung(tmp_path, SLEEP, 0.5) as daemon:
        os.kill(daemon.pid, number)
        assert daemon.wait() == 0
        assert is_told(daemon, "told to end 0.5 s ago", "thread MainThread:", "task ")


def test_what_hangs_when_the_loop_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    with hung(tmp_path, POOL, 2) as daemon:
        assert daemon.stop() == 0
        text = daemon.log.read_text()
        assert "stopping: told to" in text
        assert "told to end 2 s ago" in text


def test_a_start_that_hangs_in_the_kernel_is_ended(tmp_path: Path) -> None:
    with hung_file_system(tmp_path / "hung") as place:
        argv = [sys.executable, MAIN, "serve", "--state-dir", str(place / "state")]
        with ended(subprocess.Popen(argv, text=True)) as daemon:
            tasks = Path(f"/proc/{daemon.pid}/task/{daemon.pid}")
            wait_for(lambda: "fuse" in (tasks / "wchan").read_text(), "a start that hangs")
            daemon.terminate()
            assert daemon.wait(DEADLINE) == 0


def test_a_loop_that_hangs_in_the_kernel_is_ended(tmp_path: Path) -> None:
    place = tmp_path / "hung"
    what = f"os.stat({str(place)!r})"
    with hung_file_system(place), hung(tmp_path, what, 0.5) as daemon:
        assert daemon.stop() == 0
        assert is_told(daemon, "told to end 0.5 s ago", "thread MainThread:")


def test_who_keeps_the_interpreter_lock_is_killed_after_saying_where(tmp_path: Path) -> None:
    with hung(tmp_path, LOCK, 0.5, 1.0, 1.5) as daemon:
        assert daemon.stop() == -signal.SIGKILL
        assert is_told(daemon, "most recent call first")


@pytest.mark.long
@pytest.mark.parametrize(("what", "status"), [(SLEEP, 0), (POOL, 0), (LOCK, -signal.SIGKILL)])
def test_all_that_hangs_is_ended_within_the_promised_time(
    tmp_path: Path, what: str, status: int
) -> None:
    with hung(tmp_path, what) as daemon:
        assert daemon.stop(IN_TIME) == status


def test_a_watchdog_that_was_killed_is_replaced_and_signals_are_heard_meanwhile(
    tmp_path: Path,
) -> None:
    with Daemon(tmp_path / "state", QUIET) as daemon:
        first = wait_for(lambda: watchdog(daemon), "a watchdog")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            first.send_signal(number)
        daemon.reload()
        assert runs(first)
        first.kill()
        wait_for(lambda: f"the watchdog (pid {first.pid}) has ended" in daemon.log.read_text())
        daemon.reload()
        second = wait_for(lambda: watchdog(daemon), "another watchdog")
        daemon.reload()
        assert daemon.stop() == 0
        wait_for(lambda: not runs(second), "the end of the watchdog")


def test_the_watchdog_ends_with_a_killed_daemon(tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", QUIET) as daemon:
        process = wait_for(lambda: watchdog(daemon), "a watchdog")
        daemon.kill()
        wait_for(lambda: not runs(process), "the end of the watchdog")


def test_a_stopped_watchdog_loses_no_signal(tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", QUIET) as daemon:
        process = wait_for(lambda: watchdog(daemon), "a watchdog")
        process.suspend()
        daemon.reload()
        assert daemon.stop() == 0
        process.resume()
        wait_for(lambda: not runs(process), "the end of the watchdog")


def test_the_watchdog_holds_nothing_of_the_daemon(tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", QUIET) as daemon:
        process = wait_for(lambda: watchdog(daemon), "a watchdog")
        wait_for(lambda: process.num_fds() == 3)
        assert not process.net_connections("inet")
        assert process.memory_full_info().uss < 8 * 1024 * 1024
