"""Telling on a real store: in slices, in order, and nothing made that nobody could be given."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from server.daemon import SCHEMAS
from server.delivery import hub as hub_module
from server.delivery.frames import Form, Renderer
from server.delivery.hub import MOST_FRAMES, Hub, Recipient
from server.delivery.job_events import JobEvents
from server.delivery.round_robin import RoundRobin
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


class Line:
    """A way to a client that takes what it is given, as long as it has room for so much."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.open = True
        self.taken = bytearray()
        self.kept = bytearray()

    @property
    def direct(self) -> Callable[[bytes], int] | None:
        return self._take if self.open else None

    def _take(self, data: bytes) -> int:
        if not self.room:
            raise BlockingIOError
        taken = data[: self.room]
        self.taken += taken
        self.room -= len(taken)
        return len(taken)

    def keep(self, data: memoryview) -> None:
        self.open = False
        self.kept += data


def recipient(hub: Hub, form: Form, line: Line, tell: Callable[[], object]) -> Recipient:
    """Somebody who has had all up to now."""
    channel = hub.channel(form, hub.head, "")
    made = Recipient(line, tell)
    made.index = channel.end
    channel.recipients[made] = None
    return made


async def all_told(hub: Hub) -> int:
    """Return when all have been told; in how many turns of the loop."""
    turns = 0
    while hub.telling():
        turns += 1
        await asyncio.sleep(0)
    return turns


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
            for form in FORMS:
                recipient(hub, form, Line(), told.release)
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
            recipient(hub, FORMS[0], Line(), wake).index = Recipient.APART
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
            recipient(hub, FORMS[0], Line(), lambda: None)
            await store.write(appends(5))
            with pytest.raises(KeyError, match="a defect"):
                await asyncio.wait_for(store.watch(), DEADLINE)
        finally:
            store.close()

    asyncio.run(body())


def test_a_pass_gives_each_the_same_bytes_and_the_rest_of_them_behind_a_full_socket(
    tmp_path: Path,
) -> None:
    async def body() -> None:
        store = open_store(tmp_path / "state.db", SCHEMAS)
        try:
            hub = Hub(store, Counting(JobEvents(store.reader, "", tmp_path, lambda: 1024)))
            store.publish = hub.publish
            asked: list[str] = []
            lines = {"reads": Line(), "has room for a part": Line(100), "is full": Line(0)}
            recipients = {
                name: recipient(hub, FORMS[0], line, partial(asked.append, name))
                for name, line in lines.items()
            }
            shut = Line()
            shut.open = False
            busy = recipient(hub, FORMS[0], shut, lambda: asked.append("waits for its socket"))
            left = recipient(hub, FORMS[0], Line(), lambda: asked.append("has left"))
            left.index = Recipient.APART
            await store.write(appends(2))
            await all_told(hub)
            channel = hub.channel(FORMS[0], hub.head, "")
            data, place = channel.since(0)
            assert {name: bytes(one.taken + one.kept) for name, one in lines.items()} == (
                dict.fromkeys(lines, data)
            )
            assert [len(one.taken) for one in lines.values()] == [len(data), 100, 0]
            assert {(one.index, one.place) for one in recipients.values()} == {(2, place)}
            assert sorted(asked) == ["has left", "waits for its socket"]
            assert busy.index == 0
            # The next pass knows whom it can't give what is new.
            await store.write(appends(1))
            await all_told(hub)
            assert bytes(lines["reads"].taken) == channel.since(0)[0]
            assert set(asked) == {*lines, "has left", "waits for its socket"} - {"reads"}
        finally:
            store.close()

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


def test_who_leaves_in_the_middle_of_a_pass_is_given_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "SLICE", 0.0)
    monkeypatch.setattr(hub_module, "_BATCH", 1)

    async def body() -> None:
        store = open_store(tmp_path / "state.db", SCHEMAS)
        try:
            hub = Hub(store, Counting(JobEvents(store.reader, "", tmp_path, lambda: 1024)))
            store.publish = hub.publish
            lines = [Line() for _ in range(3)]
            recipients = [recipient(hub, FORMS[0], line, lambda: None) for line in lines]
            await store.write(appends(1))
            while not lines[0].taken:
                assert not lines[2].taken
                await asyncio.sleep(0)
            channel = hub.channel(FORMS[0], hub.head, "")
            del channel.recipients[recipients[1]]
            recipients[1].index = Recipient.APART
            # What comes in the middle of it is the next pass's.
            await store.write(appends(1))
            await all_told(hub)
            assert [bytes(line.taken) for line in lines] == [
                channel.since(0)[0],
                b"",
                channel.since(0)[0],
            ]
        finally:
            store.close()

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


def test_who_is_behind_has_turns_though_there_is_always_something_new_to_tell(
    tmp_path: Path,
) -> None:
    class Reader:
        fed = 0

        def feed(self) -> None:
            self.fed += 1

    async def body() -> None:
        store = open_store(tmp_path / "state.db", SCHEMAS)
        try:
            hub = Hub(store, Counting(JobEvents(store.reader, "", tmp_path, lambda: 1024)))
            committed: list[journal.Event] = []
            store.publish = committed.extend
            await store.write(appends(100))
            turns = RoundRobin(asyncio.get_running_loop(), hub.telling)
            reader = Reader()

            class Busy(Line):
                """With all that it is given the next event is there."""

                def _take(self, data: bytes) -> int:
                    if committed:
                        hub.publish([committed.pop(0)])
                        turns.add(reader)
                    else:
                        told.set()
                    return super()._take(data)

            recipient(hub, FORMS[0], Busy(), lambda: None)
            told = asyncio.Event()
            hub.publish([committed.pop(0)])
            turns.add(reader)
            await told.wait()
            # What is new goes first, all the same.
            assert 20 < reader.fed <= 100
        finally:
            store.close()

    asyncio.run(asyncio.wait_for(body(), DEADLINE))
