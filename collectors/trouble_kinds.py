"""When a trouble is another one, and when it is the same one in other words. Pure.

A tool that fails says so with another exit status, time or size at each look; that is one
trouble, to be told once. One that goes back and forth between two troubles has told both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

# Of one source so many kinds are remembered until its trouble is over. More than a handful were
# never seen to take turns; who has more of them is told of them again.
KINDS_LIMIT: Final = 16
# Characters of a kind; what differs only behind them is the same.
KIND_LENGTH: Final = 400
# A word that begins with a digit, unless it is part of a name or a path: `pool-1`, `log.3`; and
# an address, with or without its `0x`.
_NUMBER: Final = re.compile(
    r"(?<![^\s(\[{<'\"=:#])(?:[+-]?\d[^\s()\[\]{}<>'\"=;]*|(?=[a-f]*\d)[0-9a-f]{6,}\b)"
)
# Source: asctime(3), which `zpool` and date(1) use.
_CALENDAR: Final = re.compile(
    r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b"
)


def kind_of(text: str) -> str:
    """What is the same in all wordings of one trouble: numbers, times and sizes are folded."""
    return _NUMBER.sub("#", _CALENDAR.sub("#", text))[:KIND_LENGTH]


def remember(kinds: Sequence[str], kind: str) -> tuple[list[str], bool]:
    """The kinds that there were, with this one as the last; and: is it a new one?"""
    others = [other for other in kinds if other != kind]
    return [*others, kind][-KINDS_LIMIT:], len(others) == len(kinds)
