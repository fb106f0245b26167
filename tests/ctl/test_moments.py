"""Times as people write and read them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysadmd.ctl import moments

NOW = datetime(2026, 11, 30, 8, 30, 5, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("0.5", 0.5),
        ("5m", 300),
        ("5 min", 300),
        ("1.5h", 5400),
        ("10 Minutes", 600),
        (" 7d ", 7 * 86400),
        ("2 weeks", 14 * 86400),
    ],
)
def test_durations(text: str, expected: float) -> None:
    assert moments.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-5", "5 parsecs", "m", "1e3", "nan", "9" * 400])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=r"no duration; allowed: .*5m"):
        moments.seconds(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10 min ago", 600.0),
        ("1 hour ago", 3600.0),
        ("15m", 900.0),
        ("now", NOW),
        ("today", NOW.replace(hour=0, minute=0, second=0)),
        ("Yesterday", NOW.replace(day=29, hour=0, minute=0, second=0)),
        ("8:00", NOW.replace(hour=8, minute=0, second=0)),
        ("18:00", NOW.replace(day=29, hour=18, minute=0, second=0)),
        ("2026-11-24", NOW.replace(day=24, hour=0, minute=0, second=0)),
        ("2026-11-24T18:00:00Z", datetime(2026, 11, 24, 18, tzinfo=UTC)),
    ],
)
def test_moments(text: str, expected: float | datetime) -> None:
    assert moments.moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "soon", "25:00", "ago", "2026-13-01", "0001-01-01T"])
def test_what_is_no_moment_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=r"no time; allowed: .*yesterday"):
        moments.moment(text, NOW)


@given(st.text())
def test_any_text_is_a_moment_or_refused(text: str) -> None:
    try:
        found = moments.moment(text, NOW)
    except ValueError:
        return
    assert not isinstance(found, datetime) or found.tzinfo is not None


def test_times_are_shown_in_our_zone_with_the_day_where_it_is_another() -> None:
    assert moments.local("2026-11-30T07:00:02.123Z", NOW) == "08:00:02"
    assert moments.local("2026-11-29T22:59:59Z", NOW) == "2026-11-29 23:59:59"
    assert moments.local("no time", NOW) == "no time"


def test_how_long_ago_is_never_below_zero() -> None:
    assert moments.since("2026-11-30T07:30:00Z", NOW) == 5
    assert moments.since("2026-11-30T09:30:00Z", NOW) == 0
    assert moments.since("2026-11-30T09:30:00", NOW) is None
    assert moments.since("-", NOW) is None


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0, "0 s"),
        (0.44, "0.4 s"),
        (42.9, "42 s"),
        (60, "1 min"),
        (185, "3 min 5 s"),
        (7500, "2 h 5 min"),
        (86400 * 4 + 3700, "4 d 1 h"),
    ],
)
def test_spans(length: float, expected: str) -> None:
    assert moments.span(length) == expected
