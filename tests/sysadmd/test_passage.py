"""How much time is believed to have passed, whatever the wall clock says."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from sysadmd.passage import DAY, Passage

NOW = 1_790_000_000.0
HOUR = 3600.0


class Machine:
    """One whose true time is known; its wall clock is off by `lie`."""

    def __init__(self, lie: float = 0.0) -> None:
        self.time = NOW
        self.booted = NOW - 60
        self.boot = 0
        self.watched = 0.0
        self.lie = lie
        self.passage = Passage(boot="0", uptime=60.0, wall=NOW + lie)

    def look(self) -> Passage:
        up = self.time - self.booted
        before, self.passage = (
            self.passage,
            self.passage.seen(str(self.boot), up, self.time + self.lie),
        )
        assert self.passage.passed >= before.passed
        return self.passage

    def run(self, seconds: float, lie: float | None = None) -> Passage:
        """Up for so long, with a look each half an hour."""
        if lie is not None:
            self.lie = lie
            self.look()
        while seconds > 0:
            step = min(seconds, HOUR / 2)
            self.time += step
            self.watched += step
            seconds -= step
            self.look()
        return self.passage

    def off(self, seconds: float, lie: float = 0.0) -> Passage:
        """Off for so long, then up for a minute."""
        self.time += seconds
        self.booted, self.boot = self.time, self.boot + 1
        self.time += 60
        self.lie = lie
        return self.look()

    @property
    def true(self) -> float:
        return self.time - NOW


def test_within_a_boot_the_wall_clock_counts_for_nothing() -> None:
    machine = Machine()
    machine.run(2 * DAY)
    ahead = machine.run(2, lie=100 * DAY)
    assert (ahead.passed, ahead.is_waiting, ahead.leap) == (2 * DAY + 2, True, 100 * DAY)
    assert machine.run(23 * HOUR, lie=0).is_waiting
    last = machine.run(2 * HOUR)
    assert (last.passed, last.is_waiting, last.leap) == (machine.true, False, 0)


def test_steps_of_less_than_a_day_are_a_leap_when_they_add_up_to_more() -> None:
    machine = Machine()
    machine.run(2 * DAY)
    assert not machine.run(HOUR, lie=23 * HOUR).is_waiting
    assert not machine.run(HOUR, lie=0).is_waiting
    assert not machine.run(HOUR, lie=-23 * HOUR).is_waiting
    assert machine.run(HOUR, lie=-25 * HOUR).is_waiting


def test_a_machine_that_was_off_for_long_is_believed_that_a_day_after_its_start() -> None:
    machine = Machine()
    machine.run(2 * DAY)
    start = machine.off(40 * DAY)
    assert (start.passed, start.is_waiting, start.owed) == (2 * DAY, True, True)
    assert machine.run(23 * HOUR).passed == 2 * DAY + 23 * HOUR
    later = machine.run(2 * HOUR)
    assert (later.passed, later.is_waiting, later.owed) == (machine.true, False, False)


def test_a_night_off_needs_no_waiting() -> None:
    machine = Machine()
    machine.run(2 * DAY)
    for _ in range(5):
        morning = machine.off(14 * HOUR)
        assert (morning.passed, morning.is_waiting) == (machine.true, False)
        machine.run(10 * HOUR)


def test_a_clock_that_is_an_hour_back_at_a_boot_is_no_leap() -> None:
    machine = Machine()
    machine.run(2 * DAY)
    assert not machine.off(60, lie=-HOUR).is_waiting
    assert not machine.run(60, lie=0).is_waiting


def test_a_first_start_in_1970_makes_nothing_old() -> None:
    machine = Machine(lie=-NOW)
    machine.run(HOUR)
    machine.run(2 * DAY, lie=0)
    assert machine.passage.passed == machine.true
    # And if it was only the next boot that was right.
    other = Machine(lie=-NOW)
    other.run(HOUR)
    other.off(60)
    assert other.run(3 * DAY).passed <= other.true


def test_within_a_boot_not_even_a_clock_that_was_wrong_for_days_makes_time_pass() -> None:
    for lie in (-NOW, 100 * DAY):
        machine = Machine(lie=lie)
        machine.run(3 * DAY)
        machine.run(3 * DAY, lie=0)
        assert machine.run(3 * DAY, lie=lie).passed == machine.true


def test_boots_with_an_empty_battery_make_nothing_old() -> None:
    machine = Machine()
    machine.run(2 * DAY)
    for lie in (-NOW, 100 * DAY, -NOW, 0):
        machine.off(60, lie)
        machine.run(HOUR)
    assert machine.run(2 * DAY, lie=0).passed == machine.true


def test_nor_does_a_year_in_1970_to_what_the_right_clock_knew() -> None:
    machine = Machine()
    machine.run(2 * DAY)
    machine.off(60, -NOW)
    machine.run(30 * DAY)
    machine.off(60)
    assert machine.run(2 * DAY).passed <= machine.true


def test_the_uptime_of_another_machine_is_none_of_the_journals() -> None:
    machine = Machine()
    machine.run(2 * DAY)
    restored = machine.passage.seen("other", 200 * DAY, machine.time + DAY)
    assert restored.passed == machine.passage.passed
    assert restored.is_waiting
    later = restored.seen("other", 201 * DAY, machine.time + 2 * DAY)
    assert later.passed == machine.passage.passed + 2 * DAY


def test_an_uptime_that_is_wrong_makes_nothing_old_either() -> None:
    machine = Machine()
    machine.run(2 * DAY)
    true = machine.passage
    # As faketime has it by default: all clocks say how long 1970 is ago.
    wall = machine.time + 100 * DAY
    for later in (0, 30, 60):
        machine.passage = machine.passage.seen("0", wall + later, wall + later)
    machine.time += 90
    machine.look()
    assert (machine.passage.is_waiting, machine.passage.passed) == (True, true.passed + 60)
    assert machine.run(2 * DAY).passed <= machine.true + DAY


def test_a_boot_without_a_name_is_told_by_its_uptime() -> None:
    known = Passage(boot="a", uptime=5 * DAY, wall=NOW)
    assert known.seen("", 6 * DAY, NOW + DAY).passed == DAY
    assert known.seen("", 60, NOW + HOUR).passed == HOUR
    # Both are long ago: it may be another boot, or a step of the clock.
    ambiguous = known.seen("", 7 * DAY, NOW + 40 * DAY)
    assert (ambiguous.passed, ambiguous.is_waiting, ambiguous.owed) == (0, True, False)


@dataclass(frozen=True)
class Spell:
    """lie: of the clock; off: before it, None: the same boot; up: in it; s."""

    lie: float
    off: float | None
    up: float


_OFF = st.none() | st.floats(1, 3 * DAY) | st.floats(1, 400 * DAY)
_WRONG = st.integers(-7000, 7000).filter(bool).map(lambda lie: lie * 3 * DAY)
SPELLS = st.lists(
    st.builds(Spell, st.just(0.0), _OFF, st.floats(1, 4 * DAY))
    | st.builds(Spell, _WRONG, _OFF, st.floats(1, 0.9 * DAY)),
    max_size=12,
)


def _is_wrong_for_a_day(spells: list[Spell]) -> bool:
    return any(one.lie == other.lie != 0 for one, other in itertools.pairwise(spells))


@given(st.booleans(), SPELLS)
def test_no_clock_that_is_wrong_for_less_than_a_day_makes_time_pass(
    begins_wrong: bool, spells: list[Spell]
) -> None:
    if _is_wrong_for_a_day(spells):
        return
    machine = Machine(lie=-NOW if begins_wrong else 0.0)
    boots = 0
    for spell in spells:
        if spell.off is not None:
            boots += 1
            machine.off(spell.off, spell.lie)
        passage = machine.run(spell.up, spell.lie)
        assert passage.passed <= machine.true + boots * DAY + 1
        assert passage.passed >= machine.watched - 1


@given(st.booleans(), SPELLS)
def test_what_is_thirty_days_old_has_been_there_for_thirty_days(
    begins_wrong: bool, spells: list[Spell]
) -> None:
    """As retention has it: what is there is noted unless something is owed, and taken when
    nothing is waited for."""
    if _is_wrong_for_a_day(spells):
        return
    machine = Machine(lie=-NOW if begins_wrong else 0.0)
    noted: list[tuple[float, float]] = []
    boots = 0
    for spell in spells:
        if spell.off is not None:
            boots += 1
            machine.off(spell.off, spell.lie)
        left = spell.up
        while left > 0:
            passage = machine.run(min(left, 6 * HOUR), spell.lie)
            left -= 6 * HOUR
            if not passage.is_waiting:
                for told, passed in noted:
                    if passed <= passage.passed - 30 * DAY:
                        assert machine.time - told >= (30 - boots) * DAY - 1
            if not passage.owed:
                noted.append((machine.time, passage.passed))


@given(SPELLS)
def test_a_right_clock_is_told_the_truth_after_a_day(spells: list[Spell]) -> None:
    machine = Machine()
    machine.run(2 * DAY)
    for spell in spells:
        if spell.off is not None:
            machine.off(spell.off)
        machine.run(spell.up, lie=0)
    last = machine.run(DAY + 1)
    assert abs(last.passed - machine.true) < 1
