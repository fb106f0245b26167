"""Snapshots on a real store: shared while nothing changes, never stale, and nobody waits."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from collectors.system_state import SystemState
from dispatcher.commandline import Spec
from dispatcher.orders import Order
from dispatcher.steps import Now
from server.daemon import SCHEMAS
from server.delivery import snapshot
from server.delivery.snapshot import Snapshot, SnapshotCut, SnapshotOpening, Snapshots
from server.wire.protocol import FRAME_LIMIT
from sysadmd.store import Store, open_store
from tests.kit import accepting

NOW = Now(1.5, 1.0, "boot")
# Bytes of text of each job: of a hundred one frame takes not a third.
TEXT = 8 * 1024


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[Store]:
    store = open_store(path / "state.db", SCHEMAS)
    try:
        yield store
    finally:
        store.close()


async def accept(store: Store, count: int) -> None:
    spec = Spec(("true", "x" * TEXT), "true " + "x" * TEXT)
    orders = [Order(commands=(spec,))] * count
    await store.write(lambda change: accepting.accept(change, NOW, orders))


async def frame(store: Store, opening: SnapshotOpening) -> tuple[dict[str, Any], bool]:
    """The next frame; and was it the last?"""
    frame = await store.read(opening.frame)
    # Behind what says how long it is.
    text = frame[frame.index(b"{") :]
    assert len(text) <= FRAME_LIMIT
    return json.loads(text), opening.taken()


def test_one_is_shared_until_something_changes_even_if_it_is_not_told(tmp_path: Path) -> None:
    async def body() -> None:
        async with opened(tmp_path) as store:
            snapshots = Snapshots(store)
            first = await snapshots.take()
            assert await snapshots.take() is first
            # The very first reading is kept; it is no news.
            await SystemState(store).hostname("box")
            second = await snapshots.take()
            assert second.place == first.place
            assert b'"box"' in second.system_state
            assert await snapshots.take() is second

    asyncio.run(body())


def test_all_its_frames_are_of_one_moment_however_late_they_are_taken(tmp_path: Path) -> None:
    async def body() -> None:
        async with opened(tmp_path) as store:
            await accept(store, 100)
            snapshots = Snapshots(store)
            opening = SnapshotOpening(snapshots, await snapshots.take(), "none", "")
            frames = [await frame(store, opening)]
            # What comes now is in none of its frames, and waits for none of them.
            await accept(store, 100)
            while not frames[-1][1]:
                frames.append(await frame(store, opening))
            assert len(frames) > 2
            assert [told.get("more", False) for told, _ in frames[:-1]] == [True] * (
                len(frames) - 1
            )
            assert "more" not in frames[-1][0]
            assert len({told["cursor"] for told, _ in frames}) == 1
            assert sum(len(told["args"]["jobs"]) for told, _ in frames) == 100

    asyncio.run(body())


def test_a_frame_that_was_read_for_one_who_did_not_take_it_is_not_lost(tmp_path: Path) -> None:
    async def body() -> None:
        async with opened(tmp_path) as store:
            await accept(store, 100)
            snapshots = Snapshots(store)
            opening = SnapshotOpening(snapshots, await snapshots.take(), "none", "")
            text = await store.read(opening.frame)
            assert await store.read(opening.frame) == text
            opening.taken()
            assert await store.read(opening.frame) != text

    asyncio.run(body())


def test_for_one_too_many_the_one_that_has_waited_longest_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "MOST", 2)

    async def body() -> None:
        async with opened(tmp_path) as store:
            await accept(store, 100)
            snapshots = Snapshots(store)
            openings = [
                SnapshotOpening(snapshots, await snapshots.take(), "none", "") for _ in range(2)
            ]
            # The first one moves on, so that the second has waited longest.
            await frame(store, openings[0])
            await snapshots.take()
            assert [opening.cut for opening in openings] == [False, True]
            await frame(store, openings[0])
            with pytest.raises(SnapshotCut):
                await store.read(openings[1].frame)

    asyncio.run(body())


def test_who_has_many_under_way_cuts_his_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "MOST", 3)

    async def body() -> None:
        async with opened(tmp_path) as store:
            await accept(store, 100)
            snapshots = Snapshots(store)
            openings = [
                SnapshotOpening(snapshots, await snapshots.take(asker), "none", "")
                for asker in ("slow", "greedy", "greedy", "greedy", "other")
            ]
            assert [one.cut for one in openings] == [False, True, True, False, False]

    asyncio.run(body())


def test_one_that_nobody_wants_any_more_holds_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        async with opened(tmp_path) as store:
            await accept(store, 100)
            snapshots = Snapshots(store)
            taken = await snapshots.take()
            assert not taken.closed
            snapshots.drop(taken)
            await store.read(lambda db: None)
            assert taken.closed

    asyncio.run(body())


def test_one_that_is_ending_is_never_taken_for_one_that_is_cut(tmp_path: Path) -> None:
    cut: list[bool] = []
    openings: list[SnapshotOpening] = []

    class Watched(Snapshots):
        def moved(self, snapshot: Snapshot, *, more: bool) -> None:
            super().moved(snapshot, more=more)
            # What the loop might see at that moment.
            cut.extend(opening.cut for opening in openings)

    async def body() -> None:
        async with opened(tmp_path) as store:
            await accept(store, 100)
            snapshots = Watched(store)
            openings.append(SnapshotOpening(snapshots, await snapshots.take(), "none", ""))
            while not (await frame(store, openings[0]))[1]:
                pass
        assert len(cut) > 2
        assert not any(cut)

    asyncio.run(body())
