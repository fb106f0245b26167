"""Who is known by a key and asks for no cursor hears every event, whenever it is cut off."""

import asyncio
import random
import tempfile
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.system_state import SystemState
from server.classes.events import Subscribe, Unsubscribe
from server.daemon import SCHEMAS
from server.delivery.heard import AGAIN, Heard
from server.delivery.hub import system_numbers
from server.delivery.round_robin import RoundRobin
from server.delivery.snapshot import Snapshots
from server.delivery.subscriber import Subscriber
from server.delivery.tail import Sources
from server.dialects import DIALECTS
from server.session import Session
from server.wire.protocol import Reply, Request, text_frame
from sysadmd import journal
from sysadmd.journal import Place, Transaction
from sysadmd.store import Store, open_store
from tests.kit.delivery import sources_of
from tests.kit.frames import texts
from tests.kit.waiting import DEADLINE

NAMES = ("life-preserver", "system-state")


def allow(*_: object) -> None:
    """Whoever asks may."""


class Notebook:
    """What outlives a connection."""

    def __init__(self) -> None:
        self.places: dict[int, Place] = {}

    def read(self) -> dict[int, Place]:
        return dict(self.places)

    async def write(self, places: Mapping[int, Place]) -> None:
        self.places.update(places)

    async def forget(self, systems: Collection[int]) -> None:
        for system in systems:
            self.places.pop(system, None)

    def count(self, name: str) -> int:
        """How many events of a system were heard."""
        (number,) = system_numbers([name])
        place = self.places.get(number)
        return 0 if place is None else place.count((number,))


class Line:
    """One connection. What was written is on its way, in order, until it is taken."""

    address = "here"
    crowded = False

    def __init__(self, sources: Sources, turns: RoundRobin, notebook: Notebook) -> None:
        self.is_open = True
        self.room = 3
        self.on_its_way: deque[bytes] = deque()
        # The numbers that came, by system.
        self.numbers: defaultdict[str, list[int]] = defaultdict(list)
        # How often it was told the state as it is.
        self.states = 0
        self.heard = Heard(notebook, lambda said: self._put(b"ping " + said))
        self.subscriber = Subscriber(self, sources, turns)
        self.subscriber.heard = self.heard
        self.session = cast(
            "Session",
            SimpleNamespace(
                subscriber=self.subscriber,
                dialect=DIALECTS["sysadm-client"],
                asker=None,
                gathering=asyncio.Lock(),
                connection=SimpleNamespace(room=self.has_room),
                require=allow,
                require_still=allow,
            ),
        )

    async def has_room(self) -> None:
        return None

    def clock(self) -> float:
        return 0.0

    def reserve(self, size: int) -> None:
        pass

    @property
    def direct(self) -> Callable[[bytes], int] | None:
        return self._take if self.is_open and not self.waiting else None

    def _take(self, data: bytes) -> int:
        self._put(data)
        return len(data)

    def keep(self, data: memoryview) -> None:
        raise AssertionError("all of it was taken")

    def took(self) -> None:
        pass

    @property
    def waiting(self) -> bool:
        return len(self.on_its_way) >= self.room

    def _put(self, data: bytes) -> None:
        self.on_its_way.append(data)

    def send(self, text: bytes) -> None:
        self._put(text_frame(text))

    def write(self) -> None:
        while self.is_open and not self.waiting:
            output = self.subscriber.output()
            if output is None:
                return
            self._put(output)

    def close(self, code: int, reason: str) -> None:
        raise AssertionError(f"closed with {code}: {reason}")

    async def take(self) -> None:
        """The next of what is on its way arrives."""
        data = self.on_its_way.popleft()
        if data.startswith(b"ping "):
            await self.heard.reached(data[5:])
        else:
            for text in texts(data):
                if text["name"] == "life-preserver":
                    self.numbers[text["name"]].append(int(text["args"]["message"].split()[-1]))
                elif "n" in text["args"]:
                    self.numbers[text["name"]].append(text["args"]["n"])
                else:
                    self.states += text["name"] == "system-state"
        self.write()

    def cut(self) -> None:
        self.is_open = False
        self.subscriber.subscribe(None)


