"""Waiting until something is so: with a deadline, and without a guess how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

# A loaded machine is slow; a test that hangs is still told in time. s
DEADLINE: Final = 60.0


def wait_for(
    condition: Callable[[], T | None], what: str = "it", seconds: float = DEADLINE
) -> T:
    """The first true value of the condition.

    Raises: AssertionError, which names what was waited for, when there is none in time.
    """
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.01)
    return value
