"""The words of events: systems, priorities and their categories. Source: events.rst."""

from __future__ import annotations

from typing import Final

# The position here is a system's number in the database, and the place of its count in every
# stored place and cursor: a further one is put at the end, and no order ever changes.
SYSTEMS: Final[tuple[str, ...]] = ("dispatcher", "life-preserver", "system-state")
CATEGORIES: Final = ((9, "Urgent"), (6, "Critical"), (3, "Warning"), (0, "Information"))


def format_priority(number: int) -> str:
    """`9` -> `"9/Urgent"`. Source: events.rst, `priority`; contract: 0-2, 3-5, 6-8, 9-10."""
    return next(f"{number}/{name}" for least, name in CATEGORIES if number >= least)
