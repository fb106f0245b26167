"""How long to wait between attempts: the one rule for everything that is tried again."""

from __future__ import annotations

from collections.abc import Iterator


def backoff(first: float, longest: float) -> Iterator[float]:
    """`first`, then each time twice as long, at most `longest`; s. Begin anew: a new one."""
    pause = first
    while True:
        yield pause
        pause = min(2 * pause, longest)
