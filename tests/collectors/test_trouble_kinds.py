"""When a trouble is the same one in other words, and how many are remembered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.trouble_kinds import KIND_LENGTH, KINDS_LIMIT, kind_of, remember


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("zpool list: exit status 163", "zpool list: exit status 4"),
        ("ended by signal -11", "ended by signal -6"),
        ("cannot read: 1.2G of 13T", "cannot read: 900M of 2T"),
        ("cannot get event (0x7ffe12)", "cannot get event (0xc0ffee)"),
        ("[4711] stuck for 12.5s, pid=17", "[12] stuck for 3s, pid=4"),
        ("busy since Mon Nov 24 18:52:01 UTC 2026", "busy since Tue Dec 1 08:00:59 UTC 2027"),
        ("failed (pid:17) err:5 #3", "failed (pid:4711) err:1234 #12"),
        ("ptr=f00d12ab", "ptr=ab12cd34ef"),
        ("at 2026-11-24T18:00:02.123Z", "at 2027-01-01T00:00:00.000Z"),
    ],
)
def test_numbers_sizes_and_times_make_no_other_trouble(one: str, other: str) -> None:
    assert kind_of(one) == kind_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("exit status 1", "no such pool"),
        ("can't be read: tank1", "can't be read: tank2"),
        ("can't be read: tank-1", "can't be read: tank-2"),
        ("lpreserver.log.3 is damaged", "lpreserver.log.4 is damaged"),
        ("/var/log/1/a: gone", "/var/log/2/a: gone"),
        ("was ended by SIGSEGV", "was ended by SIGBUS"),
    ],
)
def test_names_and_words_do(one: str, other: str) -> None:
    assert kind_of(one) != kind_of(other)


@given(st.text())
def test_any_text_has_a_kind_of_bounded_length(text: str) -> None:
    assert len(kind_of(text)) <= KIND_LENGTH


@given(st.lists(st.integers(0, 2 * KINDS_LIMIT), max_size=100))
def test_a_kind_is_new_unless_it_is_one_of_the_last_so_many(numbers: list[int]) -> None:
    kinds: list[str] = []
    for n, number in enumerate(numbers):
        before = numbers[:n][::-1]
        latest = list(dict.fromkeys(before))[:KINDS_LIMIT]
        kinds, new = remember(kinds, str(number))
        assert new == (number not in latest)
        assert kinds[-1] == str(number)
        assert len(kinds) <= KINDS_LIMIT
