"""Events as the bytes of WebSocket frames, in every form that clients ask for. No socket.

Source: docs/protocol.md, "Resume", for the extension; how it is written is the dialect's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from server.delivery.job_events import JobEvents
from server.dialects import DIALECTS, Dialect
from server.dialects.values import rfc3339
from server.wire.protocol import FRAME_LIMIT, text_frame
from sysadmd.events import SYSTEMS
from sysadmd.journal import Event

# Of a frame, what is not `args`: names, cursors, time.
_ENVELOPE: Final = 1024

DISPATCHER: Final = SYSTEMS.index("dispatcher")
_LIFE_PRESERVER: Final = SYSTEMS.index("life-preserver")
_SYSTEM_STATE: Final = SYSTEMS.index("system-state")


@dataclass(frozen=True, slots=True)
class Form:
    """In which form a client hears events; all clients of one form get the same bytes."""

    dialect: Dialect
    extended: bool
    systems: frozenset[int]

    @property
    def repeats(self) -> bool:
        """Jobs that wait are told of again and again."""
        return self.dialect.lists_pending and not self.extended and DISPATCHER in self.systems


class Renderer:
    """Makes frames of events."""

    def __init__(self, jobs: JobEvents) -> None:
        self._jobs = jobs
        # The newest event's `args`: each channel of a dialect wants the same text.
        self._made: tuple[Event, Dialect, int, bytes] | None = None
        self._heads = {
            dialect: tuple(
                b'{"namespace":"events","name":"%s","id":"%s","args":'
                % (name.encode(), dialect.event_id.encode())
                for name in dialect.event_names
            )
            for dialect in DIALECTS.values()
        }

    def frame(self, event: Event, form: Form, prev: str, *, merged: int = 1) -> bytes:
        """One event's frame; b"" for one that the dialect does not have.

        prev: the cursor of the event before it in this form.
        """
        head = self._heads[form.dialect][event.system]
        args = self.args(event, form.dialect)
        if not args:
            return b""
        if not form.extended:
            frame = text_frame(head + args + b"}")
            notice = self._notice(event, form.dialect)
            return text_frame(head + notice + b"}") + frame if notice else frame
        cursor = f"{self._jobs.epoch}:{event.place}"
        more = f',"merged":{merged}' if merged > 1 else ""
        tail = f',"cursor":"{cursor}","prev":"{prev}","time":"{rfc3339(event.time)}"{more}}}'
        return text_frame(head + args + tail.encode())

    def args(
        self, event: Event, dialect: Dialect, limit: int = FRAME_LIMIT - _ENVELOPE
    ) -> bytes:
        """The JSON text of an event's `args`; a job's has at most `limit` bytes."""
        made = self._made
        if made is not None and made[0] is event and made[1:3] == (dialect, limit):
            return made[3]
        if event.system == DISPATCHER:
            args = self._jobs.args(event, dialect, limit)
        elif event.system == _LIFE_PRESERVER:
            args = dialect.life_preserver(event)
        else:
            args = dialect.system_state(event.body)
        self._made = (event, dialect, limit, args)
        return args

    def _notice(self, event: Event, dialect: Dialect) -> bytes:
        if event.system != DISPATCHER or not dialect.has_notices:
            return b""
        return self._jobs.notice(event, dialect)

    def prepare(self, page: Sequence[Event]) -> None:
        """Read together what these events need, which are told next."""
        self._jobs.prepare(page)

    def notable(self, event: Event, *, finished: bool) -> bool:
        """Does the log of dispatcher events name it? finished: only the ends of jobs."""
        return self._jobs.notable(event, finished=finished)

    def mergeable(self, events: Sequence[Event], at: int) -> int:
        """How many events from `at` on may be told as one: progress of one command in a row."""
        return self._jobs.mergeable(events, at) if events[at].system == DISPATCHER else 1

    def merge(self, events: Sequence[Event]) -> Event:
        """One event that stands for several mergeable ones."""
        return events[0] if len(events) == 1 else self._jobs.merge(events)

    def state(self, form: Form, body: bytes) -> bytes:
        """The JSON text that tells the state as it is now, in the form of an event."""
        head = self._heads[form.dialect][_SYSTEM_STATE]
        return head + form.dialect.system_state(body) + b"}"

    def again(self, form: Form, event: Event) -> bytes:
        """The JSON text that tells an event once more: nothing of the extension is in it."""
        return self._heads[form.dialect][event.system] + self.args(event, form.dialect) + b"}"

    def gap(self, form: Form, start: str, end: str, lost: int) -> bytes:
        """The frame that says how many events of these systems are gone for good."""
        args = {"from": start, "to": end, "count": lost, "reason": "retention"}
        return text_frame(self._note("gap", form, args, cursor=end, prev=start))

    def heartbeat(self, form: Form, cursor: str, prev: str) -> bytes:
        """The JSON text that says: alive, and nothing new up to `cursor`."""
        return self._note("heartbeat", form, {"cursor": cursor, "prev": prev}, cursor, prev)

    def caught_up(self, form: Form, cursor: str, prev: str) -> bytes:
        """The frame that says: all that there was at the subscription has been told."""
        args = {"cursor": cursor, "prev": prev, "caught_up": True}
        return text_frame(self._note("heartbeat", form, args, cursor, prev))

    def _note(
        self, name: str, form: Form, args: dict[str, Any], cursor: str, prev: str
    ) -> bytes:
        return msgspec.json.encode(
            {
                "namespace": "events",
                "name": name,
                "id": form.dialect.event_id,
                "args": args,
                "cursor": cursor,
                "prev": prev,
                "time": rfc3339(round(time.time() * 1000)),
            }
        )
