"""How a collector is doing, for metrics. Counts only."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(slots=True)
class Status:
    """A collector's record. age: seconds since the last good look; None: there was none."""

    name: str
    enabled: bool = False
    failures: int = 0
    _last: float | None = None

    def good(self) -> None:
        """A look was good."""
        self._last = time.monotonic()

    def failed(self) -> None:
        """A look failed."""
        self.failures += 1

    @property
    def age(self) -> float | None:
        return None if self._last is None else time.monotonic() - self._last
