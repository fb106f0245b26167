"""Troubles and pools as the state keeps and tells them: a real store, event by event."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from collectors import system_state
from collectors.pools import LIST, STATUS
from collectors.system_state import SystemState, read, write
from collectors.trouble_kinds import KINDS_LIMIT
from collectors.zpool_output import COLUMNS
from sysadmd.store import Store, open_store

WELL = dict.fromkeys(COLUMNS, "-") | {"health": "ONLINE", "priority": 0}
Body = Callable[[SystemState, list[dict[str, Any]]], Awaitable[None]]


def opened(directory: Path) -> Store:
    return open_store(directory / "state.db", {"collectors": system_state.SCHEMA})


def told(directory: Path, body: Body) -> list[dict[str, Any]]:
    """The events of what `body` does, of which it sees those that were told before."""
    found: list[dict[str, Any]] = []

    async def run() -> None:
        with closing(opened(directory)) as store:
            store.publish = lambda events: found.extend(json.loads(e.body) for e in events)
            await body(SystemState(store), found)

    asyncio.run(run())
    return found


def kept(directory: Path, name: str) -> Any:
    """A stored reading."""
    with closing(sqlite3.connect(directory / "state.db")) as db:
        return read(db, name)


def errors(events: list[dict[str, Any]]) -> list[str | None]:
    return [event.get("error") for event in events]


def test_a_trouble_is_told_once_whatever_numbers_it_says(tmp_path: Path) -> None:
    async def body(state: SystemState, _: list[dict[str, Any]]) -> None:
        for number in range(20):
            await state.trouble("source", f"exit status {number}")
        await state.trouble("source", None)
        await state.trouble("source", "exit status 4")

    assert errors(told(tmp_path, body)) == [
        "source: exit status 0",
        None,
        "source: exit status 4",
    ]


def test_troubles_that_take_turns_are_told_once_each_even_over_a_restart(
    tmp_path: Path,
) -> None:
    async def body(state: SystemState, _: list[dict[str, Any]]) -> None:
        for _turn in range(5):
            await state.trouble("source", "no such file")
            await state.trouble("source", "permission denied")

    assert errors(told(tmp_path, body)) == [
        "source: no such file",
        "source: permission denied",
    ]
    assert told(tmp_path, body) == []
    # What is shown is what is so now.
    assert kept(tmp_path, "trouble") == {"source": "permission denied"}


def test_so_many_kinds_are_remembered_and_no_more(tmp_path: Path) -> None:
    kinds = ["".join(chr(ord("a") + int(d)) for d in str(n)) for n in range(KINDS_LIMIT + 1)]

    async def body(state: SystemState, events: list[dict[str, Any]]) -> None:
        for _turn in range(3):
            for kind in kinds[:KINDS_LIMIT]:
                await state.trouble("source", kind)
        assert len(events) == KINDS_LIMIT
        await state.trouble("source", kinds[KINDS_LIMIT])
        # The one that was longest ago is forgotten.
        await state.trouble("source", kinds[0])
        await state.trouble("source", kinds[KINDS_LIMIT - 1])

    assert len(told(tmp_path, body)) == KINDS_LIMIT + 2
    assert len(kept(tmp_path, "trouble_kinds")["source"]) == KINDS_LIMIT


def test_who_names_the_kind_of_a_trouble_decides_what_is_another_one(tmp_path: Path) -> None:
    async def body(state: SystemState, _: list[dict[str, Any]]) -> None:
        await state.trouble("source", "12 bytes are lost", "12 bytes are lost")
        await state.trouble("source", "13 bytes are lost", "13 bytes are lost")
        await state.trouble("source", "said otherwise", "13 bytes are lost")

    assert errors(told(tmp_path, body)) == [
        "source: 12 bytes are lost",
        "source: 13 bytes are lost",
    ]


@pytest.mark.parametrize("text", ["zpool list: exit status 3", "zpool list: exit status 4"])
def test_a_trouble_that_an_earlier_version_has_told_is_not_told_again(
    tmp_path: Path, text: str
) -> None:
    async def body(state: SystemState, _: list[dict[str, Any]]) -> None:
        await state.trouble(LIST, text)

    async def earlier() -> None:
        troubles = {LIST: "zpool list: exit status 3"}
        with closing(opened(tmp_path)) as store:
            await store.write(lambda change: write(change.db, "trouble", troubles))

    asyncio.run(earlier())
    assert told(tmp_path, body) == []


def test_each_answer_of_zpool_has_a_trouble_of_its_own(tmp_path: Path) -> None:
    async def body(state: SystemState, _: list[dict[str, Any]]) -> None:
        await state.pools({"a": WELL, "b": WELL}, {LIST: None, STATUS: "status fails"})
        # Pools that are gone are gone, whatever status says.
        await state.pools({"a": WELL}, {LIST: None, STATUS: "status fails"})
        await state.pools(None, {LIST: "list fails"})
        await state.pools({"a": WELL}, {LIST: None, STATUS: "status fails"})
        await state.pools({"a": WELL}, {LIST: None, STATUS: None})

    events = told(tmp_path, body)
    assert errors(events) == [
        "status fails",
        "status fails",
        "status fails; list fails",
        "status fails",
        None,
    ]
    assert events[1]["vanished"] == ["b"]
    assert [event["priority"][0] for event in events] == ["6", "6", "6", "6", "0"]


def test_pools_that_are_not_watched_any_more_leave_no_trouble(tmp_path: Path) -> None:
    async def body(state: SystemState, _: list[dict[str, Any]]) -> None:
        await state.pools({"a": WELL}, {LIST: "list fails", STATUS: "status fails"})
        await state.no_pools()
        await state.no_pools()

    first, second = told(tmp_path, body)
    assert "error" in first
    assert "error" not in second
    assert second["zpools"] == {}


def test_what_is_stored_to_be_compared_is_not_told(tmp_path: Path) -> None:
    pool = {**WELL, "vdevs_left_out": 3, "vdevs_digest": "abc"}

    async def body(state: SystemState, _: list[dict[str, Any]]) -> None:
        await state.pools({"a": WELL}, {LIST: None})
        await state.pools({"a": pool}, {LIST: None})

    event = told(tmp_path, body)[-1]
    assert event["zpools"]["a"]["vdevs_left_out"] == 3
    assert "vdevs_digest" not in event["zpools"]["a"]
