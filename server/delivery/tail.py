"""One subscription: a reader of the journal with a position. No socket, no request.

There is one way to read: from a position towards the head. A reader that has reached the head
takes new frames from its channel's ring; one that has not, or fell out of the ring, is given
pages of the journal, read in the store's reading thread. Both give the same bytes, and a place
says where in the ring it is, so the change-over has no seam.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Protocol

from server.delivery.frames import Form, Renderer
from server.delivery.hub import Channel, Hub, Recipient, Way
from server.delivery.pages import Gone, Page, Pages
from server.delivery.waiting import WaitingJobs
from sysadmd import journal
from sysadmd.journal import Place, parse_place
from sysadmd.store import Store


@dataclass(slots=True)
class Ledger:
    """What became of the events of one subscription's systems."""

    published: int = 0
    delivered: int = 0
    merged: int = 0
    gapped: int = 0
    owed: int = 0

    def add(self, other: Ledger) -> None:
        self.published += other.published
        self.delivered += other.delivered
        self.merged += other.merged
        self.gapped += other.gapped
        self.owed += other.owed


class EventsLost(Exception):
    """Retention has passed a reader that can't be told in its protocol."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where tails read: the journal, its pages, live frames, and what makes frames of them."""

    store: Store
    pages: Pages
    hub: Hub
    renderer: Renderer
    waiting: WaitingJobs


class Opening(Protocol):
    """Frames that go before a subscription's events: a snapshot, what was missed.

    hurries: others wait until they are taken. cut: they will not be completed. given: up to
    where events were given out by it, of the systems that it is about.
    """

    @property
    def hurries(self) -> bool: ...
    @property
    def cut(self) -> bool: ...
    @property
    def given(self) -> Mapping[int, Place]: ...
    def frame(self, db: Connection) -> bytes: ...
    def taken(self) -> bool: ...
    def close(self) -> None: ...


# What a read has found: frames of the opening, a page, or what retention took.
Found = bytes | Page | Gone


