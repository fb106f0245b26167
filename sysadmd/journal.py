"""The event journal: one order of everything that was told. Rows and cursors; no wire.

Events have a global `seq` without holes. Retention takes the oldest first, so what is pruned
is always a prefix of the journal. Each event carries its *place*: its seq, for every system how
many events that system had had by then, and its mark (sysadmd/chain.py). Two places therefore
tell exactly how many events of any set of systems lie between them, even when the events
themselves are gone, and a place of another history is recognised.

An event's `time` is never below its predecessor's: where the wall clock was set back, what it
said is kept beside it.
"""

# ruff: noqa: S608 - the texts of queries are put together of constants alone

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from sqlite3 import Connection
from typing import Any, Final

import msgspec

from sysadmd import chain
from sysadmd.errors import BadRequest
from sysadmd.events import SYSTEMS


def _add_marks(db: Connection) -> None:
    """Places get their marks from here on, and no event's time is below the one before it."""
    # What the wall clock said, if not `time`; what the body is like.
    db.execute("ALTER TABLE events ADD COLUMN wall INTEGER")
    db.execute("ALTER TABLE events ADD COLUMN format INTEGER NOT NULL DEFAULT 1")
    db.execute("ALTER TABLE pruned ADD COLUMN time INTEGER NOT NULL DEFAULT 0")
    db.execute("CREATE INDEX events_by_wall ON events (wall) WHERE wall IS NOT NULL")
    seq = highest = 0
    # In parts: for millions one statement would need hundreds of MiB.
    while rows := db.execute(
        "SELECT seq, time FROM events WHERE seq > ? ORDER BY seq LIMIT 10000", (seq,)
    ).fetchall():
        back: list[tuple[int, int, int]] = []
        for seq, time in rows:
            highest = max(highest, time)
            if time < highest:
                back.append((highest, time, seq))
        db.executemany("UPDATE events SET time = ?, wall = ? WHERE seq = ?", back)


