"""Ids as people read and write them: short where they were made up. Pure."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

# Ids that were made up, a class's with its brace: eight digits tell them apart.
_MADE_UP: Final = re.compile(
    r"(?:|(?:[a-z_]+-)?\{)([0-9a-f]{8})(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\}?"
)


def short_id(id: str) -> str:
    """The first digits of an id that was made up; what somebody has chosen stays whole."""
    match = _MADE_UP.fullmatch(id)
    return match[1] if match else id


def short_ids(ids: Sequence[str]) -> list[str]:
    """The same of several; whole where a short one would be that of another, too."""
    short = [short_id(id) for id in ids]
    number = Counter(short)
    return [one if number[one] == 1 else id for id, one in zip(ids, short, strict=True)]


def begins(id: str, wanted: str) -> bool:
    """Does the id begin so? What stands up to its brace may be left out."""
    return bool(wanted) and (id.startswith(wanted) or id.partition("{")[2].startswith(wanted))


def distinct(ids: Sequence[str], least: int = 8) -> int:
    """How many characters of these ids tell them apart."""
    ordered = sorted(set(ids))
    longest = least
    for one, other in itertools.pairwise(ordered):
        same = next(
            (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one)
        )
        longest = max(longest, same + 1)
    return longest
