"""Pages of the journal as frames, for readers that are behind; shared by those at one place.

Made in the store's reading thread, with what renders there: no reader costs the loop more than
handing a page to its socket.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Final

from server.delivery.byte_cache import ByteCache
from server.delivery.frames import DISPATCHER, Form, Renderer
from sysadmd import journal
from sysadmd.journal import Event, Place, parse_place

# Events of one page; the thread turns to others after each.
PAGE_EVENTS: Final = 128
# A page ends once it has this many bytes; one more event of up to 512 KiB may be in it.
PAGE_SIZE: Final = 64 * 1024
# And once it has taken the thread so long: others have turns between two; s.
PAGE_TIME: Final = 0.01
# Bytes of whole pages kept for other readers at the same position: of 200 clients that all
# start at the oldest event the first has each page read and rendered.
PAGES_KEPT: Final = 4 * 1024 * 1024
# What one takes beside its frames.
_PAGE: Final = 1024


@dataclass(frozen=True, slots=True)
class Page:
    """Some events in a row as bytes. `end`, `prev`: the position behind them.

    delivered, merged: events that are frames of their own here, and those inside another's.
    last: there was nothing behind it.
    """

    data: bytes
    end: Place
    prev: str
    delivered: int
    merged: int
    last: bool


@dataclass(frozen=True, slots=True)
class Gone:
    """Retention has passed a reader, up to `place`. last: the newest of its systems' events up
    to there; None: there never was one."""

    place: Place
    last: Place | None


class Pages:
    """Reads and renders pages of the journal; keeps the newest whole ones for other readers."""

    def __init__(self, epoch: str, renderer: Renderer) -> None:
        """renderer: the reading thread's."""
        self._epoch = epoch
        self.renderer = renderer
        self._kept: ByteCache[tuple[Form, int, str], Page] = ByteCache(PAGES_KEPT)

    def read(
        self, db: Connection, form: Form, start: Place, prev: str, upto: Place
    ) -> Page | Gone:
        """What comes behind `start`, up to the place `upto`. In the reading thread."""
        gone = journal.pruned(db)
        if gone.seq > start.seq:
            return Gone(gone, journal.last_before(db, form.systems, gone.seq))
        key = (form, start.seq, prev)
        page = self._kept.get(key)
        if page is None:
            events = journal.read_after(db, form.systems, start.seq, upto.seq, PAGE_EVENTS)
            # A snapshot's place, and what follows a gap, may be ahead of what was told.
            end = max(start, upto, key=lambda place: place.seq)
            page = self._render(form, events, prev, end)
            if not page.last:
                # One that is not at the end is the same for all.
                self._kept.put(key, page, len(page.data) + _PAGE)
        return page

    def _render(self, form: Form, events: list[Event], prev: str, end: Place) -> Page:
        """end: where the reader is behind these events, if they are the last."""
        frames: list[bytes] = []
        size = merged = at = 0
        done = time.thread_time() + PAGE_TIME
        renderer = self.renderer
        renderer.prepare(events)
        frame = renderer.frame
        while at < len(events) and size < PAGE_SIZE:
            event, run = events[at], 1
            if event.system == DISPATCHER:
                # Only these may take long.
                if at and time.thread_time() >= done:
                    break
                if form.extended:
                    run = renderer.mergeable(events, at)
                    event = renderer.merge(events[at : at + run])
            data = frame(event, form, prev, merged=run)
            frames.append(data)
            size += len(data)
            merged += run - 1
            at += run
            prev = journal.format_cursor(self._epoch, event.place)
        # The last run of a page may go on in the next one.
        last = at == len(events) < PAGE_EVENTS
        if not last:
            end = parse_place(events[at - 1].place)
        return Page(b"".join(frames), end, prev, len(frames), merged, last)
