"""Is the history whole? Looks through the journal from its oldest event to its newest."""

from __future__ import annotations

from dataclasses import dataclass
from sqlite3 import Connection

from sysadmd import chain, journal
from sysadmd.errors import SysadmdError
from sysadmd.journal import Event, Place, parse_place


class HistoryBroken(SysadmdError):
    """An event is not as it was told, or not there. `seq`: the first of which that is so."""

    code = "history-broken"

    def __init__(self, seq: int, what: str) -> None:
        super().__init__(f"the history is broken at event {seq}: {what}")
        self.seq = seq


@dataclass(frozen=True, slots=True)
class Whole:
    """The history is as it was told, up to `end`.

    events: how many are kept. unmarked: how many of them were told before there were marks, and
    can only be counted.
    """

    end: Place
    events: int
    unmarked: int


def verify(db: Connection) -> Whole:
    """Check each event that is kept against its predecessor. Raises: HistoryBroken."""
    before = journal.pruned(db)
    time = events = unmarked = 0
    for event in journal.all_events(db):
        try:
            _check(before, event)
            if event.time < time:
                raise HistoryBroken(event.seq, "its time is before that of the event before it")
        except (TypeError, AttributeError) as error:
            # A column holds what it never does: SQLite lets anything into any.
            raise HistoryBroken(event.seq, "it can't be read") from error
        before, time = parse_place(event.place), event.time
        events += 1
        unmarked += not before.mark
    return Whole(before, events, unmarked)


def _check(before: Place, event: Event) -> None:
    """Raises: HistoryBroken if this isn't the event that came after that place."""
    if event.seq != before.seq + 1:
        raise HistoryBroken(
            before.seq + 1, f"it is not there; the next one that is there is {event.seq}"
        )
    try:
        place = parse_place(event.place)
    except ValueError:
        raise HistoryBroken(event.seq, "its place can't be read") from None
    systems = range(len(place.counts))
    counts = tuple(before.count((each,)) + (each == event.system) for each in systems)
    if (place.seq, place.counts) != (event.seq, counts):
        raise HistoryBroken(event.seq, "its place does not follow from that before it")
    if not place.mark and before.mark:
        raise HistoryBroken(event.seq, "it has no mark, and the one before it has")
    said = journal.said(
        event.place.rpartition(":")[0], event.time, event.wall, event.system, event.format
    )
    if place.mark and not chain.is_mark(place.mark, before.mark, said, event.body):
        raise HistoryBroken(
            event.seq,
            "its mark is not that of what it says, or an event before it was replaced",
        )
