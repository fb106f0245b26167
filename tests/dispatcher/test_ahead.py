"""What a keeper is lent, against the plainest possible model of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.ahead import Ahead, Ordered
from dispatcher.words import Commanded, Job

NAME = st.sampled_from(["", "a"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), NAME, st.booleans()),
        st.tuples(st.just("lend"), NAME, st.integers(1, 3)),
        st.tuples(st.just("end"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("over"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("recall"), st.integers(0, 9), st.integers(1, 4)),
    ),
    max_size=40,
)


def command(uid: int, lane: str, *, last: bool = True, room: int = 0) -> Commanded:
    return Commanded((uid, 0), ["true"], {}, "/", 1, lane=lane, last=last, room=room)


class Model:
    """By lane: who has a place, and who waits for one."""

    def __init__(self) -> None:
        self.places: dict[str, list[Commanded]] = {"": [], "a": []}
        self.waiting: dict[str, list[Commanded]] = {"": [], "a": []}

    @property
    def running(self) -> list[Commanded]:
        return [*self.places[""], *self.places["a"]]

    @property
    def lent(self) -> list[Job]:
        return [one.job for lane in self.waiting.values() for one in lane]

    def leave(self, one: Commanded) -> list[Commanded]:
        self.places[one.lane or ""].remove(one)
        return self.begin(one.lane or "")

    def begin(self, lane: str) -> list[Commanded]:
        begun: list[Commanded] = []
        while self.waiting[lane] and len(self.places[lane]) < self.waiting[lane][0].room:
            begun.append(self.waiting[lane].pop(0))
            self.places[lane].append(begun[-1])
        return begun


def commands(found: list[Ordered]) -> list[Commanded]:
    return [one.command for one in found]


@given(STEPS)
def test_who_is_next_begins_when_there_is_a_place(
    steps: list[tuple[str, int | str, int]],
) -> None:
    ahead, model = Ahead(), Model()
    for uid, (what, which, how) in enumerate(steps):
        running = model.running
        if what == "start":
            one = command(uid, str(which), last=bool(how))
            ahead.occupy(one)
            model.places[str(which)].append(one)
        elif what == "lend":
            one = command(uid, str(which), room=how)
            model.waiting[str(which)].append(one)
            assert commands(ahead.lend(Ordered(b"", one))) == model.begin(str(which))
        elif what == "recall":
            jobs = [*model.lent[int(which) : int(which) + how], (uid, 0)]
            expected = [job for job in model.lent if job in jobs]
            assert [one.job for one in ahead.give_back(jobs)] == expected
            for lane in model.waiting.values():
                lane[:] = [one for one in lane if one.job not in jobs]
        elif running:
            one = running[int(which) % len(running)]
            if what == "over":
                assert commands(ahead.over(one.job[0])) == model.leave(one)
            else:
                # A job that goes on keeps its place.
                assert commands(ahead.ended(one)) == (model.leave(one) if one.last else [])
    assert sorted(one.job for one in ahead.forget()) == sorted(model.lent)
    assert ahead.forget() == []


def test_what_has_no_lane_makes_place_for_nobody() -> None:
    ahead = Ahead()
    one = Commanded((1, 0), ["true"], {}, "/", 1, last=True)
    ahead.occupy(one)
    assert not (ahead.ended(one) or ahead.over(7) or ahead.forget())
