"""The queue's rules, as a state machine against the plainest possible model of them."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dispatcher.queue import PIECE, IllegalMove, Line, Queues

NAMES: list[str | None] = [None, "a", "b"]


@settings(max_examples=60, stateful_step_count=30)
class QueueMachine(RuleBasedStateMachine):
    """Lists of waiting uids and sets of running ones, beside the real value."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: dict[str | None, int] = {None: 2, "a": 1, "b": 3}
        self.queues = Queues().configure(self.limits)
        self.waiting: dict[str | None, list[int]] = {name: [] for name in NAMES}
        self.running: dict[str | None, list[int]] = {name: [] for name in NAMES}
        self.paused: set[str | None] = set()
        self.lent: set[int] = set()
        self.next = 1

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 4))
    def add(self, name: str | None, count: int) -> None:
        uids = list(range(self.next, self.next + count))
        self.next += count
        self.queues = self.queues.adopt(name, uids, ())
        self.waiting[name] += uids

    @rule(name=st.sampled_from(NAMES), pick=st.integers(0, 20))
    def remove(self, name: str | None, pick: int) -> None:
        if pick >= len(self.waiting[name]):
            with pytest.raises(IllegalMove):
                self.queues.remove(name, self.next + 1)
            return
        uid = self.waiting[name].pop(pick)
        self.lent.discard(uid)
        self.queues = self.queues.remove(name, uid)

    @rule(name=st.sampled_from(NAMES), pick=st.integers(0, 4))
    def finish(self, name: str | None, pick: int) -> None:
        if pick >= len(self.running[name]):
            with pytest.raises(IllegalMove):
                self.queues.finish(name, self.next + 1)
            return
        self.queues = self.queues.finish(name, self.running[name].pop(pick))

    @rule()
    def start(self) -> None:
        self.queues, starting = self.queues.start_ready()
        for name, uid in starting:
            # First come, first served.
            assert self.waiting[name].pop(0) == uid
            assert name not in self.paused
            assert self.lent.isdisjoint([uid, *self.waiting[name]])
            self.running[name].append(uid)
        assert self.queues.start_ready()[1] == ()

    @rule(name=st.sampled_from(NAMES), most=st.integers(0, 5))
    def lend(self, name: str | None, most: int) -> None:
        lane = self.queues.lanes.get(name)
        if lane is None:
            with pytest.raises(IllegalMove):
                self.queues.lend(name, 1)
            return
        with pytest.raises(IllegalMove):
            self.queues.lend(name, self.next)
        uids = lane.next_to_lend(most)
        for uid in uids:
            self.queues = self.queues.lend(name, uid)
        # Those that come next, where there is no place for them now.
        full = len(self.running[name]) >= lane.limit
        may = full and name in self.limits and name not in self.paused
        first = [uid for uid in self.waiting[name][:most] if uid not in self.lent]
        assert list(uids) == (first if may else [])
        self.lent.update(uids)

    @rule(name=st.sampled_from(NAMES))
    def begin_what_was_lent(self, name: str | None) -> None:
        if self.waiting[name] and self.waiting[name][0] in self.lent:
            uid = self.waiting[name].pop(0)
            self.lent.remove(uid)
            self.queues = self.queues.begin(name, uid)
            self.running[name].append(uid)

    @rule(uids=st.sets(st.integers(1, 40)))
    def give_back(self, uids: set[int]) -> None:
        self.lent -= uids
        self.queues = self.queues.give_back(uids)

    @rule(name=st.sampled_from(NAMES), paused=st.booleans())
    def pause(self, name: str | None, paused: bool) -> None:
        if name not in self.queues.lanes:
            with pytest.raises(IllegalMove):
                self.queues.pause(name, paused)
            return
        self.queues = self.queues.pause(name, paused)
        (self.paused.add if paused else self.paused.discard)(name)

    @rule(limits=st.dictionaries(st.sampled_from(["a", "b"]), st.integers(1, 4)))
    def configure(self, limits: dict[str, int]) -> None:
        changed: dict[str | None, int] = {None: self.limits[None]}
        changed.update(limits)
        self.limits = changed
        self.queues = self.queues.configure(self.limits)

    @invariant()
    def agrees(self) -> None:
        for name in NAMES:
            lane = self.queues.lanes.get(name)
            if lane is None:
                # A queue that was taken from the settings drains before it goes.
                assert not self.waiting[name]
                assert not self.running[name]
                self.paused.discard(name)
                continue
            assert list(lane.waiting) == self.waiting[name]
            assert sorted(lane.running) == sorted(self.running[name])
            assert lane.drains == (name not in self.limits)
            assert lane.paused == (name in self.paused)
            assert lane.lent == self.lent & set(self.waiting[name])
            for place, uid in enumerate(sorted(self.running[name]) + self.waiting[name]):
                assert self.queues.position(name, uid) == place

    @rule()
    def never_more_than_it_may(self) -> None:
        _, starting = self.queues.start_ready()
        for name, lane in self.queues.lanes.items():
            new = sum(1 for queue, _ in starting if queue == name)
            assert not new or len(lane.running) + new <= lane.limit


# Without a type in the hypothesis that we use.
test_queues_keep_their_rules = cast("Any", QueueMachine).TestCase


@given(st.sets(st.integers(1, 4000)), st.data())
@settings(max_examples=50)
def test_a_long_line_is_like_a_sorted_list(uids: set[int], data: st.DataObject) -> None:
    expected = sorted(uids)
    line = Line()
    at = 0
    while at < len(expected):
        step = data.draw(st.integers(1, 2 * PIECE))
        line = line.join(expected[at : at + step])
        at += step
    for uid in data.draw(st.lists(st.sampled_from(expected), unique=True)) if expected else ():
        line = line.without(uid)
        expected.remove(uid)
    assert list(line) == expected
    assert len(line) == len(expected)
    assert all(line.index(uid) == place for place, uid in enumerate(expected))
    assert line.index(5000) is None
    if expected:
        assert line.take() == (expected[0], line.without(expected[0]))


def test_a_line_refuses_who_would_wait_behind_a_younger_one() -> None:
    with pytest.raises(IllegalMove):
        Line().join([3, 2])
