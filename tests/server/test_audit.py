"""The trail: an entry is committed with what it tells, and what was refused has none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
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
