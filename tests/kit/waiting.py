"""Waiting until something is so: with a deadline, and without a guess how long it takes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

# How many times slower than others this machine is, an emulated one for instance: by so much
# all is longer that tests grant. The only place where that is taken into account.
SLOWNESS: Final = float(os.environ.get("SYSADMD_TEST_SLOWNESS", "1"))
# A loaded machine is slow; a test that hangs is still told in time. s
DEADLINE: Final = 60.0 * SLOWNESS


def wait_for(condition: Callable[[], T | None], what: str = "it", seconds: float = 60.0) -> T:
    """The first true value of the condition.

    Raises: AssertionError, which names what was waited for, when there is none in time.
    """
    end = time.monotonic() + seconds * SLOWNESS
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.01)
    return value
