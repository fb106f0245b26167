"""The chain of marks: a whole history is found whole, and any change of it is found."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysadmd import journal, verify
from sysadmd.errors import BadRequest
from sysadmd.events import SYSTEMS
from sysadmd.journal import Transaction
from sysadmd.schema import Step
from sysadmd.verify import HistoryBroken
from tests.kit.state_file import tables

_, add_marks = journal.SCHEMA
EPOCH = "0123456789abcdef"
# System, and what the wall clock says, of one event after the other.
Told = list[tuple[str, float]]
histories = st.lists(
    st.tuples(st.sampled_from(SYSTEMS), st.floats(0, 2e9)), min_size=1, max_size=12
)
TEN: Told = [(SYSTEMS[n % 3], 1000.0 + n) for n in range(10)]


@contextmanager
def history(
    told: Told, steps: Sequence[Step] = journal.SCHEMA
) -> Generator[sqlite3.Connection]:
    with closing(tables(steps)) as db:
        tell(db, told)
        yield db


def tell(db: sqlite3.Connection, told: Told) -> None:
    for n, (system, at) in enumerate(told):
        journal.append(Transaction(db), system, b'{"n":%d}' % n, at)


def cursors(db: sqlite3.Connection) -> list[str]:
    rows = db.execute("SELECT place FROM events ORDER BY seq")
    return [journal.format_cursor(EPOCH, place) for (place,) in rows]


def broken_at(db: sqlite3.Connection) -> int:
    with pytest.raises(HistoryBroken) as broken:
        verify.verify(db)
    return broken.value.seq


@given(histories, st.integers(0, 12))
def test_what_was_told_is_whole_also_behind_what_retention_took(told: Told, upto: int) -> None:
    with history(told) as db:
        journal.prune(db, upto)
        tell(db, TEN)
        whole = verify.verify(db)
        assert whole.events == 10 + max(0, len(told) - upto)
        assert whole.unmarked == 0
        assert whole.end == journal.head(db)


@given(histories, st.data())
def test_no_column_of_any_event_can_be_changed_unseen(told: Told, data: st.DataObject) -> None:
    with history(told) as db:
        seq = data.draw(st.integers(1, len(told)))
        column = data.draw(
            st.sampled_from(("seq", "time", "system", "place", "body", "wall", "format"))
        )
        (old,) = db.execute(f"SELECT {column} FROM events WHERE seq = ?", (seq,)).fetchone()
        other: dict[str, Any] = {"seq": seq + 100, "place": f"{old}x", "body": b'{"n":77}'}
        new = other[column] if column in other else 7 if old is None else int(old) + 1
        db.execute(f"UPDATE events SET {column} = ? WHERE seq = ?", (new, seq))
        # A time that is later than the next one's is seen there at the latest.
        assert broken_at(db) == seq


@pytest.mark.parametrize("seq", [1, 5, 9])
def test_an_event_that_was_taken_out_is_missed(seq: int) -> None:
    with history(TEN) as db:
        db.execute("DELETE FROM events WHERE seq = ?", (seq,))
        assert broken_at(db) == seq


def test_an_event_can_not_be_put_in_with_a_mark_of_its_own() -> None:
    with history(TEN) as db, history(TEN) as other:
        row = other.execute("SELECT time, place, body FROM events WHERE seq = 4").fetchone()
        db.execute("UPDATE events SET time = ?, place = ?, body = ? WHERE seq = 4", row)
        assert broken_at(db) == 4


def test_events_of_before_there_were_marks_are_counted() -> None:
    with history([], journal.SCHEMA[:1]) as db:
        old = [(1, 1, 0, "1:1.0.0"), (2, 2, 2, "2:1.0.1"), (3, 3, 0, "3:2.0.1")]
        db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, '{}')", old)
        add_marks(db)
        tell(db, TEN)
        whole = verify.verify(db)
        assert (whole.events, whole.unmarked) == (13, 3)
        # And a client's cursors of then are good.
        for cursor in cursors(db):
            assert str(journal.parse_cursor(db, EPOCH, cursor)) == cursor.partition(":")[2]
        db.execute("UPDATE events SET place = '8:4.2.2' WHERE seq = 8")
        assert broken_at(db) == 8


def test_steps_back_of_an_older_journal_are_mended_and_kept() -> None:
    with history([], journal.SCHEMA[:1]) as db:
        for seq, time in enumerate((10, 50, 20, 49, 60, 3), 1):
            db.execute(
                f"INSERT INTO events VALUES (?, ?, 0, '{seq}:{seq}.0.0', '')", (seq, time)
            )
        add_marks(db)
        rows = db.execute("SELECT time, wall FROM events ORDER BY seq").fetchall()
        assert rows == [(10, None), (50, None), (50, 20), (50, 49), (60, None), (60, 3)]


@given(histories, st.integers(0, 12))
def test_the_journals_time_never_goes_back_and_the_clocks_is_kept(
    told: Told, upto: int
) -> None:
    with history(told) as db:
        rows = db.execute("SELECT time, wall FROM events ORDER BY seq").fetchall()
        times = [time for time, _ in rows]
        assert times == sorted(times)
        said = [time if wall is None else wall for time, wall in rows]
        assert said == [round(at * 1000) for _, at in told]
        # Not even over what retention took, be it all.
        journal.prune(db, upto)
        (event,) = journal.append_many(Transaction(db), "dispatcher", (b"{}",), 0.5)
        assert event.time == max(times[-1], 500)


def test_a_window_misses_nothing_after_a_spell_with_a_wrong_clock() -> None:
    day = 86400.0
    told = [
        *((SYSTEMS[0], 20_000 * day + n) for n in range(95)),
        *((SYSTEMS[0], day + n) for n in range(20)),
        *((SYSTEMS[0], 20_000 * day + 3600 + n) for n in range(94)),
    ]
    with history(told) as db:
        for first, last, seqs in (
            (20_000 * day, 20_001 * day, (1, 209)),
            (20_000 * day + 3600, 20_001 * day, (116, 209)),
            (20_000 * day + 10, 20_000 * day + 20, (11, 21)),
            (day, day + 10, (1, 106)),
            (day - 20, day - 10, (1, 0)),
        ):
            window = round(first * 1000), round(last * 1000)
            after = begin = journal.seq_before(db, window[0])
            while (upto := journal.read_until(db, 0, *window, after)) > after:
                after = upto
            assert (begin + 1, after) == seqs


@pytest.mark.parametrize("column", ["time", "place", "body", "wall", "format", "system"])
@pytest.mark.parametrize("value", [None, "text", 7, 7.5, b"bytes", b"\xff", 10**9])
def test_whatever_stands_in_a_column_is_found(column: str, value: object) -> None:
    with history(TEN) as db:
        (there,) = db.execute(f"SELECT {column} FROM events WHERE seq = 5").fetchone()
        with contextlib.suppress(sqlite3.IntegrityError):
            db.execute(f"UPDATE events SET {column} = ? WHERE seq = 5", (value,))
            (found,) = db.execute(f"SELECT {column} FROM events WHERE seq = 5").fetchone()
            if found != there:
                assert broken_at(db) == 5


def test_the_same_numbers_in_another_history_are_not_the_same_cursors() -> None:
    """Two that went on from one copy, told the same at the same moments."""
    with history(TEN[:4]) as one, history([]) as two:
        one.backup(two)
        for db in (one, two):
            tell(db, TEN[4:])
        for cursor in cursors(one)[:4]:
            journal.parse_cursor(two, EPOCH, cursor)
        for cursor in cursors(one)[4:]:
            with pytest.raises(BadRequest, match="put back to an earlier time"):
                journal.parse_cursor(two, EPOCH, cursor)
        tell(one, TEN)
        with pytest.raises(BadRequest, match="ahead of the newest"):
            journal.parse_cursor(two, EPOCH, cursors(one)[-1])


def test_of_what_retention_took_only_the_last_of_each_system_is_known() -> None:
    with history(TEN) as db:
        old = cursors(db)
        journal.prune(db, 8)
        places = [journal.parse_cursor(db, EPOCH, cursor) for cursor in old]
        assert [journal.is_known(db, place) for place in places] == [False] * 5 + [True] * 5
        forged = old[7][:-1] + ("A" if old[7][-1] != "A" else "Q")
        with pytest.raises(BadRequest, match="put back to an earlier time"):
            journal.parse_cursor(db, EPOCH, forged)


def test_one_more_system_breaks_no_cursor_and_no_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    with history(TEN) as db:
        old = cursors(db)
        journal.prune(db, 3)
        monkeypatch.setattr(journal, "SYSTEMS", (*SYSTEMS, "bridge"))
        tell(db, [("bridge", 2000.0), ("dispatcher", 2001.0)])
        assert verify.verify(db).events == 9
        for cursor in (f"{EPOCH}:0:0.0.0", *old, *cursors(db)[-2:]):
            place = journal.parse_cursor(db, EPOCH, cursor)
            # Clients compare them as texts.
            assert journal.format_cursor(EPOCH, str(place)) == cursor
        assert journal.head(db).count((0, 3)) == 6
