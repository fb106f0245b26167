"""What a client is given of events, on a real store, with the state of its socket chosen."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher.commandline import Spec
from dispatcher.orders import Order
from dispatcher.steps import Now
from server.daemon import SCHEMAS
from server.delivery import hub as hub_module
from server.delivery.frames import Form
from server.delivery.hub import MOST_FRAMES
from server.delivery.round_robin import RoundRobin
from server.delivery.subscriber import Subscriber
from server.delivery.tail import Sources, Tail
from server.dialects import DIALECTS
from sysadmd import journal
from sysadmd.journal import START
from sysadmd.store import open_store
from tests.kit.accepting import accept
from tests.kit.delivery import sources_of
from tests.kit.waiting import DEADLINE

FORM = Form(DIALECTS["documented"], True, frozenset({2}))


class Outlet:
    """A socket that takes one portion when it is told to."""

    address = "here"
    waiting = False
    crowded = False
    # It is asked to write, and takes what it is given then.
    direct = None

    def __init__(self) -> None:
        self.is_open = True
        self.offered = asyncio.Semaphore(0)

    def clock(self) -> float:
        return 0.0

    def keep(self, data: memoryview) -> None:
        raise AssertionError("nothing was given to it directly")

    def took(self) -> None:
        pass

    def reserve(self, size: int) -> None:
        pass

    def send(self, text: bytes) -> None:
        self.offered.release()

    def write(self) -> None:
        self.offered.release()

    def close(self, code: int, reason: str) -> None:
        self.is_open = False


class Line:
    """A socket that takes whatever it is given."""

    address = "here"
    waiting = False
    crowded = False
    is_open = True

    def __init__(self, sources: Sources, turns: RoundRobin) -> None:
        self.received = bytearray()
        # It was said to have taken something directly.
        self.has_taken = False
        self.subscriber = Subscriber(self, sources, turns)

    def clock(self) -> float:
        return 0.0

    @property
    def direct(self) -> Callable[[bytes], int] | None:
        return self._take

    def _take(self, data: bytes) -> int:
        self.received += data
        return len(data)

    def keep(self, data: memoryview) -> None:
        raise AssertionError("all of it was taken")

    def took(self) -> None:
        self.has_taken = True

    def reserve(self, size: int) -> None:
        pass

    def send(self, text: bytes) -> None:
        self.received += text

    def write(self) -> None:
        while (data := self.subscriber.output()) is not None:
            self.received += data

    def close(self, code: int, reason: str) -> None:
        raise AssertionError(f"closed with {code}: {reason}")


def test_who_is_being_sent_away_is_given_no_more_of_the_journal(tmp_path: Path) -> None:
    async def body() -> None:
        store = open_store(tmp_path / "state.db", SCHEMAS)
        try:
            await store.write(
                lambda change: journal.append_many(change, "system-state", [b"{}"] * 600, 0)
            )
            outlet = Outlet()
            sources = sources_of(store, tmp_path)
            turns = RoundRobin(asyncio.get_running_loop(), sources.hub.telling)
            subscriber = Subscriber(outlet, sources, turns)
            subscriber.subscribe(Tail(sources, FORM, START, ""))
            await outlet.offered.acquire()
            assert subscriber.output()
            # The next portion is on its way when the client is sent away.
            assert subscriber.output() is None
            outlet.close(4401, "enough")
            await store.read(lambda db: None)
            assert subscriber.output() is None
            assert outlet.offered.locked()
        finally:
            store.close()

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


def test_what_is_committed_while_the_last_page_is_read_comes_once_and_live(
    tmp_path: Path,
) -> None:
    async def body() -> None:
        store = open_store(tmp_path / "state.db", SCHEMAS)
        try:

            def more(count: int) -> asyncio.Future[list[journal.Event]]:
                return store.begin_write(
                    lambda change: journal.append_many(
                        change, "system-state", [b"{}"] * count, 0
                    )
                )

            await more(3)
            outlet = Outlet()
            sources = sources_of(store, tmp_path)
            turns = RoundRobin(asyncio.get_running_loop(), sources.hub.telling)
            store.publish = sources.hub.publish
            subscriber = Subscriber(outlet, sources, turns)
            subscriber.subscribe(Tail(sources, FORM, START, ""))
            given = b""
            for _ in range(50):
                await more(2)
                given += subscriber.output() or b""
            while (tail := subscriber.tail) is None or not tail.current:
                await outlet.offered.acquire()
                given += subscriber.output() or b""
            assert given.count(b'"cursor"') == 103
            assert tail.ledger.delivered == tail.ledger.published == 103
        finally:
            store.close()

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


def test_who_reads_the_journal_in_the_middle_of_a_pass_is_told_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_BATCH", 1)

    async def body() -> None:
        store = open_store(tmp_path / "state.db", SCHEMAS)
        try:
            sources = sources_of(store, tmp_path)
            hub = sources.hub
            turns = RoundRobin(asyncio.get_running_loop(), hub.telling)
            store.publish = hub.publish
            lines = [Line(sources, turns) for _ in range(2)]
            for line in lines:
                line.subscriber.subscribe(Tail(sources, FORM, hub.head, ""))

            async def more(count: int) -> None:
                await store.write(
                    lambda change: journal.append_many(
                        change, "system-state", [b"{}"] * count, 0
                    )
                )

            await more(1)
            # A pass that has told the first, and looks up.
            told = hub.channel(FORM, hub.head, "").tell_all()
            next(told)
            assert [bool(line.received) for line in lines] == [True, False]
            # The ring moves on; the second is asked to write, and reads what it has not had.
            await more(MOST_FRAMES + 1)
            lines[1].write()
            for _ in told:
                pass
            while not all(
                (tail := line.subscriber.tail) is not None and tail.current for line in lines
            ):
                await store.read(lambda db: None)
            assert [line.received.count(b'"cursor"') for line in lines] == [MOST_FRAMES + 2] * 2
        finally:
            store.close()

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


@pytest.mark.parametrize(
    ("dialect", "is_told"), [("sysadm-client", False), ("documented", True)]
)
def test_who_was_given_nothing_directly_has_taken_nothing(
    tmp_path: Path, dialect: str, is_told: bool
) -> None:
    async def body() -> None:
        store = open_store(tmp_path / "state.db", SCHEMAS)
        try:
            sources = sources_of(store, tmp_path)
            store.publish = sources.hub.publish
            line = Line(sources, RoundRobin(asyncio.get_running_loop(), sources.hub.telling))
            form = Form(DIALECTS[dialect], True, frozenset({0}))
            line.subscriber.subscribe(Tail(sources, form, sources.hub.head, ""))
            # That a job waits not every dialect tells.
            order = Order(id="a", commands=(Spec(("true",), "true"),))
            now = Now(1.5, 1.0, "boot")
            await store.write(lambda change: accept(change, now, [order]))
            while sources.hub.telling():
                await store.read(lambda db: None)
            tail = line.subscriber.tail
            assert tail is not None
            assert tail.ledger.delivered == 1
            line.subscriber.tick(0.0)
            assert [line.has_taken, bool(line.received)] == [is_told, is_told]
        finally:
            store.close()

    asyncio.run(asyncio.wait_for(body(), DEADLINE))
