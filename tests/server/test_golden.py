"""State directories of earlier versions: opened and migrated, all that clients held is true.

Each is what a daemon of that version left when its machine went down: tests/golden/README.md.
"""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest

from server.daemon import SCHEMAS
from sysadmd.machine import host_name
from sysadmd.store import SCHEMAS as GROUND
from sysadmd.verify import verify
from tests.kit import Daemon, wait_for
from tests.kit.golden import (
    GOLDEN,
    KEPT,
    ORDERS,
    PAUSED,
    POOLS,
    WORDS,
    Expected,
    dispatcher,
    expected_of,
    finish,
    lay,
    read_events,
    read_logs,
    read_state,
    read_trail,
    submit,
)
from tests.kit.pools import StandIn, watching
from tests.kit.state_file import state_file

NAMES = sorted(path.parent.name for path in GOLDEN.glob("*/expected.json"))
TODAY = {room: len(steps) for room, steps in {**GROUND, **SCHEMAS}.items()}
LOOKED = 'sysadmd_collector_age_seconds{collector="zpool"}'
OLDEST = min(NAMES, key=lambda name: sum(expected_of(name)["versions"].values()))


def laid(name: str, tmp_path: Path, before: str = "") -> Daemon:
    """Today's daemon on a copy of it, on a machine whose pools are as they were."""
    lay(name, tmp_path / "state")
    pools = StandIn(tmp_path)
    pools.put(*POOLS)
    return Daemon(tmp_path / "state", watching(str(pools.command)) + KEPT, before=before)


def holds(told: Any, then: Any) -> bool:
    """Is all that was told then told still? Later versions may say more."""
    if isinstance(then, dict):
        values = cast("dict[str, object]", then)
        return all(key in told and holds(told[key], values[key]) for key in values)
    if isinstance(then, list):
        entries = cast("list[object]", then)
        return len(told) == len(entries) and all(map(holds, told, entries))
    return bool(told == then)


def content(frame: dict[str, Any]) -> dict[str, Any]:
    """Without the cursors: their text may be another."""
    return {key: value for key, value in frame.items() if key not in ("cursor", "prev")}


def check(daemon: Daemon, expected: Expected) -> None:
    """All of it; the daemon is started for that, and ends."""
    with daemon:
        wait_for(lambda: LOOKED in daemon.fetch("/metrics")[1], "a look at the pools")
        check_events(daemon, expected)
        check_jobs(daemon, expected)
        check_rest(daemon, expected)
        check_what_waits(daemon)
    check_file(daemon)


def check_events(daemon: Daemon, expected: Expected) -> None:
    """Every cursor leads to what came after it, with the end of the job that ran behind it."""
    then = [content(frame) for frame in expected["events"]]
    told = read_events(daemon, "oldest")
    before, after = told[: len(then)], told[len(then) :]
    for now, was in itertools.zip_longest(map(content, before), then):
        assert holds(now, was), (now, was)
    assert Counter(f["name"] for f in before) == Counter(f["name"] for f in then)
    ends = [(f["args"].get("process_id"), f["args"].get("state")) for f in after]
    assert ends == [("running", "finished")], after
    assert after[0]["args"]["process_details"]["result"] == "lost"
    assert read_events(daemon, expected["last"]) == after
    assert read_events(daemon, expected["middle"]) == told[expected["middle_at"] :]


def check_jobs(daemon: Daemon, expected: Expected) -> None:
    """What had ended is told as before, what ran is lost, what waited waits."""
    with daemon.client() as client:
        history = [job["id"] for job in dispatcher(client, "history")["jobs"]]
        assert history == ["running", *expected["history"]]
        for id in expected["history"]:
            job = dispatcher(client, "show", job_id=id)["job"]
            assert holds(job, expected["jobs"][id]), (job, expected["jobs"][id])
        for id, texts in expected["logs"].items():
            assert read_logs(client, id, len(texts)) == texts
        assert read_logs(client, "running", 2) == ["first\n", "it begins\n"]
        lost = dispatcher(client, "show", job_id="running")["job"]
        assert (lost["state"], lost["result"]) == ("finished", "lost")
        states = [command["state"] for command in lost["commands"]]
        assert states == ["finished", "finished", "skipped"]
        assert dispatcher(client, "list")["jobs"][PAUSED]["waiting"]["state"] == "pending"
        # Its key is known: it does not run again.
        assert submit(client, "keyed")["state"] == "finished"
        results = Counter(job["result"] for job in dispatcher(client, "history")["jobs"])
    _, figures = daemon.fetch("/metrics")
    for result, count in results.items():
        assert f'sysadmd_jobs_finished{{result="{result}"}} {count}.0' in figures


def check_rest(daemon: Daemon, expected: Expected) -> None:
    """The machine's state, the audit trail, and tokens."""
    with daemon.client() as client:
        # Nobody watches the name here: it is this machine's.
        assert holds(read_state(client), expected["state"] | {"hostname": host_name()})
        trail = read_trail(client)
        assert trail[: len(expected["trail"])] == expected["trail"]
    with daemon.stranger() as client:
        refused = client.ask_raw("rpc", "auth_token", {"token": expected["revoked"]})
        assert refused["args"]["code"] == 401
        client.ask("rpc", "auth_token", {"token": expected["token"]})
        assert client.ask("rpc", "query")["rpc/dispatcher"] == "read"


