"""One client's subscription, whichever it has at the time: what its socket is given. No socket.

A reader that keeps up writes at once what is new; one that is behind gets turns.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from server.delivery.round_robin import RoundRobin
from server.delivery.tail import EventsLost, Ledger, Sources, Tail
from sysadmd.events import SYSTEMS
from sysadmd.journal import format_cursor

log = logging.getLogger(__name__)

# Sent when there was no event for this long, so that a client can tell silence from a dead
# connection; s.
HEARTBEAT_AFTER: Final = 20.0


class Outlet(Protocol):
    """Where frames go: a connection."""

    address: str

    @property
    def is_open(self) -> bool: ...
    @property
    def waiting(self) -> bool: ...
    def send(self, text: bytes) -> None: ...
    def offer(self, data: bytes) -> None: ...
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
        if self.tail is not None:
            self.tail.leave()
            self._closed_ledger.add(self.tail.ledger)
        self.tail = tail if self._outlet.is_open else None
        self._last_event = self._clock()
        if self.tail is not None:
            self._turns.add(self)

    def output(self) -> bytes | None:
        """Live events for the socket; a reader that is behind queues for its turn instead."""
        tail = self.tail
        if tail is None:
            return None
        if tail.behind:
            self._turns.add(self)
            return None
        data = tail.live()
        if data is not None:
            self._last_event = self._clock()
        return data

    def feed(self) -> bool:
        """Give one page of the journal to the socket; True: there is more and room for it."""
        tail, outlet = self.tail, self._outlet
        if tail is None or not outlet.is_open or outlet.waiting or not tail.behind:
            return False
        try:
            page = tail.page()
        except EventsLost as error:
            outlet.close(4410, str(error))
            return False
        except Exception:  # the outer edge: what can't be read for one stops no other
            log.exception("%s: what it has missed can't be read", outlet.address)
            outlet.close(1011, "the journal can't be read on; see the server's log")
            return False
        if page is None:
            tail.follow(self._told)
            return False
        self._last_event = self._clock()
        if page:
            outlet.offer(page)
        return not outlet.waiting

    def _told(self) -> None:
        """There are new events."""
        if not self._outlet.waiting:
            self._outlet.write()

    def tick(self) -> None:
        """Every second: a heartbeat when that is due, at once if we stood still."""
        tail, now = self.tail, self._clock()
        if (
            tail is not None
            and tail.form.extended
            and not tail.behind
            and tail.current
            and not self._outlet.waiting
            and now - self._last_event >= HEARTBEAT_AFTER
        ):
            self._last_event = now
            sources = self._sources
            cursor = format_cursor(sources.store.epoch, str(sources.hub.head))
            self._outlet.send(sources.renderer.heartbeat(tail.form, cursor, tail.prev))
