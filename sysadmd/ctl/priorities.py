"""Priorities as people see them: a word, a colour. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sysadmd.events import CATEGORIES

_NUMBER: Final = re.compile(r"\d{1,3}", re.ASCII)
_COLOURS: Final = ((9, "red"), (6, "bright_red"), (3, "yellow"), (0, "green"))


def priority_of(said: Mapping[str, Any]) -> int:
    """The number of what has a priority such as `7/Critical`; 0 if it has none."""
    priority = said.get("priority")
    number = priority.partition("/")[0].strip() if isinstance(priority, str) else ""
    return int(number) if _NUMBER.fullmatch(number) else 0


def category(priority: int) -> str:
    """`critical`, of 0 to 10."""
    return next((name for least, name in CATEGORIES if priority >= least), "").lower()


def colour_of(priority: int) -> str:
    """The colour of a priority, 0 to 10."""
    return next((name for least, name in _COLOURS if priority >= least), "green")
