"""More jobs than a file system takes directories in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher import logs, output_files
from dispatcher.output_files import TOGETHER, job_path
from tests.kit import wait_for
from tests.kit.driver import Driver
from tests.kit.state_file import state_file

# Both sides of where the next ten thousand begin.
UIDS = range(TOGETHER - 1, TOGETHER + 2)
# What UFS has, on a FreeBSD 13.2.
LINK_MAX = 32_767
LIMIT = 131_072


@pytest.fixture
def room(tmp_path: Path) -> Driver:
    """A daemon that has never run, and has given all numbers before these."""
    room = Driver(tmp_path, command_log_limit=LIMIT)
    with room:
        room.finished(room.submit("true"))
        room.stop()
    with state_file(tmp_path) as db:
        db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'jobs'", (UIDS[0] - 1,))
    return room


@pytest.mark.parametrize("uid", [1, TOGETHER - 1, TOGETHER, 12_345, 10**7, 2**62])
def test_a_directory_has_no_more_of_them_than_any_system_takes(uid: int) -> None:
    path = Path(job_path(uid))
    assert path.name == str(uid)
    first = uid - uid % TOGETHER
    assert {Path(job_path(each)).parent for each in (first or 1, first + TOGETHER - 1)} == {
        path.parent
    }
    assert Path(job_path(first + TOGETHER)).parent != path.parent
    # Of these there is one for as many jobs, beside the first ones.
    assert TOGETHER + 1 < LINK_MAX


def test_they_run_and_are_read_and_go_like_all_others(room: Driver) -> None:
    long = "i=0; while [ $i -lt 9999 ]; do echo line $i; i=$((i + 1)); done"
    with room:
        uids = [room.submit("echo one", ["sh", "-c", long]) for _ in UIDS]
        assert uids == [*UIDS]
        for uid in uids:
            assert room.finished(uid).result == "succeeded"
            assert room.output(uid) == b"one\n"
            assert room.output(uid, 1).endswith(b"line 9998\n")
            assert (room.state_dir / job_path(uid) / "1.more").is_dir()
        killed = room.submit("sleep 60", "true")
        wait_for(lambda: room.job(killed).state == "running", "the start")
        room.ask({"kill": [room.job(killed).id]})
        assert room.finished(killed).result == "killed"
        assert sorted(logs.uids(room.state_dir)) == [1, *uids, killed]
        room.stop()
    with state_file(room.state_dir) as db:
        for table, key in ("commands", "job"), ("jobs", "uid"):
            db.execute(f"DELETE FROM {table} WHERE {key} != {killed}")
    with room.start():
        wait_for(lambda: logs.uids(room.state_dir) == [killed], "the end of the others' logs")
        logs.remove(room.state_dir, [killed])
        assert not [*(room.state_dir / "jobs").iterdir()]


def test_those_of_an_earlier_build_are_found_again(room: Driver) -> None:
    with room:
        uids = [room.submit("echo one") for _ in UIDS]
        script = "echo begun; while [ ! -e go ]; do sleep 0.05; done; echo ended"
        goes_on = room.submit(["sh", "-c", script], cwd=str(room.state_dir))
        for uid in uids:
            room.finished(uid)
        wait_for(lambda: room.output(goes_on), "what it says first")
        room.kill()
        # Where they all were.
        for uid in (*uids[1:], goes_on):
            (room.state_dir / job_path(uid)).rename(room.state_dir / "jobs" / str(uid))
        room.start()
        assert [room.output(uid) for uid in uids] == [b"one\n"] * len(uids)
        (room.state_dir / "go").touch()
        assert room.finished(goes_on).result == "succeeded"
        assert room.output(goes_on) == b"begun\nended\n"


def test_the_first_of_them_has_no_place_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("jobs", output_files.PIPES):
        Path(name).mkdir()
    spare = output_files.SpareLog()
    spare.make()
    for uid in UIDS:
        log = output_files.make_log(uid, 0, spare)
        assert log is not None
        assert output_files.make_log(uid, 0, spare) is None
        assert not logs.bar(Path(output_files.log_path(uid, 0)))
        spare.make()
    (tmp_path / "jobs" / "0xxxx").touch()
    assert sorted(logs.uids(tmp_path)) == [*UIDS]
    assert logs.bar(Path(output_files.log_path(3 * TOGETHER, 0)))
