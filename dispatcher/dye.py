"""A mark that a process hands on to all that it starts: tells whose they are. Linux only.

It is in the timer slack, of which nobody else makes use here: a few microseconds more than the
kernel's own 50, by which sleeps may end late. It goes over fork, setsid and exec, so it stays
with those that left group and session and lost their parents. Standard library only, ready at
import: guard, keeper and starters use it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any, Final

from sysadmd.machine import FORCED_PORTABLE

# Source: prctl(2), PR_SET_TIMERSLACK, PR_GET_TIMERSLACK.
_SET: Final = 29
_GET: Final = 30
# The slack of who is not dyed, ns. Source: kernel/sched, init/init_task.c.
_PLAIN: Final = 50_000
# As many jobs can be told apart; the sleep of none gets 10 us longer.
MARKS: Final = 9_999
# Parts the marks of neighbouring places, whose jobs have like uids; prime to MARKS.
_STRIDE: Final = 7_919


def _find_prctl() -> Any:
    if FORCED_PORTABLE or not sys.platform.startswith("linux"):
        return None
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return None
    prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    return prctl


_prctl: Final = _find_prctl()


def mark(uid: int, place: int = 0) -> int:
    """1..MARKS: of a job; others of the same daemon that are fewer than MARKS away have others.

    place: tells this daemon's jobs from another one's: its state directory's inode.
    """
    return 1 + (uid + place * _STRIDE) % MARKS


def dye(uid: int, place: int = 0) -> None:
    """Mark this process, and what it starts from now on, as the job's; where there is a way."""
    if _prctl is not None:
        _prctl(_SET, _PLAIN + mark(uid, place), 0, 0, 0)


def wash() -> None:
    """Take any mark off: who was started by a job, but lives for others."""
    if _prctl is not None and _PLAIN < _prctl(_GET, 0, 0, 0, 0) <= _PLAIN + MARKS:
        _prctl(_SET, _PLAIN, 0, 0, 0)


def dyed(pid: int) -> int | None:
    """The mark that a process carries. None: none, it is gone, or we may not know.

    It takes CAP_SYS_NICE, which root has. Source: proc_pid_timerslack_ns(5).
    """
    if _prctl is None:
        return None
    try:
        with open(f"/proc/{pid}/timerslack_ns", "rb") as file:  # noqa: PTH123 - as in identity
            found = int(file.read()) - _PLAIN
    except (OSError, ValueError):
        return None
    return found if 1 <= found <= MARKS else None


def can_tell() -> bool:
    """May we know the marks of others, ended ones included?"""
    if _prctl is None:
        return False
    try:
        with open(f"/proc/{os.getppid()}/timerslack_ns", "rb") as file:  # noqa: PTH123
            file.read()
    except OSError:
        return False
    return True
