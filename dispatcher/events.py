"""What the journal keeps of a dispatcher event: which job, how far it had got. No log text."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from sysadmd import journal
from sysadmd.journal import Transaction

SYSTEM: Final = "dispatcher"


class Told(msgspec.Struct, frozen=True):
    """The body of an event.

    running: the commands before `command` have ended, it runs, and the bytes start..end of its
    log are new. fields: what its class tells then, in an event of progress. finished: the
    record says all.
    """

    job: int
    state: str
    command: int = 0
    start: int = msgspec.field(default=0, name="from")
    end: int = msgspec.field(default=0, name="to")
    fields: dict[str, Any] | None = None

    @property
    def is_start(self) -> bool:
        """Is it the job's first start?"""
        return self.state == "running" and not self.command and not self.is_progress

    @property
    def is_progress(self) -> bool:
        """Is it of nothing but a log that has grown, or of what its class tells?"""
        return self.state == "running" and (self.end > self.start or self.fields is not None)


decode: Final = msgspec.json.Decoder(Told).decode


def tell(change: Transaction, at: float, uid: int, state: str, **more: object) -> int:
    """Append a dispatcher event; returns its seq. at: s since 1970; more: as in `Told`."""
    return journal.append(change, SYSTEM, body(uid, state, **more), at).seq


def body(uid: int, state: str, **more: object) -> bytes:
    """The body of an event. more: as in `Told`."""
    command = more.get("command")
    # With each job, and what the encoder would make of it.
    if not more:
        return b'{"job":%d,"state":"%b"}' % (uid, state.encode())
    if len(more) == 1 and isinstance(command, int):
        return b'{"job":%d,"state":"%b","command":%d}' % (uid, state.encode(), command)
    return json.dumps({"job": uid, "state": state, **more}, separators=(",", ":")).encode()
