"""Pages of the journal as frames, for readers that are behind; shared by those at one place."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from server.delivery.frames import Form, Renderer
from sysadmd import journal
from sysadmd.journal import Event
from sysadmd.store import Store

# Events of one page: what is rendered in one go without letting others wait.
PAGE_EVENTS: Final = 64
# A page ends once it has this many bytes; one more event of up to 512 KiB may be in it.
PAGE_SIZE: Final = 64 * 1024
# Whole pages kept for other readers at the same position: 200 clients that all start at the
# oldest event read and render each page once.
PAGES_KEPT: Final = 32


@dataclass(frozen=True, slots=True)
class Page:
    """Some events in a row as bytes. `end`, `prev`: the position behind them.

    delivered, merged: events that are frames of their own here, and those inside another's.
    """

    data: bytes
    end: str
    prev: str
    delivered: int
    merged: int


class Pages:
    """Reads and renders pages of the journal; keeps the newest whole ones for other readers."""

    def __init__(self, store: Store, renderer: Renderer) -> None:
        self._store = store
        self._renderer = renderer
        self._kept: OrderedDict[tuple[Form, int, str], Page] = OrderedDict()

    def read(self, form: Form, seq: int, prev: str, upto: int) -> Page | None:
        """The page behind `seq`, up to `upto`; None: nothing of these systems is there."""
        key = (form, seq, prev)
        page = self._kept.get(key)
        if page is not None:
            self._kept.move_to_end(key)
            return page
        events = journal.read_after(self._store.reader, form.systems, seq, upto, PAGE_EVENTS)
        if not events:
            return None
        page, whole = self._render(form, events, prev)
        if whole:
            self._kept[key] = page
            if len(self._kept) > PAGES_KEPT:
                self._kept.popitem(last=False)
        return page

    def _render(self, form: Form, events: list[Event], prev: str) -> tuple[Page, bool]:
        frames: list[bytes] = []
        size = merged = at = 0
        place = ""
        self._renderer.prepare(events)
        while at < len(events) and size < PAGE_SIZE:
            run = self._renderer.mergeable(events, at) if form.extended else 1
            event = self._renderer.merge(events[at : at + run])
            data = self._renderer.frame(event, form, prev, merged=run)
            frames.append(data)
            size += len(data)
            merged += run - 1
            at += run
            place = event.place
            prev = journal.format_cursor(self._store.epoch, place)
        # The last run of a page may go on in the next one; a whole page is the same for all.
        whole = at < len(events) or len(events) == PAGE_EVENTS
        return Page(b"".join(frames), place, prev, len(frames), merged), whole
