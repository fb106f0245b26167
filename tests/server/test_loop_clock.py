"""The clock for peers, by a source of time that is chosen."""

import asyncio
import itertools
import time
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from server.loop_clock import BEAT, BOUNDS, BUSY, LATE, TOLD_FOR, LoopClock

# Of a second: sums of such are exact.
PART: Final = 1 / 64


class Source:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def parts(longest: float) -> st.SearchStrategy[list[int]]:
    """Steps of time, up to so many seconds each."""
    return st.lists(st.integers(0, int(longest / PART)), max_size=50)


@given(st.lists(st.tuples(st.integers(0, int(100 / PART)), st.booleans())))
def test_it_never_goes_back_nor_far_while_the_loop_stands(
    steps: list[tuple[int, bool]],
) -> None:
    source = Source()
    clock = LoopClock(source)
    clock.beat()
    seen, beaten = [clock.now()], [clock.now()]
    for step, beat in steps:
        source.now += step * PART
        seen.append(clock.now())
        if beat:
            clock.beat()
            # Noting it changes nothing.
            assert clock.now() == seen[-1]
            beaten.append(seen[-1])
        assert seen[-1] - beaten[-1] <= BEAT + BUSY
    for earlier, later in itertools.pairwise(seen):
        assert earlier <= later
    for earlier, later in itertools.pairwise(beaten):
        assert later - earlier <= BEAT + BUSY
    assert clock.now() == source.now - clock.stood_still or source.now > beaten[-1] + BUSY
    assert sum(clock.counts) == len(beaten)


@given(parts(BEAT + BUSY))
def test_it_is_the_time_itself_as_long_as_the_loop_turns(steps: list[int]) -> None:
    source = Source()
    clock = LoopClock(source)
    assert clock.now() == 0.0
    clock.beat()
    for step in steps:
        source.now += step * PART
        assert clock.now() == source.now
        clock.beat()
    assert clock.stood_still == 0.0


def test_before_the_first_beat_nothing_is_late() -> None:
    source = Source()
    clock = LoopClock(source)
    source.now += 100.0
    assert clock.now() == 100.0
    assert clock.trouble is None
    clock.beat()
    assert clock.total == 0.0


def test_a_stall_is_told_while_it_lasts_and_a_while_after_it() -> None:
    source = Source()
    clock = LoopClock(source)
    clock.beat()
    source.now += BEAT + LATE - PART
    assert clock.trouble is None
    source.now += PART
    assert clock.trouble == "the daemon stood still for 2 s, until 0 s ago"
    clock.beat()
    for _ in range(int(TOLD_FOR / BEAT)):
        assert clock.trouble is not None
        source.now += BEAT
        clock.beat()
    assert clock.trouble == "the daemon stood still for 2 s, until 30 s ago"
    source.now += BEAT
    assert clock.trouble is None


def test_lateness_is_counted_by_its_bounds() -> None:
    source = Source()
    clock = LoopClock(source)
    clock.beat()
    source.now += BEAT + BOUNDS[-1]
    clock.beat()
    source.now += BEAT + 2 * BOUNDS[-1]
    clock.beat()
    assert clock.counts == [1, *([0] * (len(BOUNDS) - 2)), 1, 1]
    assert clock.total == 3 * BOUNDS[-1]
    assert clock.stood_still == 3 * BOUNDS[-1] - 2 * BUSY


def test_a_loop_that_was_blocked_is_seen() -> None:
    async def body() -> None:
        clock = LoopClock()
        beating = asyncio.create_task(clock.run())
        await asyncio.sleep(0)
        time.sleep(LATE + BEAT)  # noqa: ASYNC251 - that is what is to be seen
        assert clock.trouble is not None
        while not clock.stood_still:  # noqa: ASYNC110 - turns of the loop are waited for
            await asyncio.sleep(0)
        assert clock.total >= LATE
        beating.cancel()

    asyncio.run(body())
