"""The trail: an entry is committed with what it tells, and what was refused has none."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dispatcher import records
from dispatcher.commandline import Spec
from dispatcher.orders import Order
from dispatcher.runner import Dispatcher
from server.daemon import SCHEMAS
from server.login import audit
from sysadmd.journal import Transaction
from sysadmd.settings import DispatcherSettings
from sysadmd.store import open_store
from tests.kit import Client, Daemon
from tests.kit.state_file import tables

FOR_EVER = 10**15


def actions(client: Client) -> list[str]:
    """What the trail has of jobs, queues and tokens, oldest first."""
    texts = [entry.partition(": ")[2] for entry in client.trail()]
    return [text for text in texts if not text.startswith("logged in")]


def test_what_was_refused_is_not_in_the_trail_as_done(daemon: Daemon) -> None:
    with daemon.client() as client:
        for job in (
            {"commands": ["sleep 60"], "id": "a", "queue": "pkg_queue"},
            {"commands": ["sleep 60"], "queue": "pkg_queue"},
        ):
            reply = client.ask("rpc", "dispatcher", {"action": "submit", "job": job})
        made_up = reply["job"]["id"]
        for args in (
            {"action": "submit", "job": {"commands": ["true"], "id": "a"}},
            {"action": "submit", "job": {"commands": ["true"], "queue": "none"}},
            {"action": "submit", "job": {"commands": ["true"], "id": "x", "cwd": "here"}},
            {"action": "run", "a": "true", "b": "true"},
            {"action": "pause", "queue": "none"},
        ):
            refused = client.ask_raw("rpc", "dispatcher", args)
            assert refused["name"] == "error", refused
        client.ask("rpc", "dispatcher", {"action": "kill", "job_id": ["nobody"]})
        client.ask("rpc", "dispatcher", {"action": "kill", "job_id": ["nobody", "a", made_up]})
        client.ask("rpc", "dispatcher", {"action": "pause", "queue": "pkg_queue"})
        add = {"action": "add", "name": "t", "role": "read"}
        client.ask("rpc", "tokens", add)
        assert client.ask_raw("rpc", "tokens", add)["args"]["code"] == 409
        client.ask("rpc", "tokens", {"action": "revoke", "name": "t"})
        assert actions(client) == [
            "submit a to pkg_queue",
            f"submit {made_up} to pkg_queue",
            f"kill a, {made_up}",
            "pause pkg_queue",
            "token add t",
            "token revoke t",
        ]


def test_a_job_and_its_entry_are_committed_together_or_not_at_all(tmp_path: Path) -> None:
    order = Order(commands=(Spec(("true",), "true"),), id="a")

    def fails(change: Transaction, jobs: Sequence[records.JobRow]) -> None:
        audit.write(change, "root", "here", jobs[0].id)
        raise LookupError

    def notes(change: Transaction, jobs: Sequence[records.JobRow]) -> None:
        audit.write(change, "root", "here", jobs[0].id)

    async def body() -> None:
        store = open_store(tmp_path / "state.db", SCHEMAS)
        try:
            dispatcher = Dispatcher(store, DispatcherSettings(), tmp_path)
            dispatcher.reconfigure(DispatcherSettings())
            with pytest.raises(LookupError):
                await dispatcher.submit([order], fails)
            assert list(records.active_jobs(store.reader)) == []
            assert audit.entries(store.reader, 0, 2**62, 0, 10) == []
            (job,) = await dispatcher.submit([order], notes)
            assert list(records.active_jobs(store.reader)) == [job]
            assert [e.action for e in audit.entries(store.reader, 0, 2**62, 0, 10)] == ["a"]
        finally:
            store.close()

    asyncio.run(body())


def at(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    """An entry that is called what the clock says."""
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now)
        audit.write(Transaction(db), "root", "here", f"{now:g}")


def found(db: sqlite3.Connection, start: int, end: int = FOR_EVER, after: int = 0) -> list[str]:
    """The entries between two moments, s; each is shown with its wall clock."""
    entries = audit.entries(db, start * 1000, end * 1000, after, 100)
    assert [f"{entry.time / 1000:g}" for entry in entries] == [e.action for e in entries]
    return [entry.action for entry in entries]


@pytest.fixture
def trail() -> Iterator[sqlite3.Connection]:
    """A table of the newest form."""
    with contextlib.closing(tables(audit.SCHEMA)) as db:
        yield db


def test_an_entry_is_found_by_its_clock_and_by_its_place_among_the_others(
    trail: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for now in (100, 101, 500, 102, 103, 501, 502):
        at(trail, monkeypatch, now)
    times = [row[0] for row in trail.execute("SELECT time FROM audit ORDER BY id")]
    assert times == [100_000, 101_000, 500_000, 500_000, 500_000, 501_000, 502_000]
    assert found(trail, 0) == ["100", "101", "500", "102", "103", "501", "502"]
    # By the clock as it was.
    assert found(trail, 100, 110) == ["100", "101", "102", "103"]
    assert found(trail, 102, 102) == ["102"]
    # Where it stands, too.
    assert found(trail, 500, 501) == ["500", "102", "103", "501"]
    assert found(trail, 0, after=4) == ["103", "501", "502"]
    assert found(trail, 503) == []


def test_entries_of_an_older_trail_get_times_that_do_not_fall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(audit.SCHEMA[0])
        old = "INSERT INTO audit (time, account, address, action) VALUES (?, 'a', 'b', ?)"
        for now in (100, 500, 101, 102, 600, 500):
            db.execute(old, (now * 1000, str(now)))
        db.executescript(audit.SCHEMA[1])
        at(db, monkeypatch, 103)
        times = [row[0] for row in db.execute("SELECT time FROM audit ORDER BY id")]
        assert times == sorted(times)
        assert found(db, 0) == ["100", "500", "101", "102", "600", "500", "103"]
        assert found(db, 100, 110) == ["100", "101", "102", "103"]


def test_the_oldest_entries_go_first(
    trail: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert audit.newest(trail) == 0
    for now in (500, 100, 101):
        at(trail, monkeypatch, now)
    assert audit.newest(trail) == 3
    audit.prune(Transaction(trail), 2)
    assert found(trail, 0) == ["101"]
