"""Pipes between a command's and its log, for those who write much. Linux; elsewhere none.

While a pipe is emptied into a file its lock is held, and who writes to it waits. So what is in
it is passed on into another pipe first, which moves references and copies nothing, and written
from there (dispatcher/relay.py). A starter that is killed in between leaves it there. So the
guard makes these pipes, keeper and starters inherit them, and the book has which of them
belongs to a command: who goes on begins with what is in that. Standard library only.

Source: splice(2), pipe(7).
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from sysadmd.machine import FORCED_PORTABLE

# Only this many starters at a time have one: as many as stand by (dispatcher/crew.py). To be
# inherited they have to be there before.
_MOST: Final = 8


class Transit(NamedTuple):
    """One of them, by its ends."""

    outlet: int
    inlet: int


def can_move() -> bool:
    """Does the system move bytes between pipes and files, and are we to use that?"""
    return hasattr(os, "splice") and not FORCED_PORTABLE


class Transits:
    """All of them, by number, and which are free.

    At no time does the book have two commands with the same one that have not ended.
    """

    def __init__(self) -> None:
        """Before the fork of who inherits them. Raises: OSError."""
        count = _MOST if can_move() else 0
        self._all = [Transit(*os.pipe()) for _ in range(count)]
        self._free = list(range(count))

    def __getitem__(self, number: int | None) -> Transit | None:
        """None: there is none of this number."""
        return self._all[number] if number is not None and number < len(self._all) else None

    def take(self) -> int | None:
        """Let a starter have one, as long as it lives; its number. None: there are no more."""
        return self._free.pop() if self._free else None

    def give_back(self, number: int | None) -> None:
        """Its starter is dead, and so is what it served, by the book."""
        if number is not None:
            self._free.append(number)
