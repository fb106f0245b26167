"""The time window of rpc/logs: from the request's texts to milliseconds. No clock, no database.

Source: the original server's `read_logs` (time_format, start_time, end_time); date patterns are
those of Qt's QDateTime::fromString.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

# Without start_time: this much before the end; ms.
DEFAULT_WINDOW: Final = 12 * 3600 * 1000
# No moment is further from 1970, either way; ms. Farther ones mean: since ever, or for ever.
FARTHEST: Final = 10**15
# Characters of a pattern, and of a time: an expression is made of the first for the second.
MAX_LENGTH: Final = 256
_RELATIVE: Final = {"relative_second": 1, "relative_day": 86400, "relative_month": 30 * 86400}
_PATTERN: Final = re.compile(r"'([^']*)'|yyyy|yy|MM|M|dd|d|HH|H|hh|h|mm|m|ss|s|zzz|z|t|.")
_FIELDS: Final = {
    "yyyy": ("year", r"\d{4}"),
    "yy": ("year2", r"\d{2}"),
    "MM": ("month", r"\d{2}"),
    "M": ("month", r"\d{1,2}"),
    "dd": ("day", r"\d{2}"),
    "d": ("day", r"\d{1,2}"),
    "HH": ("hour", r"\d{2}"),
    "hh": ("hour", r"\d{2}"),
    "H": ("hour", r"\d{1,2}"),
    "h": ("hour", r"\d{1,2}"),
    "mm": ("minute", r"\d{2}"),
    "m": ("minute", r"\d{1,2}"),
    "ss": ("second", r"\d{2}"),
    "s": ("second", r"\d{1,2}"),
    "zzz": ("ms", r"\d{3}"),
    "z": ("ms", r"\d{1,3}"),
}


def window(time_format: str, start: str, end: str, now: int) -> tuple[int, int]:
    """(first, last) in ms since 1970; empty texts take the defaults. now: ms since 1970.

    Raises: ValueError saying what is allowed.
    """
    if max(map(len, (time_format, start, end))) > MAX_LENGTH:
        raise ValueError(
            f"time_format, start_time and end_time have at most {MAX_LENGTH} characters each"
        )
    last = _moment(time_format, end, now, "end_time") if end else now
    if not start:
        return last - DEFAULT_WINDOW, last
    return _moment(time_format, start, last, "start_time"), last


def _moment(time_format: str, text: str, base: int, field: str) -> int:
    if time_format in ("time_t_seconds", "epoch_mseconds") or time_format in _RELATIVE:
        if not re.fullmatch(r"[+-]?\d{1,15}", text, re.ASCII):
            raise ValueError(f"{field} must be a whole number, as {time_format} says")
        number = int(text)
        if time_format == "time_t_seconds":
            number *= 1000
        elif time_format in _RELATIVE:
            number = base - abs(number) * _RELATIVE[time_format] * 1000
        return max(-FARTHEST, min(number, FARTHEST))
    return _parse_date(time_format, text, field)


def _parse_date(pattern: str, text: str, field: str) -> int:
    expression = ""
    seen: set[str] = set()
    for part in _PATTERN.finditer(pattern):
        name, digits = _FIELDS.get(part[0], ("", ""))
        if part[1] is not None or not name or name in seen:
            expression += re.escape(part[1] if part[1] is not None else part[0])
        else:
            seen.add(name)
            expression += f"(?P<{name}>{digits})"
    match = re.fullmatch(expression, text, re.ASCII)
    if not seen or match is None:
        raise ValueError(
            f"{field} is not a time in the form {pattern!r}; time_format is time_t_seconds,"
            " epoch_mseconds, relative_second, relative_day, relative_month, or a pattern such"
            " as yyyy-MM-dd hh:mm:ss"
        )
    found = {name: int(value) for name, value in match.groupdict().items()}
    year = found.get("year", 2000 + found["year2"] if "year2" in found else 1970)
    try:
        moment = datetime(
            year,
            found.get("month", 1),
            found.get("day", 1),
            found.get("hour", 0),
            found.get("minute", 0),
            found.get("second", 0),
            tzinfo=UTC,
        ) + timedelta(milliseconds=found.get("ms", 0))
        return round(moment.timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{field}: {error}") from error
