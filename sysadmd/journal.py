"""The event journal: one order of everything that was told. Rows and cursors; no wire.

Events have a global `seq` without holes. Retention takes the oldest first, so what is pruned
is always a prefix of the journal. Each event carries its *place*: its seq and, for every
system, how many events that system had had by then. Two places therefore tell exactly how many
events of any set of systems lie between them, even when the events themselves are gone.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from sqlite3 import Connection
from typing import Final

import msgspec

from sysadmd.errors import BadRequest
from sysadmd.events import SYSTEMS

SCHEMA: Final = (
    """
    CREATE TABLE journal (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        epoch TEXT NOT NULL             -- birth mark: a cursor of another journal is recognised
    );
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        time INTEGER NOT NULL,          -- ms since 1970, wall clock
        system INTEGER NOT NULL,
        place TEXT NOT NULL,
        body BLOB NOT NULL              -- JSON
    );
    CREATE INDEX events_by_system ON events (system, seq);
    CREATE TABLE pruned (               -- the newest event of each system that is gone
        system INTEGER PRIMARY KEY,
        seq INTEGER NOT NULL,
        place TEXT NOT NULL
    );
    """,
)

_CURSOR = re.compile(
    r"([0-9a-f]{16}):([0-9]{1,18}):([0-9]{1,18}(?:\.[0-9]{1,18}){0,9})", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Place:
    """A position in the journal: `seq`, and the number of events of each system up to it."""

    seq: int
    counts: tuple[int, ...]

    def count(self, systems: Iterable[int]) -> int:
        """How many events of these systems stand at or before this place."""
        return sum(self.counts[system] for system in systems)

    def __str__(self) -> str:
        return f"{self.seq}:{'.'.join(map(str, self.counts))}"


START: Final = Place(0, (0,) * len(SYSTEMS))


def parse_place(text: str) -> Place:
    """The inverse of `str(place)`; only for text that this module wrote."""
    seq, _, counts = text.partition(":")
    return Place(int(seq), tuple(map(int, counts.split("."))))


class Event(msgspec.Struct, frozen=True):
    """One stored fact. `place` is the text of its Place, ready for a cursor; `body` is JSON."""

    seq: int
    time: int
    system: int
    place: str
    body: bytes


@dataclass(slots=True)
class Transaction:
    """One change under way: the connection, and the events that become true when it commits.

    wiped: it has taken a secret out of the tables, which is to be nowhere in the files either.
    """

    db: Connection
    events: list[Event] = field(default_factory=list[Event])
    wiped: bool = False


# What is to be committed together with a change, or not at all.
Note = Callable[[Transaction], object]


def no_note(*_: object) -> None:
    """Nothing more is to be committed."""


def ensure_epoch(db: Connection) -> str:
    """The journal's birth mark, made when the database is new."""
    row = db.execute("SELECT epoch FROM journal").fetchone()
    if row is not None:
        return str(row[0])
    epoch = secrets.token_hex(8)
    db.execute("INSERT INTO journal VALUES (1, ?)", (epoch,))
    return epoch


def append(change: Transaction, system: str, body: bytes, at: float) -> Event:
    """Add an event to the transaction; it is told when, and only when, that commits.

    at: seconds since 1970. body: a JSON object.
    """
    return append_many(change, system, (body,), at)[0]


def append_many(
    change: Transaction, system: str, bodies: Iterable[bytes], at: float
) -> list[Event]:
    """Add several events of one system and moment, in this order."""
    number = SYSTEMS.index(system)
    last = head(change.db)
    counts = list(last.counts)
    time = round(at * 1000)
    events: list[Event] = []
    for seq, body in enumerate(bodies, last.seq + 1):
        counts[number] += 1
        place = f"{seq}:{'.'.join(map(str, counts))}"
        events.append(Event(seq, time, number, place, body))
    change.db.executemany(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
        [(e.seq, e.time, e.system, e.place, e.body) for e in events],
    )
    change.events += events
    return events