class Play:
    """A store with its delivery, and one client after another with the same key."""

    def __init__(self, store: Store, directory: Path) -> None:
        self.store = store
        self.sources = sources_of(store, directory)
        self.hub = self.sources.hub
        store.publish = self.hub.publish
        self.turns = RoundRobin(asyncio.get_running_loop(), self.hub.telling)
        self.subscribe = Subscribe(self.sources, Snapshots(store))
        self.unsubscribe = Unsubscribe(store)
        self.notebook = Notebook()
        self.told: dict[str, int] = dict.fromkeys(NAMES, 0)
        self.line = Line(self.sources, self.turns, self.notebook)
        # What has arrived of each, over all connections; and where this one has to begin.
        self.arrived: dict[str, int] = dict.fromkeys(NAMES, 0)
        self.first: dict[str, tuple[int, ...]] = {}

    async def ask(self, name: str, system: str) -> None:
        handler = self.subscribe if name == "subscribe" else self.unsubscribe
        reply = await handler.answer(self.line.session, Request("events", name, "r", system))
        assert isinstance(reply, Reply)
        self.line.send(b'{"name":"response","args":{}}')
        for text in reply.then:
            self.line.send(text)
        if name == "subscribe":
            # Where it is known exactly that; else the last event is told, or what comes.
            heard, last = self.notebook.count(system), self.told[system]
            first = (heard + 1,) if self._is_known(system) else (last, last + 1)
            self.first.setdefault(system, first)

    def _is_known(self, system: str) -> bool:
        return system_numbers([system]) <= self.notebook.places.keys()

    async def commit(self, name: str, count: int) -> None:
        bodies: list[bytes] = []
        for _ in range(count):
            self.told[name] += 1
            n = self.told[name]
            bodies.append(
                b'{"n":%d}' % n if name == "system-state" else b'{"message":"line %d"}' % n
            )

        def change(change: Transaction) -> None:
            journal.append_many(change, name, bodies, 0)

        await self.store.write(change)

    async def settle(self) -> None:
        """All that there is arrives."""
        line, tail = self.line, self.line.subscriber.tail
        while line.on_its_way or not (tail is None or tail.current) or self.hub.telling():
            if line.on_its_way:
                await line.take()
            else:
                await self.store.read(lambda db: None)
                await asyncio.sleep(0)
            tail = line.subscriber.tail

    def check(self) -> None:
        for name, numbers in self.line.numbers.items():
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), name
            assert numbers[0] in self.first[name]
            if len(self.first[name]) == 1:
                assert numbers[0] <= self.arrived[name] + 1, "events are missing"
            self.arrived[name] = max(self.arrived[name], numbers[-1])

    async def reconnect(self) -> None:
        self.line.cut()
        self.check()
        self.first = {}
        self.line = Line(self.sources, self.turns, self.notebook)


async def step(play: Play, draw: random.Random) -> None:
    line = play.line
    match draw.choice(("commit", "tick", "tick", "take", "take", "read", "cut")):
        case "commit":
            await play.commit(draw.choice(NAMES), draw.choice((1, 2, 150)))
        case "tick":
            line.subscriber.tick(0.0)
        case "take":
            for _ in range(draw.choice((1, 5, 50))):
                if line.on_its_way:
                    await line.take()
        case "read":
            await play.store.read(lambda db: None)
        case _:
            await play.reconnect()
            await play.commit(draw.choice(NAMES), draw.choice((0, 1, 300)))
            for name in draw.sample(NAMES, 2):
                await play.ask("subscribe", name)
                if draw.random() < 0.3:
                    await play.commit(draw.choice(NAMES), 1)


@asynccontextmanager
async def played(directory: Path) -> AsyncGenerator[Play]:
    """One that has subscribed to both, and is known."""
    store = open_store(directory / "state.db", SCHEMAS)
    try:
        await SystemState(store).hostname("box")
        play = Play(store, directory)
        for name in NAMES:
            await play.ask("subscribe", name)
        play.line.subscriber.tick(0.0)
        await play.settle()
        yield play
    finally:
        store.close()


async def some(play: Play, count: int) -> None:
    """Let so many frames, and what has to be read for them, come."""
    while len(play.line.numbers[NAMES[0]]) < count:
        if play.line.on_its_way:
            await play.line.take()
        else:
            await play.store.read(lambda db: None)
            await asyncio.sleep(0)


def test_a_catch_up_that_is_cut_goes_on_where_it_was(tmp_path: Path) -> None:
    async def body() -> None:
        async with played(tmp_path) as play:
            await play.reconnect()
            await play.commit(NAMES[0], 3000)
            await play.ask("subscribe", NAMES[0])
            await some(play, 1000)
            play.line.subscriber.tick(0.0)
            await some(play, 1500)
            assert 1000 <= play.notebook.count(NAMES[0]) < 3000
            heard = play.notebook.count(NAMES[0])
            await play.reconnect()
            await play.ask("subscribe", NAMES[0])
            await play.settle()
            assert play.line.numbers[NAMES[0]] == list(range(heard + 1, 3001))

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


