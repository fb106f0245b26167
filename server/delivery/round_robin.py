"""Turns for readers that are behind: what was read for them is handed over in small slices.

However many clients read back history, the event loop is theirs for a slice at a time. A live
event, from its request to its telling, takes some ten turns of the loop, and waits for a slice
in most of them: so a slice is a handful of writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

# The longest a slice lasts before the loop looks at its sockets again; s.
SLICE: Final = 0.00025
# Turns of the loop that new events go first, which is more than they take to be told to a few.
# Where there are ever more to tell, or many to tell them to, there is a slice after so many.
PATIENCE: Final = 8


class Reader(Protocol):
    """Who is behind."""

    def feed(self) -> None:
        """Take what was read, and have more read."""
        ...


class RoundRobin:
    """Readers for whom something was read, in the order in which it was.

    telling: are new events about to be told? They go first, for a few turns.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, telling: Callable[[], bool]) -> None:
        self._loop = loop
        self._telling = telling
        self._round: dict[Reader, None] = {}
        self._running = False
        # For so many turns in a row others went first.
        self._passed_over = 0

    def add(self, reader: Reader) -> None:
        """It has its turn when those before have had theirs."""
        self._round[reader] = None
        if not self._running:
            self._running = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        if self._passed_over < PATIENCE and self._telling():
            self._passed_over += 1
            self._loop.call_soon(self._turn)
            return
        self._passed_over = 0
        end = self._loop.time() + SLICE
        try:
            while self._round:
                reader = next(iter(self._round))
                del self._round[reader]
                reader.feed()
                if self._loop.time() >= end:
                    break
        finally:
            self._running = bool(self._round)
            if self._running:
                self._loop.call_soon(self._turn)
