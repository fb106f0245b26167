"""What is told again of jobs that wait, to who hears in the original's words. No socket.

The original told each of its classes' jobs every 2 s while it waited, and its client's pages,
which may be opened at any time, make rows from that.
"""

from __future__ import annotations

import time
from typing import Final

from dispatcher import events, records
from server.delivery.frames import Form, Renderer
from server.delivery.hub import Hub
from sysadmd.journal import Event
from sysadmd.store import Store

# s; source: the original server.
EVERY: Final = 2.0
# The first of a queue, as many as these bytes of JSON hold: more than any page shows, and all
# are told each time.
MOST: Final = 64
SIZE: Final = 64 * 1024


class WaitingJobs:
    """Jobs of classes that wait, as frames; what waits changes with an event alone."""

    def __init__(self, store: Store, hub: Hub, renderer: Renderer) -> None:
        self._store = store
        self._hub = hub
        self._renderer = renderer
        self._seq = -1
        self._frames: tuple[bytes, ...] = ()

    def frames(self, form: Form) -> tuple[bytes, ...]:
        """The JSON text of each. They are true as of what was told last: none of them was told
        to run."""
        # All who are told have the same dialect.
        if self._seq != self._hub.head.seq:
            self._seq = self._hub.head.seq
            rows = records.waiting_of_classes(self._store.reader, MOST)
            frames: list[bytes] = []
            size = 0
            for row in rows:
                frame = self._frame(form, row.uid)
                if size + len(frame) <= SIZE:
                    frames.append(frame)
                    size += len(frame)
            self._frames = tuple(frames)
        return self._frames

    def _frame(self, form: Form, uid: int) -> bytes:
        now = round(time.time() * 1000)
        return self._renderer.again(form, Event(0, now, 0, "", events.body(uid, "pending")))