def check_what_waits(daemon: Daemon) -> None:
    """It runs when its queue is resumed and not before, with its environment."""
    with daemon.client() as client:
        client.ask("events", "subscribe", "dispatcher")
        dispatcher(client, "submit", job={"id": "another", "commands": ["true"]})
        finish(client, "another")
        assert dispatcher(client, "list")["jobs"][PAUSED]["waiting"]["state"] == "pending"
        dispatcher(client, "resume", queue=PAUSED)
        finish(client, "waiting")
        assert dispatcher(client, "show", job_id="waiting")["job"]["result"] == "succeeded"
        assert read_logs(client, "waiting", 1) == [WORDS["waiting"] + "\n"]


def check_file(daemon: Daemon) -> None:
    """It is sound, of today's versions, its history whole; no secret is kept without need."""
    with state_file(daemon.state_dir) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert dict(db.execute("SELECT room, version FROM schema")) == TODAY
        verify(db)
    for file in daemon.state_dir.glob("state.db*"):
        content = file.read_bytes()
        assert not [name for name, word in WORDS.items() if word.encode() in content], file


@pytest.mark.parametrize("name", NAMES)
def test_a_state_directory_of_each_earlier_version_is_carried_over(
    name: str, tmp_path: Path
) -> None:
    daemon = laid(name, tmp_path)
    expected = expected_of(name)
    check(daemon, expected)
    # A second start has nothing to do, and nothing is told anew.
    with daemon:
        events = read_events(daemon, "oldest")
        told = [f["args"] for f in events if f["args"].get("process_id") == "running"]
        assert [args["state"] for args in told].count("finished") == 1


def test_there_is_a_golden_directory_of_every_version_of_every_room() -> None:
    there = {(*item,) for name in NAMES for item in expected_of(name)["versions"].items()}
    needed = {(room, n) for room, last in TODAY.items() for n in range(1, last + 1)}
    missing = sorted(needed - there)
    assert not missing, (
        f"no directory in tests/golden is of {missing}; make one, `python -m tests.kit.golden"
        f" {len(NAMES) + 1}`, and add it to tests/golden/README.md"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_directory_is_what_its_description_says(name: str, tmp_path: Path) -> None:
    """Or the others would prove nothing."""
    lay(name, tmp_path / "state")
    expected = expected_of(name)
    with state_file(tmp_path / "state") as db:
        assert dict(db.execute("SELECT room, version FROM schema")) == expected["versions"]
        results = {job["result"] for job in expected["jobs"].values() if job.get("result")}
        assert results == {"succeeded", "failed", "killed", "timed-out"}
        states = dict(db.execute("SELECT id, state FROM jobs WHERE state < 2"))
        assert states == {"waiting": 0, "running": 1}
    assert {frame["name"] for frame in expected["events"]} == {
        *("dispatcher", "life_preserver", "system_state"),
    }
    assert set(expected["jobs"]) == set(ORDERS)


# Has the daemon killed within `open_store` when so many moments have passed: statements of SQL
# on any connection, and whatever else is done to `state.db` and what is named after it. Tells
# how many there are.
MOMENTS = """
import os, signal, sqlite3, sys
import sysadmd.store as store
passed, counts, connect, open_store = 0, False, sqlite3.connect, store.open_store
def moment(*what):
    global passed
    passed += counts
    if counts and passed == {at}: os.kill(os.getpid(), signal.SIGKILL)
def traced(*args, **more):
    db = connect(*args, **more)
    db.set_trace_callback(moment)
    return db
def heard(name, args):
    if any("state.db" in str(each) for each in args): moment()
def opened(*args, **more):
    global counts
    counts = True
    found = open_store(*args, **more)
    counts = False
    open({told!r}, "w").write(str(passed))
    return found
sqlite3.connect, store.open_store = traced, opened
sys.addaudithook(heard)
"""


def killed_at(moment: int, told: Path) -> str:
    """What runs before the daemon, to have it killed there; 0: nowhere."""
    return f"exec({MOMENTS.format(at=moment, told=str(told))!r})"


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many there are in a migration of the oldest state."""
    place = tmp_path_factory.mktemp("moments")
    with laid(OLDEST, place, killed_at(0, place / "told")):
        return int((place / "told").read_text())


def migrate_with_kill(moment: int, tmp_path: Path) -> None:
    daemon = laid(OLDEST, tmp_path, killed_at(moment, tmp_path / "told"))
    with pytest.raises(AssertionError, match="not ready, but ''"):
        daemon.start()
    assert not (tmp_path / "told").exists()
    daemon.before = ""
    check(daemon, expected_of(OLDEST))


@pytest.mark.parametrize("part", [0.25, 0.5, 0.75, 1])
def test_a_daemon_that_is_killed_while_it_migrates_leaves_a_state_that_starts(
    part: float, moments: int, tmp_path: Path
) -> None:
    migrate_with_kill(round(moments * part), tmp_path)


@pytest.mark.long
def test_there_is_no_moment_of_a_migration_that_can_not_be_the_last(
    moments: int, tmp_path: Path
) -> None:
    for moment in range(1, moments + 1):
        (tmp_path / str(moment)).mkdir()
        migrate_with_kill(moment, tmp_path / str(moment))