def test_what_is_unsubscribed_in_the_middle_of_it_comes_no_more(tmp_path: Path) -> None:
    async def body() -> None:
        async with played(tmp_path) as play:
            await play.reconnect()
            await play.commit(NAMES[0], 3000)
            for name in NAMES:
                await play.ask("subscribe", name)
            await some(play, 500)
            await play.ask("unsubscribe", NAMES[0])
            await play.commit(NAMES[1], 1)
            await play.settle()
            # But for what was on its way.
            assert len(play.line.numbers[NAMES[0]]) < 1500
            assert play.line.numbers[NAMES[1]] == [1]

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


def test_a_pong_that_does_not_come_is_made_up_for(tmp_path: Path) -> None:
    async def body() -> None:
        async with played(tmp_path) as play:
            line = play.line
            for number in range(1, 4):
                await play.commit(NAMES[0], 1)
                line.write()
                line.subscriber.tick(0.0)
                while line.on_its_way:
                    if number < 3 and line.on_its_way[0].startswith(b"ping "):
                        line.on_its_way.popleft()
                    else:
                        await line.take()
            # The last one says it of all.
            assert play.notebook.count(NAMES[0]) == 3
            # One that says more than was asked says nothing.
            await line.heard.reached(b"99")
            await line.heard.reached(b"")
            # And if the last is missing it is asked again, after a time.
            await play.commit(NAMES[0], 1)
            line.write()
            for at in (1.0, 2.0, 1.0 + AGAIN):
                assert line.subscriber.tail is not None
                line.heard.tick(line.subscriber.tail, at)
            pings = [data for data in line.on_its_way if data.startswith(b"ping ")]
            assert len(pings) == 2
            line.on_its_way.remove(pings[0])
            await play.settle()
            assert play.notebook.count(NAMES[0]) == 4

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


def test_what_retention_has_taken_is_passed_over(tmp_path: Path) -> None:
    async def body() -> None:
        async with played(tmp_path) as play:
            await play.reconnect()
            await play.commit(NAMES[0], 10)
            upto = journal.head(play.store.reader).seq - 3
            await play.store.write(lambda change: journal.prune(change.db, upto))
            for name in NAMES:
                await play.ask("subscribe", name)
            await play.settle()
            assert play.line.numbers.pop(NAMES[0]) == [8, 9, 10]
            # Of nothing that is left nothing is missed, and the state is told.
            head = journal.head(play.store.reader).seq
            await play.store.write(lambda change: journal.prune(change.db, head))
            await play.reconnect()
            for name in NAMES:
                await play.ask("subscribe", name)
            await play.settle()
            assert not play.line.numbers[NAMES[0]]
            assert play.line.states == 1

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


def test_who_asks_with_cursors_is_told_nothing_of_itself(tmp_path: Path) -> None:
    async def body() -> None:
        async with played(tmp_path) as play:
            await play.reconnect()
            await play.commit(NAMES[0], 3000)
            await play.ask("subscribe", NAMES[0])
            request = Request("events", "subscribe", "r", {"systems": list(NAMES)})
            await play.subscribe.answer(play.line.session, request)
            assert play.line.subscriber.heard is None
            await play.settle()
            assert len(play.line.numbers[NAMES[0]]) < 1000

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


def test_who_becomes_known_later_is_told_what_was_missed(tmp_path: Path) -> None:
    async def body() -> None:
        async with played(tmp_path) as play:
            await play.reconnect()
            await play.commit(NAMES[0], 3)
            line, heard = play.line, play.line.heard
            line.subscriber.heard = None
            await play.ask("subscribe", NAMES[0])
            play.first[NAMES[0]] = (3,)
            await play.settle()
            assert line.numbers[NAMES[0]] == [3]
            line.numbers.clear()
            line.subscriber.know(heard)
            await play.settle()
            assert line.numbers[NAMES[0]] == [1, 2, 3]

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


async def through(directory: Path, draw: random.Random) -> None:
    async with played(directory) as play:
        for _ in range(120):
            await step(play, draw)
        await play.settle()
        play.check()
        for name, numbers in play.line.numbers.items():
            assert numbers[-1] == play.told[name], "events are missing"
        play.line.subscriber.tick(0.0)
        await play.settle()
        # All is known to have been heard: nothing of it comes again.
        await play.reconnect()
        for name in NAMES:
            await play.ask("subscribe", name)
        await play.settle()
        assert not play.line.numbers
        # What it does not want any more it does not miss.
        await play.ask("unsubscribe", NAMES[0])
        await play.commit(NAMES[0], 3)
        # The hub may take turns to tell them: who comes in between is told the rest.
        await play.settle()
        await play.reconnect()
        await play.ask("subscribe", NAMES[0])
        await play.settle()
        assert play.line.numbers[NAMES[0]] == [play.told[NAMES[0]]]


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_every_event_is_heard_and_none_that_was_heard_comes_again(seed: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        work = through(Path(directory), random.Random(seed))
        asyncio.run(asyncio.wait_for(work, DEADLINE))
