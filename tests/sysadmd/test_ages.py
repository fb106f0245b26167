"""How old rows are, as the tables have it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

import pytest

from sysadmd import ages
from sysadmd.passage import Passage
from tests.kit.state_file import tables


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(tables(ages.SCHEMA)) as db:
        yield db


def test_a_look_is_kept_as_it_was_and_replaces_the_one_before(db: sqlite3.Connection) -> None:
    assert ages.last_look(db) is None
    first = Passage(boot="a", uptime=60.0, wall=1e9)
    looks = [first, first.seen("a", 120.0, 1e9 + 60), first.seen("b", 1.0, 2e9)]
    for look in [*looks, looks[-1].seen("b", 2e5, 2e9 + 2e5)]:
        ages.keep_look(db, look)
        assert ages.last_look(db) == look


def test_rows_are_as_old_as_when_they_were_first_noted(db: sqlite3.Connection) -> None:
    for upto, passed in ((0, 0.0), (10, 100.0), (10, 200.0), (15, 300.0)):
        ages.note(db, "events", upto, passed)
    ages.note(db, "audit", 7, 50.0)
    assert [ages.older(db, "events", at) for at in (99.0, 100.0, 299.0, 300.0)] == [
        0,
        10,
        10,
        15,
    ]
    assert (ages.newest(db, "events"), ages.newest(db, "audit")) == (15, 7)
    assert ages.newest(db, "others") == ages.older(db, "others", 1e9) == 0


def test_what_nobody_asks_for_any_more_is_forgotten(db: sqlite3.Connection) -> None:
    for number in range(1, 11):
        ages.note(db, "events", number, number * 100.0)
    ages.note(db, "audit", 1, 900.0)
    before = {at: ages.older(db, "events", at) for at in (450.0, 500.0, 1000.0)}
    ages.prune(db, 450.0)
    assert {at: ages.older(db, "events", at) for at in before} == before
    assert db.execute("SELECT count(*) FROM ages WHERE kind = 'events'").fetchone() == (7,)
    # The last one is needed for good: what stands up to it may still be there.
    ages.prune(db, 1e9)
    assert db.execute("SELECT kind, upto FROM ages").fetchall() == [
        ("audit", 1),
        ("events", 10),
    ]
