"""Times as people write and read them: `10 min ago`, `18:00`, `3 h 5 min`. Pure; no clock."""

from __future__ import annotations

import itertools
import math
import re
from datetime import datetime, time, timedelta
from typing import Final

_UNITS: Final = {
    "": 1,
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86400),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86400),
}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?) *([a-z]*)", re.ASCII | re.IGNORECASE)
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", re.ASCII)
_SHOWN: Final = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
# A century; s.
LONGEST: Final = 100 * 366 * 86400.0
_MOMENTS: Final = (
    "how long ago, such as 90, 15m, '10 min ago', 7d (at most a century), or a moment, such as"
    " today, yesterday, 18:00, 2026-11-24, 2026-11-24T18:00:00Z"
)


def seconds(text: str) -> float:
    """A duration: `90`, `0.5`, `5m`, `1.5 h`, `10 minutes`. Above 0.

    Raises: ValueError saying what is allowed.
    """
    match = _DURATION.fullmatch(text.strip())
    unit = _UNITS.get(match[2].lower()) if match else None
    value = float(match[1]) * unit if match and unit else 0.0
    if not 0 < value <= LONGEST:
        raise ValueError(
            f"{text!r} is no duration; allowed: a number above 0 of seconds, or with s, m, h or"
            " d, such as 90, 5m, 1.5h (at most a century)"
        )
    return value


def moment(text: str, now: datetime) -> float | datetime:
    """A moment in the past: how many seconds ago (by whichever clock), or when it was.

    now: with its zone, which is that of what is written without one. A time of day is the last
    one that was. Raises: ValueError saying what is allowed.
    """
    words = text.strip().lower()
    try:
        return seconds(words.removesuffix("ago"))
    except ValueError:
        pass
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    named = {"now": now, "today": midnight, "yesterday": midnight - timedelta(days=1)}
    if words in named:
        return named[words]
    try:
        if match := _CLOCK.fullmatch(words):
            clock = time(int(match[1]), int(match[2]), int(match[3] or 0))
            found = datetime.combine(now.date(), clock, now.tzinfo)
            return found if found <= now else found - timedelta(days=1)
        found = datetime.fromisoformat(text.strip())
        return found if found.tzinfo else found.replace(tzinfo=now.tzinfo)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is no time; allowed: {_MOMENTS}") from error


def local(told: str, now: datetime) -> str:
    """A time of the server's in our zone: `18:00:02`, of another day `2026-11-24 18:00:02`.

    told: RFC 3339; what is none is returned as it is. now: with the zone that is ours.
    """
    try:
        when = datetime.fromisoformat(told).astimezone(now.tzinfo)
    except (ValueError, OverflowError):
        return told
    clock = f"{when:%H:%M:%S}"
    return clock if when.date() == now.date() else f"{when:%Y-%m-%d} {clock}"


def since(told: str, now: datetime) -> float | None:
    """How many seconds ago a time of the server's was, 0 at least; None: it is no time."""
    try:
        return max(0.0, (now - datetime.fromisoformat(told)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def age(length: float) -> str:
    """How long ago something was, roughly, with one unit: `0 s`, `12 s`, `3 min`, `4 d`."""
    unit, size = next(((u, s) for u, s in _SHOWN if length >= s), _SHOWN[-1])
    return f"{math.floor(length / size)} {unit}"


def span(length: float) -> str:
    """A duration, with two units at most: `0.4 s`, `3 min 5 s`, `2 h 5 min`, `4 d 1 h`."""
    if length < 10 and not float(length).is_integer():
        return f"{length:.1f} s"
    whole = math.floor(length)
    for (unit, size), (small, smaller) in itertools.pairwise(_SHOWN):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"
