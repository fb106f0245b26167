"""Who is blocked after failed logins: the rules, without a clock."""

from hypothesis import given
from hypothesis import strategies as st

from server.login.guesses import ADDRESSES, Guesses
from sysadmd.settings import AuthSettings, Duration

SETTINGS = AuthSettings(failures=3, failure_window=Duration(100), block_time=Duration(1000))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 60)), max_size=40))
def test_no_more_than_so_many_wrong_passwords_are_checked_in_a_window(
    tries: list[tuple[str, int]],
) -> None:
    guesses, now = Guesses(), 0.0
    checked: list[float] = []
    for name, pause in tries:
        now += pause
        if guesses.begin("x", now, SETTINGS):
            checked.append(now)
            guesses.failed("x", name, now, SETTINGS)
            guesses.end("x")
    for number, first in enumerate(checked[:-3]):
        assert checked[number + 3] - first >= 100


def test_what_is_being_checked_counts_as_long_as_it_is() -> None:
    guesses = Guesses()
    assert [guesses.begin("x", 0.0, SETTINGS) for _ in range(5)] == [True] * 3 + [False] * 2
    assert guesses.begin("y", 0.0, SETTINGS)
    guesses.end("x")
    assert guesses.begin("x", 0.0, SETTINGS)


def test_a_right_password_forgives_the_failures_of_its_account_alone() -> None:
    guesses = Guesses()
    for name in ("root", "mine"):
        guesses.failed("x", name, 0.0, SETTINGS)
    guesses.succeeded("x", "mine")
    assert not guesses.failed("x", "root", 1.0, SETTINGS)
    assert guesses.failed("x", "root", 2.0, SETTINGS)
    assert guesses.blocked_for("x", 2.0) == 1000
    assert not guesses.begin("x", 2.0, SETTINGS)
    assert guesses.begin("x", 1003.0, SETTINGS)


def test_a_flood_of_addresses_costs_bounded_memory() -> None:
    guesses = Guesses()
    for number in range(ADDRESSES + 100):
        guesses.failed(str(number), "root", 0.0, SETTINGS)
    assert len(guesses) <= 2 * ADDRESSES
