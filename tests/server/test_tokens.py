"""Tokens and a clock that lies: none is lost to it, and none lives longer by it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator

import pytest

from server.login import tokens
from server.login.roles import Login, Role
from sysadmd.errors import Conflict
from sysadmd.journal import Transaction
from tests.kit.state_file import tables

DAY = 86400
NOW = 1_790_000_000.0


class Safe:
    """Tokens, and the clock that they go by."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.change = Transaction(db)
        self.now = NOW

    def add(self, name: str, days: int | None, *, renewed: bool = False) -> Login:
        """One whose text is its name."""
        seconds = None if days is None else days * DAY
        return tokens.add(
            self.change,
            name,
            account="root",
            role=Role.READ,
            name=name,
            seconds=seconds,
            renewed=renewed,
        )

    def tidy(self) -> None:
        tokens.tidy(self.change, self.now)

    def is_valid(self, name: str) -> bool:
        return tokens.find(self.db, name) is not None

    @property
    def kept(self) -> set[str]:
        return {name for (name,) in self.db.execute("SELECT name FROM tokens")}


@pytest.fixture
def safe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Safe]:
    with contextlib.closing(tables(tokens.SCHEMA)) as db:
        safe = Safe(db)
        monkeypatch.setattr(time, "time", lambda: safe.now)
        yield safe


def test_a_token_that_seems_to_have_run_out_is_valid_when_the_clock_is_right(
    safe: Safe,
) -> None:
    safe.add("week", 7)
    safe.now += 100 * DAY
    assert not safe.is_valid("week")
    safe.add("other", 7)
    safe.now = NOW
    assert safe.is_valid("week")


def test_what_has_run_out_goes_a_day_later(safe: Safe) -> None:
    safe.add("week", 7)
    safe.add("ever", None)
    safe.add("month", 30)
    safe.now += 7 * DAY + 3600
    safe.tidy()
    assert safe.kept == {"week", "ever", "month"}
    assert not safe.is_valid("week")
    safe.now += DAY
    safe.tidy()
    assert safe.kept == {"ever", "month"}


def test_the_name_of_a_token_that_has_run_out_is_free(safe: Safe) -> None:
    safe.add("week", 7)
    with pytest.raises(Conflict):
        safe.add("week", 7)
    safe.now += 8 * DAY
    safe.add("week", 7)
    assert safe.is_valid("week")
    assert [token.name for token in tokens.listed(safe.db)] == ["week"]


def test_no_token_lives_longer_because_the_clock_was_ahead(safe: Safe) -> None:
    used = safe.add("used", 7, renewed=True)
    safe.add("kept", 7)
    safe.now += 100 * DAY
    safe.add("made", 7)
    safe.add("ever", None)
    assert tokens.renew(safe.change, tokens.renewed(used))
    safe.now = NOW
    safe.tidy()
    assert {t.created for t in tokens.listed(safe.db)} == {round(NOW * 1000)}
    safe.now += 7 * DAY - 1
    assert all(map(safe.is_valid, ("used", "kept", "made", "ever")))
    safe.now += 2
    assert [name for name in safe.kept if safe.is_valid(name)] == ["ever"]
