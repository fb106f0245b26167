"""Clients that subscribe, stall and subscribe again while events come and go: each of them
hears each event of its systems once, in order, or is told of how many are gone."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from sqlite3 import Connection
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from collectors.system_state import SystemState
from dispatcher.commandline import Spec
from dispatcher.orders import Order
from dispatcher.steps import Now
from server.classes.events import Subscribe, Unsubscribe
from server.daemon import SCHEMAS
from server.delivery import hub as hub_module
from server.delivery import pages, snapshot
from server.delivery.hub import system_numbers
from server.delivery.round_robin import RoundRobin
from server.delivery.snapshot import Snapshots
from server.delivery.subscriber import Subscriber
from server.delivery.tail import Sources
from server.dialects import DIALECTS
from server.dialects.values import parse_rfc3339, rfc3339
from server.login.roles import Login, Role
from server.session import Session
from server.wire.protocol import ProtocolError, Reply, Request, text_frame
from sysadmd import journal
from sysadmd.events import SYSTEMS
from sysadmd.journal import Event, Transaction
from sysadmd.store import Store, open_store
from tests.kit.accepting import accept
from tests.kit.delivery import sources_of
from tests.kit.frames import texts
from tests.kit.waiting import DEADLINE

LOGIN = Login("root", Role.FULL, None, None, None)
NOW = Now(1.5, 1.0, "boot")
# So many active jobs, of so many bytes each, make a snapshot of several frames of FRAME.
JOBS = 12
TEXT = 400
FRAME = 4096
# A ring holds few frames, so that readers fall out of it.
RING = 16 * 1024
# What the plain client hears.
PLAIN = "life-preserver"


def _allow(*_: object) -> Login:
    return LOGIN


class Client:
    """A client, its socket, and all that it was given, in order."""

    address = "here"

    def __init__(self, sources: Sources, turns: RoundRobin, *, plain: bool) -> None:
        """plain: it knows no extension, and hears of one system."""
        self.plain = plain
        self.is_open = True
        # Does it read at the moment?
        self.takes = True
        # Does its account hold too much?
        self.crowded = False
        self.reserved = 0
        self._held = b""
        self.received = bytearray()
        self.subscriber = Subscriber(self, sources, turns)
        self.session = cast(
            "Session",
            SimpleNamespace(
                subscriber=self.subscriber,
                dialect=DIALECTS["documented"],
                asker=None,
                gathering=asyncio.Lock(),
                connection=SimpleNamespace(room=self.room),
                require=_allow,
                require_still=_allow,
            ),
        )

    async def room(self) -> None:
        return None

    def clock(self) -> float:
        return 0.0

    @property
    def waiting(self) -> bool:
        return bool(self._held)

    @property
    def direct(self) -> Callable[[bytes], int] | None:
        return self._take if self.is_open and not self._held else None

    def _take(self, data: bytes) -> int:
        """All of it or nothing, as TLS."""
        if not self.takes:
            raise BlockingIOError
        self.received += data
        return len(data)

    def keep(self, data: memoryview) -> None:
        self._held = bytes(data)
        self.write()

    def took(self) -> None:
        pass

    def reserve(self, size: int) -> None:
        self.reserved = size

    def send(self, text: bytes) -> None:
        if self.is_open:
            self._held += text_frame(text)
            self.write()

    def write(self) -> None:
        while self.is_open:
            if self._held and not self.takes:
                return
            self.received += self._held
            self._held = b""
            output = self.subscriber.output(live=self.crowded and not self.reserved)
            if output is None:
                return
            self._held = output

    def take_one(self) -> None:
        """What the socket holds is taken, and the next portion held."""
        self.takes = True
        self.received += self._held
        self._held = b""
        self.takes = False
        self.write()

    def close(self, code: int, reason: str) -> None:
        # Retention has passed it.
        assert self.plain, f"closed with {code}: {reason}"
        assert code == 4410
        self.end()

    def end(self) -> None:
        self.is_open = False
        self.subscriber.subscribe(None)


class World:
    """A store with its delivery, clients, and the journal as it was told."""

    def __init__(self, store: Store, directory: Path) -> None:
        self.store = store
        self.sources = sources_of(store, directory)
        self.hub = self.sources.hub
        self.turns = RoundRobin(asyncio.get_running_loop(), self.hub.telling)
        self.snapshots = Snapshots(store)
        self.subscribe = Subscribe(self.sources, self.snapshots)
        self.unsubscribe = Unsubscribe(store)
        self.clients: list[Client] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.writes: list[asyncio.Future[Any]] = []
        # All events there ever were; seq is the index and one.
        self.told: list[Event] = []
        self.progress = self.messages = 0
        # s since 1970.
        self.clock = 0
        store.publish = self._publish

    def _publish(self, events: list[Event]) -> None:
        self.told += events
        self.hub.publish(events)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    async def ask(self, client: Client, name: str, args: Any) -> None:
        request, was = Request("events", name, "r", args), client.subscriber.systems
        handler = self.subscribe if name == "subscribe" else self.unsubscribe
        try:
            reply = await handler.answer(client.session, request)
        except ProtocolError as error:
            raise AssertionError(str(error)) from error
        assert isinstance(reply, Reply)
        systems = client.subscriber.systems
        again = isinstance(args, dict) and cast("dict[str, object]", args).get("since") is None
        if isinstance(args, dict) and name == "subscribe":
            wish = cast("dict[str, Any]", args)
            again = again and "last" not in wish
            self.check_start(wish, reply.args)
            caught_up = bool(wish.get("caught_up"))
        else:
            caught_up = False
        text = {"reply": reply.args, "systems": systems, "again": again, "was": was}
        if caught_up:
            # More may be committed by now than was then.
            text["caught_up"] = self.hub.head.seq
        client.send(json.dumps(text).encode())
        for following in reply.then:
            client.send(following)

    def check_start(self, wish: dict[str, Any], reply: Any) -> None:
        """Does it begin where it was asked to, of what is kept?"""
        at, pruned = _seq(reply["cursor"]), journal.pruned(self.store.reader).seq
        if "last" in wish and not wish["snapshot"]:
            # Retention may be ahead of what was told.
            head = max(at, self.hub.head.seq)
            count = self._behind(at, system_numbers(wish["systems"]), head)
            # More may be gone by now than was then.
            assert count == wish["last"] or (count < wish["last"] and at <= pruned)
        time = parse_rfc3339(wish.get("since") or "")
        if time is not None:
            assert all(event.time < time for event in self.told[pruned:at])
            assert all(event.time >= time for event in self.told[at:])

    def commit(self, counts: list[int], size: int) -> None:
        """Some events of each system in one change."""
        self.clock += len(counts)
        at = self.clock

        def change(transaction: Transaction) -> None:
            for name, count in zip(SYSTEMS, counts, strict=True):
                if name == "dispatcher":
                    bodies = [self._progressed() for _ in range(count)]
                else:
                    bodies = [self._message(name, size) for _ in range(count)]
                journal.append_many(transaction, name, bodies, at)

        self.writes.append(self.store.begin_write(change))

    def _message(self, name: str, size: int) -> bytes:
        self.messages += name == PLAIN
        return b'{"n":%d,"message":"%s"}' % (self.messages, b"m" * size)

    def _progressed(self) -> bytes:
        self.progress += 1
        n, at = divmod(self.progress, 40)
        return b'{"job":1000000,"state":"running","command":%d,"from":%d,"to":%d}' % (
            n,
            at,
            at + 1,
        )

    def prune(self, part: float) -> None:
        """Retention takes this part of what there is."""

        def change(transaction: Transaction) -> None:
            low, high = journal.pruned(transaction.db).seq, journal.head(transaction.db).seq
            journal.prune(transaction.db, low + int((high - low) * part))

        self.writes.append(self.store.begin_write(change))

    def check_ledgers(self) -> None:
        for client in self.clients:
            account = client.subscriber.ledger
            assert account.published == (
                account.delivered + account.merged + account.gapped + account.owed
            ), account

    async def settle(self) -> None:
        """All is said, and taken."""
        await asyncio.gather(*self.writes)
        for client in self.clients:
            client.takes, client.crowded = True, False
            client.write()
        await asyncio.wait_for(asyncio.gather(*self.tasks), DEADLINE)
        while not all(self._is_done(client) for client in self.clients):
            await self.store.read(lambda db: None)
            await asyncio.sleep(0)
        # What nobody waits for any more is given up in the reading thread.
        await self.store.read(lambda db: None)
        assert not any(client.reserved for client in self.clients if client.is_open)

    def _is_done(self, client: Client) -> bool:
        tail = client.subscriber.tail
        at_head = self.hub.head.seq == len(self.told) and not self.hub.telling()
        return at_head and (tail is None or tail.current)

    # What each was given.

    def check_plain(self, client: Client) -> None:
        """It knows an event by its number alone."""
        last: int | None = None
        current = False
        for text in texts(client.received):
            if "reply" in text:
                last, current = (last if text["systems"] and text["was"] else None), True
                continue
            n = text["args"]["n"]
            if last is None:
                # What is so now, or the first that came after that.
                assert current
            else:
                assert n == last + 1
            last, current = n, False
        if client.subscriber.tail is not None and last is not None:
            assert last == self.messages

    def check(self, client: Client) -> Counter[str]:
        """Read what a client was given as a client would; what of it there was."""
        seen: Counter[str] = Counter()
        systems: frozenset[int] = frozenset()
        at, prev = 0, ""
        # Up to where it is to be told all before it is told that it has caught up.
        owed: int | None = None
        opening: dict[str, Any] | None = None
        jobs = 0
        for text in texts(client.received):
            if "reply" in text:
                if not text["again"] or not systems:
                    opening, jobs = None, 0
                systems = system_numbers(text["systems"])
                kept = owed if text["again"] or "cursor" not in text["reply"] else None
                owed = text.get("caught_up", kept if systems else None)
                if "cursor" in text["reply"]:
                    at, prev = _seq(text["reply"]["cursor"]), text["reply"]["prev"]
                    seen["replies"] += 1
                else:
                    # Whoever drops a system goes on where it is; its chain is another one.
                    prev = "?"
                continue
            if text["name"] == "snapshot":
                assert opening is None or opening["cursor"] == text["cursor"]
                jobs += len(text["args"]["jobs"])
                opening = text
                if not text.get("more"):
                    assert jobs == JOBS
                    opening, jobs = None, 0
                    seen["snapshots"] += 1
                continue
            assert prev in ("?", text["prev"]), f"the chain is broken: {prev}, {text}"
            if text["name"] == "heartbeat":
                assert text["args"] == {
                    "cursor": text["cursor"],
                    "prev": text["prev"],
                    "caught_up": True,
                }
                assert owed is not None, "it was not to be told, or is told twice"
                assert self._behind(at, systems, max(at, owed)) == 0, "too early"
                owed = None
                seen["caught up"] += 1
                continue
            prev = text["cursor"]
            if text["name"] == "gap":
                count = text["args"]["count"]
                kind = "gapped"
            else:
                count = 1
                kind = "delivered"
                seen["merged"] += text.get("merged", 1) - 1
            seen[kind] += count
            expected = count + text.get("merged", 1) - 1
            following = self._behind(at, systems, _seq(prev))
            assert following == expected, f"{following} events, not {expected}: {text}"
            assert prev == f"{self.store.epoch}:{self.told[_seq(prev) - 1].place}"
            at = _seq(prev)
        if systems and client.is_open:
            assert owed is None, "it is not told that it has caught up"
            assert self._behind(at, systems, len(self.told)) == 0, "events are missing"
        return seen

    def _behind(self, at: int, systems: frozenset[int], upto: int) -> int:
        """How many events of these systems are between; none if `upto` is the earlier one.

        A gap of none names its place by the last event of its systems, which may well be
        before the cursor that was asked for.
        """
        between = self.told[min(at, upto) : max(at, upto)]
        count = sum(event.system in systems for event in between)
        assert upto >= at or count == 0
        return count


def _seq(cursor: str) -> int:
    return int(cursor.split(":")[1])


def last_cursor(client: Client) -> str | None:
    """The newest cursor that the client knows; it takes the last thing it was given."""
    cursor = None
    for text in texts(client.received):
        if "reply" in text:
            cursor = text["reply"].get("cursor", cursor)
        elif text["name"] != "snapshot" and "cursor" in text:
            cursor = text["cursor"]
    return cursor


async def play(directory: Path, draw: random.Random, steps: int) -> None:
    store = open_store(directory / "state.db", SCHEMAS)
    world = World(store, directory)
    try:
        spec = Spec(("true", "x" * TEXT), "true " + "x" * TEXT)
        orders = [Order(commands=(spec,))] * JOBS
        await store.write(lambda change: accept(change, NOW, orders))
        await SystemState(store).hostname("box")
        world.clients = [
            Client(world.sources, world.turns, plain=plain) for plain in (False, False, True)
        ]
        for _ in range(steps):
            await step(world, draw)
            world.check_ledgers()
        await world.settle()
        world.check_ledgers()
        for client in world.clients:
            if client.plain:
                world.check_plain(client)
            else:
                world.check(client)
            tail = client.subscriber.tail
            assert tail is None or tail.ledger.owed == 0
            client.end()
        world.check_ledgers()
        # No snapshot is left open.
        await store.read(lambda db: None)
        assert not world.snapshots._under_way  # pyright: ignore[reportPrivateUsage]
    finally:
        for task in world.tasks:
            task.cancel()
        for client in world.clients:
            client.end()
        await asyncio.sleep(0)
        store.close()


async def step(world: World, draw: random.Random) -> None:
    args: Any
    what = draw.choice(ACTIONS)
    client = draw.choice(world.clients)
    if what == "few":
        counts = [draw.choice((0, 0, 1, 2, 5)) for _ in SYSTEMS]
        world.commit(counts, draw.choice((1, 100, 4000)))
    elif what == "many":
        counts = [draw.choice((0, 1, 150, 300)) for _ in SYSTEMS]
        world.commit(counts, draw.choice((1, 100)))
    elif what == "prune":
        world.prune(draw.choice((0.1, 0.5, 0.9, 1.0)))
    elif what == "stall":
        client.takes = False
    elif what == "crowd":
        client.crowded = True
    elif what == "room":
        client.crowded = False
        client.write()
    elif what == "take":
        client.take_one()
    elif what == "read on":
        client.takes = True
        client.write()
    elif what == "turns":
        for _ in range(draw.choice((1, 3, 8, 20))):
            await asyncio.sleep(0)
    elif what == "thread":
        await world.store.read(lambda db: None)
    elif what == "defect":
        with pytest.raises(ZeroDivisionError):
            await world.store.read(defective)
    elif what == "end":
        if draw.random() < 0.2:
            client.end()
    elif what == "disk":
        await world.store.write(lambda change: None)
    elif what == "drop":
        one = [draw.choice(SYSTEMS)]
        args = one if client.plain else {"systems": one, "since": None}
        await world.ask(client, "unsubscribe", args)
    elif what == "subscribe":
        systems = draw.sample(SYSTEMS, draw.choice((1, 2, 3)))
        time = rfc3339(draw.randint(-1000, world.clock * 1000 + 1000))
        since = draw.choice((None, None, "oldest", "now", last_cursor(client), time))
        args = {"systems": systems, "snapshot": draw.random() < 0.4}
        if draw.random() < 0.5:
            args["caught_up"] = draw.random() < 0.8
        if since is None and draw.random() < 0.4:
            args["last"] = draw.choice((1, 2, 30, 500, 10_000))
        if since is not None:
            args["since"] = since
        world.begin(world.ask(client, "subscribe", [PLAIN] if client.plain else args))


def defective(db: Connection) -> int:
    """A read that fails with a row in hand."""
    return sum(1 // 0 for _ in db.execute("SELECT n FROM commands"))


ACTIONS = (
    *("few", "few", "many", "prune", "stall", "stall", "take", "take", "read on"),
    *("crowd", "room", "turns", "turns", "turns", "thread", "thread", "disk", "defect", "end"),
    *("subscribe", "subscribe", "subscribe", "drop"),
)


@settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
# A cursor of nothing that is ours, removed by retention before it was read from.
@example(seed=6142961, steps=59)
@given(seed=st.integers(0, 2**32), steps=st.integers(5, 80))
def test_each_hears_each_event_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, seed: int, steps: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub_module, "RING_SIZE", RING)
        patch.setattr(hub_module, "MOST_FRAMES", RING // hub_module.FRAME_COST)
        patch.setattr(hub_module, "SLICE", 0.001 * (seed % 2))
        patch.setattr(pages, "PAGE_EVENTS", 30)
        patch.setattr(pages, "PAGE_SIZE", 8 * 1024)
        patch.setattr(snapshot, "FRAME_LIMIT", FRAME)
        directory = tmp_path_factory.mktemp("world")
        asyncio.run(asyncio.wait_for(play(directory, random.Random(seed), steps), DEADLINE))
