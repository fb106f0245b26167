"""What is in a pipe outlives all who had it open, but the guard."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import psutil
import pytest

from dispatcher import output_files
from dispatcher.fdstore import FdStore
from tests.kit import wait_for
from tests.kit.driver import Driver
from tests.kit.frozen import end_frozen, freeze, thaw
from tests.kit.processes import holders, runs, starters

LIMIT = 4096


def put(store: FdStore, n: int, text: bytes) -> None:
    """Make a pipe, keep it, write into it, and have no end of it any more."""
    pipe = output_files.make_pipe(1, n)
    store.keep([1, n], LIMIT, pipe)
    store.look()
    writer = os.open(output_files.pipe_path(1, n), os.O_WRONLY | os.O_NONBLOCK)
    os.write(writer, text)
    os.close(writer)
    os.close(pipe)


def forget(n: int) -> None:
    Path(output_files.pipe_path(1, n)).unlink()


def test_what_is_kept_comes_back_with_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = FdStore()
    for n in range(3):
        put(store, n, b"%d" % n)
    taken = store.take_all()
    assert {job: kept.limit for job, kept in taken.items()} == {(1, n): LIMIT for n in range(3)}
    for (_, n), kept in taken.items():
        assert os.read(kept.pipe, 10) == b"%d" % n
        os.close(kept.pipe)


def test_what_is_needed_stays_and_the_rest_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = FdStore()
    needed = [0, 7, 200]
    files = psutil.Process().num_fds()
    for n in range(400):
        put(store, n, b"%d" % n)
        if n not in needed:
            forget(n)
    assert psutil.Process().num_fds() == files
    taken = store.take_all()
    assert len(taken) < 40
    assert {n for _, n in taken} >= set(needed)
    for (_, n), kept in taken.items():
        assert os.read(kept.pipe, 10) == b"%d" % n
        os.close(kept.pipe)


def test_what_finds_no_room_drives_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = FdStore()
    for n in range(2000):
        put(store, n, b"%d" % n)
    taken = store.take_all()
    assert 16 < len(taken) < 2000
    assert sorted(n for _, n in taken) == list(range(len(taken)))
    for (_, n), kept in taken.items():
        assert os.read(kept.pipe, 10) == b"%d" % n
        os.close(kept.pipe)


def test_where_others_go_there_is_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = FdStore()
    for n in range(2000):
        put(store, n, b"x")
    for n in range(2000):
        forget(n)
    # What comes finds none, and makes some.
    for n in range(2000, 2003):
        put(store, n, b"x")
    taken = store.take_all()
    assert (1, 2002) in taken
    for kept in taken.values():
        os.close(kept.pipe)


def test_who_may_open_no_more_takes_none_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = FdStore()
    put(store, 0, b"x")
    put(store, 1, b"y")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        assert not store.take_all()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_a_dead_starter_had_no_time_to_put_away_is_put_away(daemon: Driver) -> None:
    script = "echo $$ >pid; while [ ! -e go ]; do sleep 0.02; done; echo late"
    uid = daemon.submit(["sh", "-c", script], cwd=str(daemon.state_dir))
    pid = daemon.state_dir / "pid"
    wait_for(lambda: pid.exists() and pid.read_text().endswith("\n"))
    command = psutil.Process(int(pid.read_text()))
    starter = psutil.Process(command.ppid())
    (keeper,) = holders(daemon.state_dir, "keeper")
    freeze(keeper)
    (daemon.state_dir / "go").touch()
    wait_for(lambda: not runs(command))
    # It has told the end, and waits for the keeper.
    wait_for(lambda: starter.status() == psutil.STATUS_SLEEPING)
    starter.kill()
    thaw(keeper)
    assert daemon.finished(uid).result == "succeeded"
    assert daemon.output(uid) == b"late\n"
    wait_for(lambda: not [*(daemon.state_dir / output_files.PIPES).glob("*.pipe")], "no pipe")


@pytest.mark.parametrize("end_of_script", ["", " & echo early"], ids=["command", "left behind"])
def test_output_is_kept_when_starter_and_keeper_die_before_they_see_it(
    daemon: Driver, end_of_script: str
) -> None:
    waits = "echo $$ >pid; while [ ! -e go ]; do sleep 0.02; done; echo late"
    script = f"sh -c '{waits}'{end_of_script}"
    uid = daemon.submit(["sh", "-c", script], cwd=str(daemon.state_dir))
    pid = daemon.state_dir / "pid"
    wait_for(lambda: pid.exists() and pid.read_text().endswith("\n"))
    writer = psutil.Process(int(pid.read_text()))
    if end_of_script:
        daemon.finished(uid)
    victims = [*starters(daemon.state_dir), *holders(daemon.state_dir, "keeper")]
    for victim in victims:
        freeze(victim)
    (daemon.state_dir / "go").touch()
    wait_for(lambda: not runs(writer))
    for victim in victims:
        end_frozen(victim)
    expected = b"early\nlate\n" if end_of_script else b"late\n"
    wait_for(lambda: daemon.output(uid) == expected)
