"""Who sees whom at a bridge: held against the plain rule, whoever comes and goes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.bridge.roster import Roster
from sysadmd.keys import Side

IDS = tuple("abcdefgh")
KEYS = ("k1", "k2", "k3")


class Model(RuleBasedStateMachine):
    """Peers as a plain mapping; what was told as what each has heard."""

    def __init__(self) -> None:
        super().__init__()
        self.roster = Roster()
        self.there: dict[str, tuple[Side, frozenset[str]]] = {}
        self.heard: dict[str, tuple[str, ...]] = {}
        # Who is still to be told, as it was begun.
        self.due: Iterator[str] = iter(())

    @rule(id=st.sampled_from(IDS), keys=st.frozensets(st.sampled_from(KEYS)))
    def enter(self, id: str, keys: frozenset[str]) -> None:
        # A peer's side never changes: half of them are servers.
        side: Side = "server" if id < "e" else "client"
        self.there[id] = side, keys
        self.roster.enter(id, side, keys)
        self.heard.setdefault(id, ())

    @rule(id=st.sampled_from(IDS))
    def leave(self, id: str) -> None:
        self.there.pop(id, None)
        self.heard.pop(id, None)
        self.roster.leave(id)

    @rule(count=st.integers(1, 5))
    def tell_some(self, count: int) -> None:
        for id in islice(self.due, count):
            ids = self.roster.news(id)
            if ids is not None:
                assert set(ids) == self.seen(id), "told what is no more"
                assert ids != self.heard[id], "told what it knew"
                self.heard[id] = ids

    @rule()
    def tell(self) -> None:
        self.tell_some(1_000)
        self.due = self.roster.due()
        self.tell_some(1_000)
        for id in self.there:
            assert set(self.heard[id]) == self.seen(id)

    @rule()
    def begin_to_tell(self) -> None:
        self.tell_some(1_000)
        self.due = self.roster.due()

    def seen(self, id: str) -> set[str]:
        side, keys = self.there[id]
        return {o for o, (s, k) in self.there.items() if s != side and k & keys}

    @invariant()
    def sees_by_the_rule(self) -> None:
        assert len(self.roster) == len(self.there)
        for id in IDS:
            seen = self.seen(id) if id in self.there else set[str]()
            assert set(self.roster.seen_by(id)) == seen
            for other in IDS:
                assert self.roster.is_seen(other, by=id) == (other in seen)


TestRoster = cast("Any", Model).TestCase
TestRoster.settings = settings(max_examples=60, stateful_step_count=30)


def news(roster: Roster) -> dict[str, tuple[str, ...]]:
    """All that is to be told."""
    told: dict[str, tuple[str, ...]] = {}
    for id in roster.due():
        ids = roster.news(id)
        if ids is not None:
            told[id] = ids
    return told


def test_who_is_alone_is_told_nothing() -> None:
    roster = Roster()
    roster.enter("server", "server", ["key"])
    roster.enter("third", "client", ["another"])
    assert news(roster) == {}


def test_what_is_undone_before_it_is_told_is_not_told() -> None:
    roster = Roster()
    roster.enter("server", "server", ["key"])
    roster.enter("client", "client", ["key"])
    assert news(roster) == {"server": ("client",), "client": ("server",)}
    roster.leave("server")
    roster.enter("server", "server", ["key"])
    assert news(roster) == {"server": ("client",)}


def test_those_with_the_same_keys_are_told_the_same_value() -> None:
    roster = Roster()
    for number in range(100):
        roster.enter(f"c{number}", "client", ["key"])
        roster.enter(f"s{number}", "server", ["key", "other"])
    told = news(roster)
    assert len(told) == 200
    assert len({id(ids) for ids in told.values()}) == 2


def test_who_has_other_keys_touches_those_alone_that_have_changed() -> None:
    roster = Roster()
    for number in range(3):
        roster.enter(f"client {number}", "client", [f"key {number}"])
    roster.enter("server", "server", ["key 0", "key 1"])
    news(roster)
    roster.enter("server", "server", ["key 1", "key 2"])
    assert set(roster.due()) == {"server", "client 0", "client 2"}
