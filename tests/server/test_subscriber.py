"""What a client is given of events, on a real store, with the state of its socket chosen."""

import asyncio
from pathlib import Path

from server.daemon import SCHEMAS
from server.delivery.frames import Form, Renderer
from server.delivery.hub import Hub
from server.delivery.job_events import JobEvents
from server.delivery.pages import Pages
from server.delivery.round_robin import RoundRobin
from server.delivery.subscriber import Subscriber
from server.delivery.tail import Sources, Tail
from server.dialects import DIALECTS
from sysadmd import journal
from sysadmd.journal import START
from sysadmd.store import open_store


class Outlet:
    """Takes everything, and says of itself what the test wants."""

    address = "here"
    waiting = False

    def __init__(self) -> None:
        self.is_open = True
        self.given: list[bytes] = []

    def send(self, text: bytes) -> None:
        self.given.append(text)

    def offer(self, data: bytes) -> None:
        self.given.append(data)

    def write(self) -> None:
        pass

    def close(self, code: int, reason: str) -> None:
        self.is_open = False


def test_who_is_being_sent_away_is_given_no_more_of_the_journal(tmp_path: Path) -> None:
    async def body() -> None:
        store = open_store(tmp_path / "state.db", SCHEMAS)
        try:
            await store.write(
                lambda change: journal.append_many(change, "system-state", [b"{}"] * 200, 0)
            )
            renderer = Renderer(JobEvents(store, tmp_path, lambda: 1024))
            hub = Hub(store, renderer)
            sources = Sources(store, Pages(store, renderer), hub, renderer)
            outlet = Outlet()
            turns = RoundRobin(asyncio.get_running_loop(), lambda: True)
            subscriber = Subscriber(outlet, sources, turns)
            form = Form(DIALECTS["documented"], True, frozenset({2}))
            subscriber.subscribe(Tail(sources, form, START, ""))
            assert subscriber.feed()
            assert len(outlet.given) == 1
            outlet.close(4401, "enough")
            assert not subscriber.feed()
            assert len(outlet.given) == 1
        finally:
            store.close()

    asyncio.run(body())
