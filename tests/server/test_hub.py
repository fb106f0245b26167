"""Telling on a real store: in slices, in order, and nothing made that nobody could be given."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from server.daemon import SCHEMAS
from server.delivery import hub as hub_module
from server.delivery.frames import Form, Renderer
from server.delivery.hub import MOST_FRAMES, Hub
from server.delivery.job_events import JobEvents
from server.dialects import DIALECTS
from sysadmd import journal
from sysadmd.journal import Event, Transaction
from sysadmd.store import open_store
from tests.kit.waiting import DEADLINE

FORMS = [
    Form(dialect, extended, systems)
    for dialect in DIALECTS.values()
    for extended in (False, True)
    for systems in (frozenset({1}), frozenset({1, 2}))
]
BODY = b'{"message":"m","priority":"1/Information","class":"snapshot"}'


class Counting(Renderer):
    """A renderer that counts."""

    made = 0

    def frame(self, event: Event, form: Form, prev: str, *, merged: int = 1) -> bytes:
        self.made += 1
        return super().frame(event, form, prev, merged=merged)


def appends(count: int) -> Callable[[Transaction], object]:
    return lambda change: journal.append_many(change, "life-preserver", [BODY] * count, 1.5)


def test_of_a_long_commit_only_what_a_ring_can_hold_is_made_and_the_loop_goes_on(
    tmp_path: Path,
) -> None:
    async def body() -> None:
        store = open_store(tmp_path / "state.db", SCHEMAS)
        try:
            renderer = Counting(JobEvents(store.reader, store.epoch, tmp_path, lambda: 1024))
            hub = Hub(store, renderer)
            store.publish = hub.publish
            told = asyncio.Semaphore(0)
            channels = [hub.channel(form, hub.head, "") for form in FORMS]
            for channel in channels:
                channel.subscribers[told.release] = None
            await store.write(appends(MOST_FRAMES * 3))
            seen = {hub.head.seq}
            while hub.head.seq < MOST_FRAMES * 3:
                await asyncio.sleep(0)
                seen.add(hub.head.seq)
            # Others had their turns meanwhile.
            assert len(seen) > 3
            assert renderer.made == MOST_FRAMES * len(FORMS)
            for channel in channels:
                assert channel.end == MOST_FRAMES * 3
                assert channel.prev.endswith(str(hub.head))
                data, place = channel.since(channel.start)
                assert place == str(hub.head)
                assert data.count(b'"message"') == channel.end - channel.start
            # A reader that stands before the commit is behind, one in the ring is not.
            assert channels[0].start > MOST_FRAMES * 2
        finally:
            store.close()

    asyncio.run(body())


def test_a_defect_in_waking_subscribers_ends_the_watch_of_the_store(tmp_path: Path) -> None:
    def wake() -> None:
        raise KeyError("a defect")

    async def body() -> None:
        store = open_store(tmp_path / "state.db", SCHEMAS)
        try:
            hub = Hub(store, Counting(JobEvents(store.reader, "", tmp_path, lambda: 1024)))
            store.publish = hub.publish
            hub.channel(FORMS[0], hub.head, "").subscribers[wake] = None
            await store.write(appends(1))
            with pytest.raises(KeyError, match="a defect"):
                await asyncio.wait_for(store.watch(), DEADLINE)
        finally:
            store.close()

    asyncio.run(body())


def test_a_defect_in_a_later_slice_ends_the_watch_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "SLICE", 0.0)

    class Failing(Counting):
        def frame(self, event: Event, form: Form, prev: str, *, merged: int = 1) -> bytes:
            if self.made == 2:
                raise KeyError("a defect")
            return super().frame(event, form, prev, merged=merged)

    async def body() -> None:
        store = open_store(tmp_path / "state.db", SCHEMAS)
        try:
            hub = Hub(store, Failing(JobEvents(store.reader, "", tmp_path, lambda: 1024)))
            store.publish = hub.publish
            hub.channel(FORMS[0], hub.head, "").subscribers[lambda: None] = None
            await store.write(appends(5))
            with pytest.raises(KeyError, match="a defect"):
                await asyncio.wait_for(store.watch(), DEADLINE)
        finally:
            store.close()

    asyncio.run(body())
