"""A parent continues its child that somebody has stopped, at once.

One that is stopped holds its locks and says nothing: it is waited for without end, as if it
were at work. A job does that by mistake, with `kill -STOP $PPID`. Standard library only.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Container
from contextlib import suppress
from typing import Final

from dispatcher.trouble import complain

# How often that is told at most: a job may do it in a loop; s.
TOLD: Final = 60.0


class Stopped:
    """The children that were stopped. role: what they are for us, when it is told."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._told = -math.inf

    def go_on(self, ours: Container[int]) -> None:
        """Continue these of our children, if they are stopped; to be called at each SIGCHLD.

        Nobody else: a job may stop what is its own. Ends are left to be waited for.
        """
        # All before the first is continued: it may be stopped again, and again.
        for pid in list(iter(_next, 0)):
            if pid in ours:
                # It is not reaped, so the pid is still its own.
                os.kill(pid, signal.SIGCONT)
                now = time.monotonic()
                if now - self._told > TOLD:
                    self._told = now
                    complain(f"{self._role} {pid} was stopped by a signal; it goes on")


def _next() -> int:
    """A stopped child that was not told of yet; 0: there is none."""
    with suppress(ChildProcessError):
        seen = os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG)
        if seen is not None:
            return seen.si_pid
    return 0
