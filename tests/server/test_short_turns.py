"""What the loop waits with, on real sockets: short turns in which everybody has his own."""

from __future__ import annotations

import contextlib
import math
import selectors
import socket
from collections.abc import Iterator

import pytest

from server.short_turns import AT_ONCE, ShortTurns

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
MANY = 3 * AT_ONCE + 1


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    with contextlib.ExitStack() as stack:
        found = [socket.socketpair() for _ in range(MANY)]
        for one in (one for pair in found for one in pair):
            stack.enter_context(one)
        yield found


def numbers(ready: list[tuple[selectors.SelectorKey, int]]) -> list[int]:
    return [key.data for key, _ in ready]


@pytest.mark.parametrize("event", [READ, WRITE])
def test_of_many_each_has_its_turn_in_as_few_as_it_takes(
    pairs: list[tuple[socket.socket, socket.socket]], event: int
) -> None:
    with ShortTurns() as selector:
        for number, (ours, theirs) in enumerate(pairs):
            theirs.send(b"x")
            selector.register(ours, event, number)
        turns = [numbers(selector.select(0)) for _ in range(20)]
    assert {len(turn) for turn in turns} == {AT_ONCE}
    most = math.ceil(MANY / AT_ONCE)
    for begin in range(20 - most):
        together = {number for turn in turns[begin : begin + most] for number in turn}
        assert together == set(range(MANY))


def test_who_is_heard_waits_for_none_of_those_who_are_written_to(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    with ShortTurns() as selector:
        for number, (ours, _) in enumerate(pairs):
            selector.register(ours, READ | WRITE, number)
        pairs[-1][1].send(b"x")
        for _ in range(10):
            turn = selector.select(0)
            assert MANY - 1 in numbers(turn)
            assert len(turn) == AT_ONCE + 1


def test_who_has_left_is_not_handed_out_though_he_waited(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    with ShortTurns() as selector:
        for number, (ours, _) in enumerate(pairs):
            selector.register(ours, WRITE, number)
        first = numbers(selector.select(0))
        left = [number for number in range(MANY) if number not in first]
        for number in left:
            selector.unregister(pairs[number][0])
        assert sorted(numbers(selector.select(0))) == sorted(first)


def test_where_few_are_ready_all_are_handed_out(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    with ShortTurns() as selector:
        for number, (ours, theirs) in enumerate(pairs):
            selector.register(ours, READ, number)
            if number < AT_ONCE:
                theirs.send(b"x")
        assert sorted(numbers(selector.select(0))) == list(range(AT_ONCE))
        for ours, _ in pairs[:AT_ONCE]:
            ours.recv(1)
        assert selector.select(0) == []
