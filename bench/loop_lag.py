"""How late the daemon's loop was while something was measured, by its own histogram."""

from __future__ import annotations

from typing import Final

from bench.table import Row
from server.loop_clock import BOUNDS
from tests.kit import Daemon

# A turn of the loop is to be no longer, ms: others wait for it.
LONGEST: Final = 5
_BUCKET: Final = "sysadmd_loop_lag_seconds_bucket"


def lag(daemon: Daemon, what: str) -> Row:
    """The bound below which 99 of 100 beats were, four a second since the daemon's start. what:
    meanwhile."""
    counts = [
        float(line.rpartition(" ")[2])
        for line in daemon.fetch("/metrics")[1].splitlines()
        if line.startswith(_BUCKET)
    ]
    bound = next(
        bound
        for bound, count in zip((*BOUNDS, float("inf")), counts, strict=True)
        if count >= 0.99 * counts[-1]
    )
    return Row(
        name=f"the loop is late, p99, {what}: at most",
        unit="ms",
        now=bound * 1000,
        floor=LONGEST,
        target=LONGEST,
    )
