"""One client's subscription, whichever it has at the time: what its socket is given. No socket.

A reader that keeps up writes at once what is new; one that is behind has a portion at a time
read for it, and the next when its socket has taken that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from typing import Final, Protocol

from server.delivery.heard import Heard, catch_up
from server.delivery.round_robin import RoundRobin
from server.delivery.snapshot import SnapshotCut
from server.delivery.tail import EventsLost, Found, Ledger, Opening, Sources, Tail
from server.delivery.waiting import EVERY
from server.wire.protocol import FRAME_LIMIT
from sysadmd.errors import SysadmdError
from sysadmd.events import SYSTEMS
from sysadmd.journal import format_cursor

log = logging.getLogger(__name__)

# Sent when there was no event for this long, so that a client can tell silence from a dead
# connection; s.
HEARTBEAT_AFTER: Final = 20.0
# As long as a snapshot is under way the state file's WAL can but grow: a client has so long for
# each of its frames, and so long for all; s.
SNAPSHOT_FRAME: Final = 60.0
SNAPSHOT_WHOLE: Final = 600.0
# Of one client at once: each may hold a place among few, and a frame in memory.
SNAPSHOTS: Final = 2


class Outlet(Protocol):
    """Where frames go: a connection.

    direct, keep: as in `Way`; took: it has taken of late what it was given directly.
    """

    address: str

    def clock(self) -> float: ...
    @property
    def is_open(self) -> bool: ...
    @property
    def direct(self) -> Callable[[bytes], int] | None: ...
    def keep(self, data: memoryview) -> None: ...
    def took(self) -> None: ...
    @property
    def waiting(self) -> bool: ...
    @property
    def crowded(self) -> bool: ...
    def reserve(self, size: int) -> None: ...
    def send(self, text: bytes) -> None: ...
    def write(self) -> None: ...
    def close(self, code: int, reason: str) -> None: ...


class Subscriber:
    """A client's end of delivery, from its connection to its end."""

    def __init__(self, outlet: Outlet, sources: Sources, turns: RoundRobin) -> None:
        self.tail: Tail | None = None
        self._outlet = outlet
        self._sources = sources
        self._turns = turns
        self._clock = asyncio.get_running_loop().time
        self._last_event = self._clock()
        # Whose turns its reads take.
        self.asker: Hashable = None
        # When its snapshots were begun, and when a frame of theirs was last given out.
        self._opened = self._moved = 0.0
        # Something was given out, or its subscription has changed.
        self._given = asyncio.Event()
        # The tail for which something is being read, and what was read and not taken yet.
        self._reading: Tail | None = None
        self._read: asyncio.Future[Found] | None = None
        self._page: bytes | None = None
        # Something was read, and the socket had no room for it.
        self._held = False
        # How far it has heard, if it can't say so and is known.
        self.heard: Heard | None = None
        # When it was told last of jobs that wait.
        self._repeated = 0.0
        # Accounts of subscriptions that were replaced.
        self._closed_ledger = Ledger()

    @property
    def systems(self) -> list[str]:
        """The systems that are subscribed, in the journal's order."""
        numbers = self.tail.form.systems if self.tail else frozenset[int]()
        return [name for number, name in enumerate(SYSTEMS) if number in numbers]

    @property
    def ledger(self) -> Ledger:
        """What became of the events of all subscriptions of this client."""
        total = Ledger()
        total.add(self._closed_ledger)
        if self.tail is not None:
            total.add(self.tail.ledger)
        return total

    def subscribe(self, tail: Tail | None) -> None:
        """Read events from here on; None: no more. Who has left meanwhile hears nothing."""
        before, kept = self.tail, tail if self._outlet.is_open else None
        openings = kept.openings if kept is not None else None
        if before is not None:
            before.leave()
            self._closed_ledger.add(before.ledger)
        for other in (before, tail):
            if other is not None and other.openings is not openings:
                other.close()
        self.tail = kept
        if kept is None and self._read is not None:
            # Others have its turn.
            self._read.cancel()
        self._last_event = self._clock()
        self._moved = self._outlet.clock()
        if before is None or not openings or before.openings is not openings:
            self._opened = self._moved
        self._given.set()
        if kept is not None:
            kept.join(self._outlet, self._told)
        self._read_on()

    def know(self, heard: Heard) -> None:
        """It is known from here on how far its client has heard; what that has missed it is
        told, though it has subscribed already."""
        self.heard, tail = heard, self.tail
        if tail is not None and not tail.form.extended:
            tail = tail.widened(tail.form, tail.prev)
            catch_up(self._sources, heard, tail, self.systems)
            self.subscribe(tail)

    async def room_for_snapshot(self) -> None:
        """Return when so few snapshots are under way for it that one more may be."""
        while self.tail is not None and len(self.tail.openings) >= SNAPSHOTS:
            self._given.clear()
            await self._given.wait()

    def output(self, *, live: bool = False) -> bytes | None:
        """Events for the socket; None: there are none, or they are being read.

        live: only what need not be read.
        """
        data, self._page = self._page, None
        tail = self.tail
        if data is not None:
            self._outlet.reserve(0)
        elif tail is not None:
            if not tail.behind:
                data = tail.live()
            elif not live:
                self._read_on()
        if data is not None:
            self._last_event = self._clock()
        return data

    def _read_on(self) -> None:
        """Have the next portion read, if this is behind and the socket has room for it."""
        tail = self.tail
        if self._held:
            self._held = False
            self._turns.add(self)
        if tail is None or self._reading is not None:
            return
        if not self._outlet.is_open or self._outlet.waiting or self._page is not None:
            return
        if tail.behind and self._outlet.crowded:
            # It asks again when its account holds less.
            self._outlet.write()
        elif tail.behind:
            self._outlet.reserve(FRAME_LIMIT)
            self._reading = tail
            self._read = self._sources.store.read(tail.next(), self.asker)
            self._read.add_done_callback(lambda _: self._turns.add(self))

    def feed(self) -> None:
        """Take what was read for it."""
        tail, read = self._reading, self._read
        assert read is not None
        if tail is self.tail and self._outlet.is_open and self._outlet.waiting:
            # A reply before it may be that of another subscription.
            self._held = True
            return
        self._reading = self._read = None
        self._outlet.reserve(0)
        if tail is None or tail is not self.tail or not self._outlet.is_open:
            # It was for a subscription that was replaced.
            if not read.cancelled():
                read.exception()
            self._read_on()
            return
        outlet = self._outlet
        try:
            data = tail.take(read.result(), outlet, self._told)
        except EventsLost as error:
            outlet.close(4410, str(error))
        except SnapshotCut:
            outlet.close(4408, "the snapshot was taken too slowly, and others waited")
        except SysadmdError as error:
            # Damage: what can't be read is not skipped.
            log.error("%s: what it has missed can't be read: %s", outlet.address, error)
            outlet.close(1011, "the journal can't be read on; see the server's log")
        except Exception:  # the outer edge: what can't be read for one stops no other
            log.exception("%s: what it has missed can't be read", outlet.address)
            outlet.close(1011, "the journal can't be read on; see the server's log")
        else:
            self._moved = self._outlet.clock()
            self._given.set()
            self._page = data or None
            self._outlet.reserve(len(data))
            # Asks for it, and for what comes next.
            outlet.write()

    def _told(self) -> None:
        """There are new events."""
        if not self._outlet.waiting:
            self._outlet.write()

    def tick(self, now: float) -> None:
        """Every second: a heartbeat when that is due, at once if we stood still.

        now: by the clock that clients' deadlines go by.
        """
        tail = self.tail
        for opening in tail.openings if tail is not None else ():
            if opening.hurries:
                self._hurry(opening, now)
                break
        now = self._clock()
        if tail is not None and tail.told_at > self._last_event and not self._outlet.waiting:
            self._last_event = tail.told_at
            self._outlet.took()
        if tail is not None and self.heard is not None and self._page is None:
            self.heard.tick(tail, now)
        if tail is not None and tail.form.repeats and now - self._repeated >= EVERY:
            self._repeat(tail, now)
        if (
            # First what is seldom so.
            now - self._last_event >= HEARTBEAT_AFTER
            and tail is not None
            and tail.form.extended
            and not tail.behind
            and tail.current
            and not self._outlet.waiting
        ):
            self._last_event = now
            sources = self._sources
            cursor = format_cursor(sources.store.epoch, str(sources.hub.head))
            self._outlet.send(sources.renderer.heartbeat(tail.form, cursor, tail.prev))

    def _repeat(self, tail: Tail, now: float) -> None:
        """Tell again of jobs that wait; not before what was told of them has gone out."""
        outlet = self._outlet
        if not tail.behind and tail.current and not outlet.waiting and not outlet.crowded:
            self._repeated = now
            for text in self._sources.waiting.frames(tail.form):
                outlet.send(text)

    def _hurry(self, opening: Opening, now: float) -> None:
        """Part from who holds a snapshot for too long."""
        if (
            opening.cut
            or now - self._moved >= SNAPSHOT_FRAME
            or now - self._opened >= SNAPSHOT_WHOLE
        ):
            self._outlet.close(4408, "the snapshot was taken too slowly; others wait")
