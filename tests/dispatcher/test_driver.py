"""The harness itself: what goes wrong behind a test's back fails the test."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path

import pytest

from tests.kit import QUIET, Daemon
from tests.kit.driver import Driver
from tests.kit.processes import Program, end, holders
from tests.kit.state_file import append_events


@pytest.fixture(params=["driver", "daemon"])
def one(request: pytest.FixtureRequest, tmp_path: Path) -> Driver | Daemon:
    if request.param == "driver":
        return Driver(tmp_path)
    return Daemon(tmp_path / "state", QUIET)


def die(one: Program) -> None:
    assert one.process is not None
    one.log.write_text("its last words\n")
    end(one.pid)
    one.process.wait()


def test_a_daemon_that_ends_by_itself_fails_the_test(one: Driver | Daemon) -> None:
    with pytest.raises(AssertionError, match=r"status -9:\nits last words"), one:
        die(one)
    assert not one.is_up


def test_the_tests_own_failure_is_the_one_to_be_seen(one: Driver | Daemon) -> None:
    with pytest.raises(ZeroDivisionError) as caught, one:
        die(one)
        raise ZeroDivisionError
    assert "its last words" in caught.value.__notes__[0]
    assert not one.is_up


def test_an_end_that_is_meant_is_none_by_itself(one: Driver | Daemon) -> None:
    with one:
        one.kill()
    with one:
        one.stop()
    with one:
        end(one.pid, signal.SIGTERM)
        assert one.wait() == 0


def test_a_job_that_is_told_as_finished_twice_fails_the_test(one: Driver | Daemon) -> None:
    one.start().stop()
    told = [b'{"job":7,"state":"finished"}', b'{"job":8,"state":"finished"}', b'{"job":']
    append_events(one.state_dir, [("dispatcher", body, time.time()) for body in told])
    with one:
        one.stop()
    append_events(one.state_dir, [("dispatcher", told[0], time.time())])
    with pytest.raises(AssertionError, match=r"more than once: \[7\]"), one:
        one.stop()


def test_who_asks_if_a_keeper_lives_is_none(tmp_path: Path) -> None:
    (tmp_path / "keeper").mkdir()
    ready, ready_end = os.pipe()
    done, done_end = os.pipe()
    asker = os.fork()
    if asker == 0:
        os.close(done_end)
        lock = os.open(tmp_path / "keeper" / "pair.keeper", os.O_RDWR | os.O_CREAT)
        # As a daemon does that looks if the lock is held.
        fcntl.lockf(lock, fcntl.LOCK_EX)
        os.write(ready_end, b"!")
        os.read(done, 1)
        os._exit(0)
    assert os.read(ready, 1) == b"!"
    assert not holders(tmp_path)
    for file in (ready, ready_end, done, done_end):
        os.close(file)
    os.waitpid(asker, 0)
