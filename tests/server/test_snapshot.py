"""Snapshots on a real store: shared while nothing changes, and never stale."""

import asyncio
from pathlib import Path

from collectors.system_state import SystemState
from server.daemon import SCHEMAS
from server.delivery.snapshot import Snapshots
from sysadmd.store import open_store


def test_one_is_shared_until_something_changes_even_if_it_is_not_told(tmp_path: Path) -> None:
    async def body() -> None:
        store = open_store(tmp_path / "state.db", SCHEMAS)
        try:
            snapshots = Snapshots(store)
            first = await snapshots.take()
            assert await snapshots.take() is first
            # The very first reading is kept; it is no news.
            await SystemState(store).hostname("box")
            second = await snapshots.take()
            assert second.place == first.place
            assert b'"box"' in second.system_state
            assert await snapshots.take() is second
        finally:
            store.close()

    asyncio.run(body())