def head(db: Connection) -> Place:
    """The place of the newest event."""
    row = db.execute("SELECT place FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    return parse_place(row[0]) if row else pruned(db)


def pruned(db: Connection) -> Place:
    """The place of the newest event that retention has taken; START when there is none."""
    row = db.execute("SELECT place FROM pruned ORDER BY seq DESC LIMIT 1").fetchone()
    return parse_place(row[0]) if row else START


def last_before(db: Connection, systems: Iterable[int], seq: int) -> Place | None:
    """The newest event of these systems at or before `seq`, kept or pruned.

    None: there was none, or it is gone and a newer one of its system is gone, too.
    """
    best: Place | None = None
    for system in systems:
        row = (
            db.execute(
                "SELECT place FROM events WHERE system = ? AND seq <= ?"
                " ORDER BY seq DESC LIMIT 1",
                (system, seq),
            ).fetchone()
            or db.execute(
                "SELECT place FROM pruned WHERE system = ? AND seq <= ?", (system, seq)
            ).fetchone()
        )
        if row:
            place = parse_place(row[0])
            if best is None or place.seq > best.seq:
                best = place
    return best


def last_event(db: Connection, system: str, seq: int) -> Event | None:
    """The newest kept event of a system at or before `seq`."""
    row = db.execute(
        "SELECT seq, time, system, place, body FROM events"
        " WHERE system = ? AND seq <= ? ORDER BY seq DESC LIMIT 1",
        (SYSTEMS.index(system), seq),
    ).fetchone()
    return Event(*row) if row else None


def read_after(
    db: Connection, systems: frozenset[int], seq: int, upto: int, limit: int
) -> list[Event]:
    """At most `limit` events of these systems with seq < event.seq <= upto, oldest first."""
    if len(systems) == len(SYSTEMS):
        rows = db.execute(
            "SELECT seq, time, system, place, body FROM events"
            " WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
            (seq, upto, limit),
        )
    else:
        # One index range per system, merged: a rare system is found without reading the others.
        each = " UNION ALL ".join(
            "SELECT * FROM (SELECT seq, time, system, place, body FROM events"
            " WHERE system = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?)"
            for _ in systems
        )
        values = [value for system in sorted(systems) for value in (system, seq, upto, limit)]
        rows = db.execute(f"{each} ORDER BY 1 LIMIT ?", (*values, limit))
    return [Event(*row) for row in rows]


def seq_before(db: Connection, time: int) -> int:
    """A seq below that of every event told at or after `time` (ms since 1970), and near it.

    Events are in order of time but for steps of the clock; a binary search finds the place as
    long as it did not step, and else errs by what it stepped over.
    """
    low, high = pruned(db).seq, head(db).seq
    while low < high:
        middle = (low + high + 1) // 2
        row = db.execute("SELECT time FROM events WHERE seq = ?", (middle,)).fetchone()
        if row is None or row[0] < time:
            low = middle
        else:
            high = middle - 1
    return low


def prune(db: Connection, upto: int) -> int:
    """Take every event with seq <= upto out of the journal; returns how many went."""
    for system in range(len(SYSTEMS)):
        row = db.execute(
            "SELECT seq, place FROM events WHERE system = ? AND seq <= ?"
            " ORDER BY seq DESC LIMIT 1",
            (system, upto),
        ).fetchone()
        if row:
            db.execute("INSERT OR REPLACE INTO pruned VALUES (?, ?, ?)", (system, *row))
    return db.execute("DELETE FROM events WHERE seq <= ?", (upto,)).rowcount


def sizes(db: Connection, after: int, limit: int) -> Iterator[tuple[int, int, int]]:
    """(seq, time, bytes) of at most `limit` events with seq > after, oldest first."""
    yield from db.execute(
        "SELECT seq, time, length(body) + length(place) + 24 FROM events"
        " WHERE seq > ? ORDER BY seq LIMIT ?",
        (after, limit),
    )


def format_cursor(epoch: str, place: str) -> str:
    """The opaque string that a client holds for a place."""
    return f"{epoch}:{place}"


def parse_cursor(db: Connection, epoch: str, text: str) -> Place:
    """The place that a client's cursor names.

    Raises: BadRequest if it is malformed, of another journal, or ahead of this one.
    """
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise BadRequest("since is not a cursor; take one from a reply or an event's frame")
    if match[1] != epoch:
        raise BadRequest(
            "since is a cursor of another database; start again with a snapshot or 'oldest'"
        )
    place = parse_place(f"{match[2]}:{match[3]}")
    if len(place.counts) != len(SYSTEMS) or sum(place.counts) != place.seq:
        raise BadRequest("since is not a cursor of this database; take one from a frame")
    if place.seq > head(db).seq:
        raise BadRequest("since is ahead of the newest event; it was not made by this database")
    row = db.execute("SELECT place FROM events WHERE seq = ?", (place.seq,)).fetchone()
    gone = pruned(db)
    honest = row[0] == str(place) if row else all(map(int.__le__, place.counts, gone.counts))
    if not honest:
        raise BadRequest("since is not a cursor of this database; take one from a frame")
    return place
