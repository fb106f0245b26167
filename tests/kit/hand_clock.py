"""A clock that the test moves."""

from __future__ import annotations


class Clock:
    """Seconds, from 0 on."""

    now = 0.0

    def __call__(self) -> float:
        return self.now
