"""One subscription: a reader of the journal with a position. No socket, no request.

There is one way to read: from a position towards the head. A reader that has reached the head
takes new frames from its channel's ring; one that has not, or fell out of the ring, reads pages
of the journal. Both give the same bytes, so the change-over has no seam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from server.delivery.frames import Form, Renderer
from server.delivery.hub import Channel, Hub
from server.delivery.pages import Pages
from server.wire.protocol import text_frame
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


class Tail:
    """A subscription's position and what it has seen."""

    def __init__(
        self,
        sources: Sources,
        form: Form,
        start: Place,
        prev: str,
        opening: Iterator[bytes] | None = None,
    ) -> None:
        """It goes on behind `start`; opening: frames before its events."""
        self._sources = sources
        self._hub = sources.hub
        self._channel: Channel | None = None
        self._tell: Callable[[], object] | None = None
        self._index = 0
        # Frames before the first event, one at a time as the socket takes them.
        self.opening = opening or iter(())
        self.form = form
        self._start = start
        # The last event given out (or passed), and its cursor as these systems' chain has it.
        self._place = start
        self.prev = prev
        self._delivered = self._merged = self._gapped = 0

    @property
    def place(self) -> Place:
        """The last event that was given out or passed."""
        return self._place

    def widened(self, form: Form, prev: str) -> Tail:
        """A tail for other systems that goes on here."""
        return Tail(self._sources, form, self._place, prev, self.opening)

    @property
    def ledger(self) -> Ledger:
        """The account as of now; published is what the hub has told since the start."""
        systems = self.form.systems
        owed = self._hub.head.count(systems) - self._place.count(systems)
        published = self._hub.head.count(systems) - self._start.count(systems)
        return Ledger(published, self._delivered, self._merged, self._gapped, max(0, owed))

    def live(self) -> bytes | None:
        """New frames from the ring; None: there are none, or `behind` says so."""
        channel = self._channel
        if channel is None or self._index == channel.end or self.behind:
            return None
        data, place = channel.since(self._index)
        self._delivered += channel.end - self._index
        self._index = channel.end
        self._place = parse_place(place)
        self.prev = channel.prev
        return data or None

    @property
    def current(self) -> bool:
        """Everything that was told has been given out."""
        return self._channel is not None and self._index == self._channel.end

    @property
    def behind(self) -> bool:
        """The ring has not, or no longer, what comes next: read the journal."""
        if self._channel is not None and self._index < self._channel.start:
            self.leave()
        return self._channel is None

    def page(self) -> bytes | None:
        """The next portion: the opening, then the journal; None: at the head, live from here.

        Raises: EventsLost for a plain client that retention has passed.
        """
        opening = next(self.opening, None)
        if opening is not None:
            return text_frame(opening)
        sources = self._sources
        db = sources.store.reader
        db.execute("BEGIN")
        try:
            gone = journal.pruned(db)
            if gone.seq > self._place.seq:
                gap = self._pass(gone)
                if gap is not None:
                    return gap
            page = sources.pages.read(self.form, self._place.seq, self.prev, self._hub.head.seq)
        finally:
            db.execute("COMMIT")
        if page is None:
            self._join()
            return None
        self._place = parse_place(page.end)
        self.prev = page.prev
        self._delivered += page.delivered
        self._merged += page.merged
        return page.data

    def _pass(self, gone: Place) -> bytes | None:
        """Move over what retention took; the gap frame if any of it was ours."""
        systems = self.form.systems
        lost = gone.count(systems) - self._place.count(systems)
        self._place = gone
        if lost == 0:
            return None
        if not self.form.extended:
            raise EventsLost(f"{lost} events were removed by retention before they were taken")
        store = self._sources.store
        last = journal.last_before(store.reader, systems, gone.seq)
        to = journal.format_cursor(store.epoch, str(last or gone))
        frame = self._sources.renderer.gap(self.form, self.prev, to, lost)
        self._gapped += lost
        self.prev = to
        return frame

    def _join(self) -> None:
        """At the head: from here on the ring has what comes."""
        self._channel = self._hub.channel(self.form)
        self._index = self._channel.end
        self._place = self._hub.head

    def follow(self, tell: Callable[[], object]) -> None:
        """Be told of new frames in the ring, once `page` has led there."""
        if self._channel is not None:
            self._channel.subscribers[tell] = None
            self._tell = tell

    def leave(self) -> None:
        """Be told no more."""
        if self._channel is not None and self._tell is not None:
            self._channel.subscribers.pop(self._tell, None)
        self._channel = self._tell = None