class Tail:
    """A subscription's position and what it has seen."""

    def __init__(
        self,
        sources: Sources,
        form: Form,
        start: Place,
        prev: str,
        openings: deque[Opening] | None = None,
        *,
        known: bool = True,
        until: Place | None = None,
    ) -> None:
        """It goes on behind `start`; openings: frames before its events.

        known: `start` is a place of this history, for sure. until: when all up to there has
        been told, that is said.
        """
        self._sources = sources
        self._hub = sources.hub
        # With a recipient of it, as soon as the ring has what comes next.
        self._channel: Channel | None = None
        self._recipient: Recipient | None = None
        # The index in the ring of what comes next, as of `_place`.
        self._index = 0
        self.openings = deque[Opening]() if openings is None else openings
        self.form = form
        self._start = start
        self.known = known
        self.until = until
        # The last event given out (or passed), and its cursor as these systems' chain has it.
        self._place = start
        self._prev = prev
        self._delivered = self._merged = self._gapped = 0

    @property
    def place(self) -> Place:
        """The last event that was given out or passed."""
        self._catch_up()
        return self._place

    @property
    def prev(self) -> str:
        """Its cursor, as the chain of these systems has it."""
        self._catch_up()
        return self._prev

    @property
    def told_at(self) -> float:
        """When it was last given anything by its channel, by the loop's clock."""
        return self._channel.told_at if self._channel is not None else 0.0

    def _catch_up(self) -> None:
        """Take over how far the channel has given frames to its recipient."""
        recipient = self._recipient
        if recipient is not None and recipient.index > self._index:
            self._delivered += recipient.index - self._index
            self._index = recipient.index
            self._place = parse_place(recipient.place)
            self._prev = journal.format_cursor(self._sources.store.epoch, recipient.place)

    def _move(self, place: Place, prev: str) -> None:
        """It is here now, by what was read."""
        self._place, self._prev = place, prev
        if self._channel is not None:
            self._index = self._channel.end - self._ahead(place)
            self._let_follow()

    def _let_follow(self) -> None:
        """Have the channel give it what comes next, if nothing is to go in between."""
        if self._recipient is not None:
            apart = bool(self.openings) or self.until is not None
            self._recipient.index = Recipient.APART if apart else self._index

    def widened(self, form: Form, prev: str) -> Tail:
        """A tail for other systems that goes on here."""
        return Tail(
            self._sources,
            form,
            self.place,
            prev,
            self.openings,
            known=self.known,
            until=self.until,
        )

    @property
    def given(self) -> Mapping[int, Place]:
        """Up to where events were given out, by system: of those that come now."""
        if self.openings:
            return self.openings[0].given
        return dict.fromkeys(self.form.systems, self.place)

    def drop(self, systems: Collection[int]) -> None:
        """Leave out openings that are about these systems; what was read for this tail must
        not be taken any more."""
        for opening in tuple(self.openings):
            if opening.given and opening.given.keys() <= set(systems):
                self.openings.remove(opening)

    @property
    def ledger(self) -> Ledger:
        """The account as of now; published is what the hub has told since the start, and what
        it is yet to tell if this is further on."""
        systems = self.form.systems
        passed = self.place.count(systems) - self._start.count(systems)
        owed = max(0, self._ahead(self._place))
        return Ledger(passed + owed, self._delivered, self._merged, self._gapped, owed)

    def _ahead(self, place: Place) -> int:
        """How many events of these systems were told behind a place; below 0: the place is
        ahead of what was told, as a snapshot's may be."""
        systems = self.form.systems
        return self._hub.head.count(systems) - place.count(systems)

    def live(self) -> bytes | None:
        """New frames from the ring; None: there are none, or `behind` says so."""
        channel = self._channel
        if channel is None or self.openings:
            return None
        self._catch_up()
        index = self._index
        if not channel.start <= index < channel.end:
            return None
        data, place = channel.since(index)
        self._delivered += channel.end - index
        self._index = channel.end
        self._place, self._prev = parse_place(place), channel.prev
        data += self._said()
        self._let_follow()
        return data or None

    @property
    def current(self) -> bool:
        """Everything that was told has been given out."""
        return not self.behind and self._ahead(self.place) <= 0

    @property
    def behind(self) -> bool:
        """The ring has not, or no longer, what comes next: read the journal."""
        channel = self._channel
        if channel is None or self.openings:
            return True
        self._catch_up()
        return self._index < channel.start

    def join(self, way: Way, tell: Callable[[], object]) -> None:
        """Follow at once if it begins where the hub is: there is nothing to read before.

        way, tell: as in `take`.
        """
        begins = self._channel is None and self.known and self.until is None
        if begins and not self.openings and self._place == self._hub.head:
            self._follow(way, tell)
            self._move(self._place, self._prev)

    def next(self) -> Callable[[Connection], Found]:
        """What reads the next portion, in the reading thread: the opening, then the journal."""
        if self.openings:
            return self.openings[0].frame
        form, start, prev, upto = self.form, self.place, self.prev, self._hub.head
        if self.until is not None and start.seq < self.until.seq < upto.seq:
            # What has come since is told behind the frame that says so.
            upto = self.until
        if self._recipient is not None:
            # A pass that is under way may have ready what the ring has not any more, and the
            # page tells the same.
            self._recipient.index = Recipient.APART
        return lambda db: self._sources.pages.read(db, form, start, prev, upto)

    def take(self, found: Found, way: Way, tell: Callable[[], object]) -> bytes:
        """Move over what was read; what the socket gets of it.

        way, tell: what new frames in the ring are given to, or who is told that there are
        some, once that has what comes next.
        Raises: EventsLost for a plain client that retention has passed.
        """
        if isinstance(found, bytes):
            if self.openings[0].taken():
                self.openings.popleft()
                self._let_follow()
            return found
        if isinstance(found, Gone):
            return self._pass(found) + self._said()
        self._delivered += found.delivered
        self._merged += found.merged
        self._place, self._prev = found.end, found.prev
        if found.last:
            # A channel that is new, or whose ring has moved on, may lack some still: until they
            # are read it keeps what comes.
            self._follow(way, tell)
        else:
            self.leave()
        data = found.data + self._said()
        self._move(found.end, found.prev)
        return data

    def _said(self) -> bytes:
        """The frame that says that all up to `until` has been told, once that is so."""
        systems = self.form.systems
        if self.until is None or self._place.count(systems) < self.until.count(systems):
            return b""
        self.until = None
        cursor = journal.format_cursor(self._sources.store.epoch, str(self._place))
        return self._sources.renderer.caught_up(self.form, cursor, self._prev)

    def _pass(self, gone: Gone) -> bytes:
        """Move over what retention took; the gap frame if any of it was ours."""
        systems = self.form.systems
        lost = gone.place.count(systems) - self.place.count(systems)
        self._move(gone.place, self._prev)
        if lost == 0 and self.known:
            return b""
        # What the client has seen may be of another history: that some is missing is told even
        # if none can be counted.
        self.known = True
        self._gapped += lost
        if not self.form.extended:
            raise EventsLost(f"{lost} events were removed by retention before they were taken")
        to = journal.format_cursor(self._sources.store.epoch, str(gone.last or gone.place))
        frame = self._sources.renderer.gap(self.form, self._prev, to, lost)
        self._prev = to
        return frame

    def _follow(self, way: Way, tell: Callable[[], object]) -> None:
        if self._channel is None:
            self._channel = self._hub.channel(self.form, self._place, self._prev)
            self._recipient = Recipient(way, tell)
            self._channel.recipients[self._recipient] = None

    def leave(self) -> None:
        """Be told no more."""
        self._catch_up()
        if self._channel is not None and self._recipient is not None:
            self._channel.recipients.pop(self._recipient, None)
            # A pass may be under way.
            self._recipient.index = Recipient.APART
        self._channel = self._recipient = None

    def close(self) -> None:
        """Give up its openings: nobody reads them any more."""
        for opening in self.openings:
            opening.close()
