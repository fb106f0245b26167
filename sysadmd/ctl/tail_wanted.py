"""What `tail` is asked for, and how that is written. Pure; no clock."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sysadmd.ctl.moments import moment
from sysadmd.events import CATEGORIES, SYSTEMS

JOBS: Final = SYSTEMS[0]
# Events that the server begins with at most when asked for the last ones.
MOST: Final = 10_000
HIGHEST: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events, from where to where, and how much of them.

    since: as the protocol has it; since_text: as it was written. last: in place of that.
    priority: 0 to 10, at least. job: how its id begins.
    """

    systems: tuple[str, ...]
    since: str | float
    since_text: str
    last: int | None
    until: datetime | None
    follow: bool
    priority: int
    job: str | None
    grep: re.Pattern[str] | None
    count: int | None
    cursor_file: Path | None
    verbose: bool
    output: bool

    @property
    def chooses(self) -> bool:
        """Are some events left out?"""
        return bool(self.priority) or self.job is not None or self.grep is not None


def since_of(text: str, now: datetime) -> str | float:
    """Where to begin, as the protocol has it: how long ago (s), RFC 3339, a word or a cursor.

    Raises: ValueError saying what is allowed, if it can be none of these.
    """
    if text in ("now", "oldest"):
        return text
    try:
        found = moment(text, now)
    except ValueError as error:
        # Cursors are opaque, but a word each.
        if text.isascii() and text.isprintable() and text and " " not in text:
            return text
        raise ValueError(allowed(error)) from error
    return found.isoformat() if isinstance(found, datetime) else found


def allowed(error: ValueError) -> str:
    """What is said of a text that is neither a time nor a cursor. error: of `moment`."""
    return f"{error}; or oldest, now, or a cursor, which `--json` and Ctrl-C tell"


def priority_of_word(text: str) -> int:
    """`6` or `critical` as a number. Raises: ValueError saying what is allowed."""
    if text.isascii() and text.isdecimal() and len(text) < 3 and int(text) <= HIGHEST:
        return int(text)
    for least, name in CATEGORIES:
        if text.lower() == name.lower():
            return least
    words = ", ".join(name.lower() for _, name in reversed(CATEGORIES))
    raise ValueError(f"{text!r} is no priority; allowed: 0 to {HIGHEST}, or {words}")
