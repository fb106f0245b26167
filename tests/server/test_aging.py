"""What is written down of the clocks, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from server import aging
from server.aging import Aging
from server.daemon import SCHEMAS
from sysadmd import ages, journal
from sysadmd.passage import DAY
from sysadmd.settings import RetentionSettings
from sysadmd.store import Store, open_store

HOUR = 3600.0


class Clock:
    """Both clocks, and a store which they are kept in."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.uptime, self.wall, self.boot = 60.0, 1.79e9, "a"
        self.aging = self.new()

    def new(self) -> Aging:
        """As a daemon has it that starts."""
        return Aging(self.store, RetentionSettings)

    async def go_on(self, seconds: float, wall: float | None = None) -> bool:
        """Look again after so long; was that kept?"""
        self.uptime += seconds
        self.wall += seconds if wall is None else wall
        before = ages.last_look(self.store.reader)
        self.aging.look()
        await self.aging.keep()
        return ages.last_look(self.store.reader) != before

    async def reboot(self, off: float) -> bool:
        """And a daemon that looks a minute later; was that kept?"""
        self.uptime, self.boot = 0.0, self.boot + "'"
        self.wall += off
        self.aging = self.new()
        return await self.go_on(60)

    async def tell(self) -> int:
        """An event; its seq."""
        event = await self.store.write(
            lambda change: journal.append(change, "system-state", b"{}", self.wall)
        )
        return event.seq

    @property
    def noted(self) -> int:
        """Up to which event ages are known."""
        return ages.newest(self.store.reader, journal.KIND)


Body = Callable[[Clock], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Body], None]:
    """What plays a test with these clocks."""

    async def playing(body: Body) -> None:
        store = open_store(tmp_path / "state.db", SCHEMAS)
        try:
            clock = Clock(store)
            monkeypatch.setattr(aging, "boot_clock", lambda: clock.uptime)
            monkeypatch.setattr(aging, "boot_id", lambda: clock.boot)
            with monkeypatch.context() as patch:
                patch.setattr(time, "time", lambda: clock.wall)
                clock.aging = clock.new()
                await body(clock)
        finally:
            store.close()

    return lambda body: asyncio.run(playing(body))


def test_an_idle_daemon_writes_once_an_hour(play: Callable[[Body], None]) -> None:
    async def body(clock: Clock) -> None:
        assert await clock.go_on(0)
        kept = [await clock.go_on(HOUR / 4) for _ in range(12)]
        assert kept == [False, False, False, True] * 3
        # Nor does a start write more.
        clock.aging = clock.new()
        assert not await clock.go_on(HOUR / 4)
        assert clock.store.reader.execute("SELECT count(*) FROM ages").fetchone() == (0,)

    play(body)


def test_a_leap_and_its_end_are_kept_at_once(play: Callable[[Body], None]) -> None:
    async def body(clock: Clock) -> None:
        await clock.go_on(0)
        assert await clock.go_on(30, wall=100 * DAY)
        assert not await clock.go_on(30)
        assert await clock.go_on(30, wall=-100 * DAY)
        assert await clock.go_on(DAY - 1)
        assert await clock.go_on(1)

    play(body)


def test_what_came_since_a_long_time_off_is_not_taken_for_older(
    play: Callable[[Body], None],
) -> None:
    async def body(clock: Clock) -> None:
        await clock.go_on(0)
        old = await clock.tell()
        await clock.go_on(2 * DAY)
        assert clock.noted == old
        await clock.reboot(off=40 * DAY)
        new = 0
        for _ in range(23):
            new = await clock.tell()
            await clock.go_on(HOUR)
        assert (clock.noted, clock.aging.older(journal.KIND, 30)) == (old, 0)
        await clock.go_on(2 * HOUR)
        assert (clock.noted, clock.aging.older(journal.KIND, 30)) == (new, old)
        await clock.go_on(29 * DAY)
        assert clock.aging.older(journal.KIND, 30) == old
        await clock.go_on(2 * DAY)
        assert clock.aging.older(journal.KIND, 30) == new

    play(body)