SCHEMA: Final = (
    """
    CREATE TABLE journal (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        epoch TEXT NOT NULL             -- birth mark: a cursor of another journal is recognised
    );
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        time INTEGER NOT NULL,          -- ms since 1970
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
    _add_marks,
)

# What bodies are like today. None is ever rewritten: its mark covers it. Who changes what they
# are like counts this up, and reads all that were. 2: Life Preserver's have the line's date.
FORMAT: Final = 2
# What the numbers of events are called where ages are told (`ages`).
KIND: Final = "events"

# Where clients may begin to hear.
SINCE: Final = (
    "a cursor (from a reply or an event's frame), a time with its offset from UTC, such as"
    ' 2026-11-24T18:00:02Z, a number of seconds ago (at most a century), "oldest" or "now"'
)
_CURSOR = re.compile(
    r"([0-9a-f]{16}):([0-9]{1,18}:[0-9]{1,18}(?:\.[0-9]{1,18}){0,9}(?::[\w-]{22})?)", re.ASCII
)
_COLUMNS: Final = "seq, time, system, place, body, wall, format"
# Many events as one row: all of them but the bodies as JSON, and the bodies one behind another.
# For each row that it fetches a thread gives the interpreter away, and must get it back.
_TOGETHER: Final = (
    "SELECT json_group_array(json_array(seq, time, system, place, length(CAST(body AS BLOB)),"
    " wall, format)), CAST(group_concat(body, '') AS BLOB) FROM"
)
_Outside = tuple[int, int, int, str, int, int | None, int]
_decode_outsides: Final = msgspec.json.Decoder(list[_Outside]).decode


@dataclass(frozen=True, slots=True)
class Place:
    """A position in the journal: `seq`, and the number of events of each system up to it.

    A system that came later has had none by then. mark: of the event there, "" for one that was
    told before there were marks.
    """

    seq: int
    counts: tuple[int, ...]
    mark: str = ""

    def count(self, systems: Iterable[int]) -> int:
        """How many events of these systems stand at or before this place."""
        return sum(self.counts[system] for system in systems if system < len(self.counts))

    def __str__(self) -> str:
        end = f":{self.mark}" if self.mark else ""
        return f"{self.seq}:{'.'.join(map(str, self.counts))}{end}"


START: Final = Place(0, (0,) * len(SYSTEMS))


def parse_place(text: str) -> Place:
    """The inverse of `str(place)`; only for text that this module wrote."""
    seq, counts, *mark = text.split(":")
    numbers = tuple(map(int, counts.split(".")))
    return Place(int(seq), numbers, mark[0] if mark else "")


class Event(msgspec.Struct, frozen=True):
    """One stored fact. `place` is the text of its Place, ready for a cursor; `body` is JSON.

    time: ms since 1970, never below the event's before it; wall: what the wall clock said, if
    that is something else.
    """

    seq: int
    time: int
    system: int
    place: str
    body: bytes
    wall: int | None = None
    format: int = FORMAT


def said(place: str, time: int, wall: int | None, system: int, format: int = FORMAT) -> str:
    """All of an event but its body, as its mark covers it. place: without the mark."""
    return f"{place} {time} {'' if wall is None else wall} {system} {format}"


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest event, kept or pruned: its time, ms since 1970, and its place."""

    time: int
    place: Place


@dataclass(slots=True)
class Transaction:
    """One change under way: the connection, and the events that become true when it commits.

    said: lines for the system's log, told then, too. wiped: it has taken a secret out of the
    tables, which is to be nowhere in the files either. newest: what is known of the newest
    event; None: it is to be looked for.
    """

    db: Connection
    events: list[Event] = field(default_factory=list[Event])
    said: list[str] = field(default_factory=list[str])
    wiped: bool = False
    newest: Newest | None = None


# What is to be committed together with a change, or not at all.
Note = Callable[[Transaction], object]


def no_note(*_: object) -> None:
    """Nothing more is to be committed."""


def renew_epoch(db: Connection) -> str:
    """Another birth mark: no cursor of before is taken any more. Returns it."""
    epoch = secrets.token_hex(8)
    db.execute("UPDATE journal SET epoch = ?", (epoch,))
    return epoch


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
    now = round(at * 1000)
    known = change.newest or newest(change.db)
    before, time = known.place, max(known.time, now)
    wall = None if now == time else now
    mark, salt = before.mark, chain.salt()
    # A system that came later has had none.
    counts = [*before.counts, *[0] * (len(SYSTEMS) - len(before.counts))]
    events: list[Event] = []
    seq = before.seq
    for seq, body in enumerate(bodies, before.seq + 1):
        counts[number] += 1
        place = f"{seq}:{'.'.join(map(str, counts))}"
        mark = chain.mark(mark, salt, said(place, time, wall, number), body)
        events.append(Event(seq, time, number, f"{place}:{mark}", body, wall))
    change.db.executemany(
        f"INSERT INTO events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(e.seq, e.time, e.system, e.place, e.body, e.wall, e.format) for e in events],
    )
    if events:
        change.events += events
        change.newest = Newest(time, Place(seq, tuple(counts), mark))
    return events


def newest(db: Connection) -> Newest:
    """At time 0 and START: there was none."""
    row = (
        db.execute("SELECT time, place FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        or db.execute("SELECT time, place FROM pruned ORDER BY seq DESC LIMIT 1").fetchone()
    )
    return Newest(row[0], parse_place(row[1])) if row else Newest(0, START)


def head(db: Connection) -> Place:
    """The place of the newest event."""
    return newest(db).place


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
        f"SELECT {_COLUMNS} FROM events"
        " WHERE system = ? AND seq <= ? ORDER BY seq DESC LIMIT 1",
        (SYSTEMS.index(system), seq),
    ).fetchone()
    return Event(*row) if row else None


def read_after(
    db: Connection, systems: frozenset[int], seq: int, upto: int, limit: int
) -> list[Event]:
    """At most `limit` events of these systems with seq < event.seq <= upto, oldest first."""
    if len(systems) == len(SYSTEMS):
        found = db.execute(
            f"{_TOGETHER} (SELECT {_COLUMNS} FROM events"
            " WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?)",
            (seq, upto, limit),
        )
    else:
        # One index range per system, merged: a rare system is found without reading the others.
        each = " UNION ALL ".join(
            f"SELECT * FROM (SELECT {_COLUMNS} FROM events"
            " WHERE system = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?)"
            for _ in systems
        )
        values = [value for system in sorted(systems) for value in (system, seq, upto, limit)]
        found = db.execute(f"{_TOGETHER} ({each} ORDER BY 1 LIMIT ?)", (*values, limit))
    outsides, bodies = found.fetchone()
    events: list[Event] = []
    start = 0
    for seq, time, system, place, size, wall, format in _decode_outsides(outsides):
        body = bodies[start : start + size]
        events.append(Event(seq, time, system, place, body, wall, format))
        start += size
    return events


def all_events(db: Connection) -> Iterator[Event]:
    """Those that are kept, oldest first, read as they are taken."""
    for row in db.execute(f"SELECT {_COLUMNS} FROM events ORDER BY seq"):
        yield Event(*row)


def seq_before(db: Connection, time: int) -> int:
    """The highest seq that is below that of every event told at or after `time`.

    time: ms since 1970, by the journal's time, and so by the wall clock too, which is never
    ahead of that.
    """
    return _last_of(db, head(db).seq, "time", lambda told: told < time)


def place_before(db: Connection, time: int) -> Place:
    """The place before every event told at or after `time`, as far as they are kept."""
    return _place_at(db, seq_before(db, time))


def place_before_last(
    db: Connection, systems: Collection[int], count: int, upto: Place
) -> Place:
    """The place before the last so many events of these systems up to `upto`; if fewer are
    kept, before all that are."""
    wanted = upto.count(systems) - count
    seq = _last_of(
        db, upto.seq, "place", lambda place: parse_place(place).count(systems) <= wanted
    )
    return _place_at(db, seq)


def _last_of(db: Connection, high: int, column: str, first: Callable[[Any], bool]) -> int:
    """The last seq up to `high` that is gone, or of which this is true. What is true of an
    event is so of all before it."""
    low = pruned(db).seq
    while low < high:
        middle = (low + high + 1) // 2
        row = db.execute(f"SELECT {column} FROM events WHERE seq = ?", (middle,)).fetchone()
        if row is None or first(row[0]):
            low = middle
        else:
            high = middle - 1
    return low


def _place_at(db: Connection, seq: int) -> Place:
    """The place of a kept event, or of the newest that is gone."""
    row = db.execute("SELECT place FROM events WHERE seq = ?", (seq,)).fetchone()
    return parse_place(row[0]) if row else pruned(db)


def read_until(db: Connection, system: int, first: int, last: int, after: int) -> int:
    """Up to which seq to read on behind `after` for what was told of a system between these
    moments, by the journal's time or by the wall clock (ms since 1970); not above `after`:
    there is no more."""
    until = seq_before(db, last + 1)
    if after < until:
        return until
    odd = db.execute(
        # The other index would have all that was told since looked through.
        "SELECT seq FROM events INDEXED BY events_by_wall"
        " WHERE wall >= ? AND wall <= ? AND system = ? AND seq > ? LIMIT 1",
        (first, last, system, after),
    ).fetchone()
    return odd[0] if odd else until


def prune(db: Connection, upto: int) -> int:
    """Take every event with seq <= upto out of the journal; returns how many went."""
    for system in range(len(SYSTEMS)):
        row = db.execute(
            "SELECT seq, place, time FROM events WHERE system = ? AND seq <= ?"
            " ORDER BY seq DESC LIMIT 1",
            (system, upto),
        ).fetchone()
        if row:
            db.execute(
                "INSERT OR REPLACE INTO pruned (system, seq, place, time) VALUES (?, ?, ?, ?)",
                (system, *row),
            )
    return db.execute("DELETE FROM events WHERE seq <= ?", (upto,)).rowcount


def sizes(db: Connection, after: int, limit: int) -> Iterator[tuple[int, int]]:
    """(seq, bytes) of at most `limit` events with seq > after, oldest first."""
    yield from db.execute(
        "SELECT seq, length(body) + length(place) + 24 FROM events"
        " WHERE seq > ? ORDER BY seq LIMIT ?",
        (after, limit),
    )


def format_cursor(epoch: str, place: str) -> str:
    """The opaque string that a client holds for a place."""
    return f"{epoch}:{place}"


def parse_cursor(db: Connection, epoch: str, text: str) -> Place:
    """The place that a client's cursor names.

    Raises: BadRequest if it is malformed, of another journal or another history of this one, or
    ahead of it.
    """
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise BadRequest(f"since must be {SINCE}")
    if match[1] != epoch:
        raise BadRequest(
            "since is a cursor of another database, or of before a backup was restored; start"
            " again with a snapshot or 'oldest'"
        )
    place = parse_place(match[2])
    if len(place.counts) > len(SYSTEMS) or sum(place.counts) != place.seq:
        raise BadRequest("since is not a cursor of this database; take one from a frame")
    if place.seq > head(db).seq:
        raise BadRequest(
            "since is ahead of the newest event: it was not made by this database, or that was"
            " put back to an earlier time; start again with a snapshot or 'oldest'"
        )
    ours = _is_ours(db, place)
    # Of most that are gone only the counts can be compared.
    if ours is None:
        ours = all(map(int.__le__, place.counts, pruned(db).counts))
    if not ours:
        raise BadRequest(
            "since names an event that this database does not have: it is of another one, or"
            " this one was put back to an earlier time and went on from there; start again with"
            " a snapshot or 'oldest'"
        )
    return place


def is_known(db: Connection, place: Place) -> bool:
    """Is the place that a cursor names known to be one of this history?

    Of most events that retention took it is not.
    """
    return bool(_is_ours(db, place))


def _is_ours(db: Connection, place: Place) -> bool | None:
    """Is it the place of an event of ours? None: that is gone, and its mark with it."""
    if place.seq == 0:
        return not place.mark
    row = (
        db.execute("SELECT place FROM events WHERE seq = ?", (place.seq,)).fetchone()
        or db.execute("SELECT place FROM pruned WHERE seq = ?", (place.seq,)).fetchone()
    )
    return parse_place(row[0]) == place if row else None
