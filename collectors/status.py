"""How a collector is doing, for metrics and /healthz. Counts and ages only."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Status:
    """A collector's record. crashed: it raised, and has ended no look since."""

    name: str
    enabled: bool = False
    failures: int = 0
    crashed: bool = False
    _good: float | None = None
    _looked: float = field(default_factory=time.monotonic)

    def enable(self, enabled: bool) -> None:
        """It is at work, or is not to be."""
        if enabled > self.enabled:
            self._looked = time.monotonic()
        self.enabled = enabled
        self.crashed = self.crashed and enabled

    def good(self) -> None:
        """A look was good."""
        self._good = self._looked = time.monotonic()
        self.crashed = False

    def failed(self) -> None:
        """A look failed, and that is told as the collector's trouble."""
        self.failures += 1
        self._looked = time.monotonic()
        self.crashed = False

    def crash(self) -> None:
        """It raised what it does not expect."""
        self.failures += 1
        self.crashed = True

    @property
    def age(self) -> float | None:
        """Seconds since the last good look; None: there was none."""
        return None if self._good is None else time.monotonic() - self._good

    @property
    def silence(self) -> float:
        """Seconds since a look came to its end, good or failed, or since it is enabled."""
        return time.monotonic() - self._looked
