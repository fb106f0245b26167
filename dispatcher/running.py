"""A running job as the daemon has it in memory, and an end that was decided for one: values."""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.identity import Identity
from sysadmd.journal import Note, no_note


@dataclass(slots=True)
class Running:
    """A running job and its present command.

    identity: None: not read in the book yet. orphaned: guard and keeper are dead, so nobody
    will tell its end. heard: loop time of its last running event. size: of its log when
    progress was last looked at. event_system: the class that queued it.
    """

    uid: int
    queue: str | None
    n: int
    deadline: float | None = None
    identity: Identity | None = None
    orphaned: bool = False
    heard: float = 0.0
    size: int = 0
    event_system: str | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a running job ends, decided while nothing could be written; note: to go with it."""

    word: str
    note: Note = no_note
