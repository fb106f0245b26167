"""Whose command is it that has fallen to us? Asked by keeper and guard when a starter is dead.

A command becomes the child of the nearest living reaper above it, where the system has such a
thing. If its starter had no time to say which it is, it is known by its job's mark
(dispatcher/dye.py) or by its log, which is its output. Standard library only.
"""
# ruff: noqa: PTH116, PTH208 - texts, as the system tells paths

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Container
from typing import Final

from dispatcher import dye
from dispatcher.identity import HAS_PROC, TICK, Stat, read_stat
from sysadmd.machine import FORCED_PORTABLE

# Source: prctl(2), PR_SET_CHILD_SUBREAPER; procctl(2), PROC_REAP_ACQUIRE.
_PR_SET_CHILD_SUBREAPER: Final = 36
_PROC_REAP_ACQUIRE: Final = 2
_P_PID: Final = 0
# The mode of a log whose command may have begun.
BEGUN: Final = 0o600


class Doubt(Exception):
    """It may have begun, and there is no way to tell who it is."""


def become_reaper() -> None:
    """Orphaned descendants become our children, where the system has such a thing."""
    if FORCED_PORTABLE:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform.startswith("freebsd"):
        libc.procctl(_P_PID, ctypes.c_int64(os.getpid()), _PROC_REAP_ACQUIRE, None)
    elif sys.platform.startswith("linux"):
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def is_ours(pid: int) -> bool:
    """Is there a child of this pid, ended ones included?"""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def find(job: list[int], since: float, place: int, known: Container[int]) -> int | None:
    """The child that is this command, whose starter is dead and has not said it.

    Its process is not older than `since`. place: of the dye. known: other children. None: it
    never began. Ask before any other child is reaped. Raises: Doubt.
    """
    log = _begun_log(job)
    if log is None:
        return None
    if not HAS_PROC:
        raise Doubt
    young = [
        child
        for child in _children()
        if child.pid not in known and child.start >= since - 2 * TICK
    ]
    mark = dye.mark(job[0], place)
    # What it has started itself may have fallen to us as well, but is younger.
    for child in sorted(young, key=lambda child: (child.start, child.pid)):
        if dye.dyed(child.pid) == mark or _holds(child.pid, log):
            return child.pid
    if young and not dye.can_tell():
        raise Doubt
    return None


def _begun_log(job: list[int]) -> os.stat_result | None:
    """Its log; None: it was not even about to begin when its starter died."""
    try:
        log = os.lstat(f"jobs/{job[0]}/{job[1]}.log")
    except OSError:
        return None
    return log if stat.S_IMODE(log.st_mode) == BEGUN else None


def _children() -> list[Stat]:
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    stats = (read_stat(pid) for pid in pids)
    return [stat for stat in stats if stat is not None and stat.parent == os.getpid()]


def _holds(pid: int, log: os.stat_result) -> bool:
    """Has it the log open? Before it is the program, not yet as its output."""
    directory = f"/proc/{pid}/fd"
    try:
        names = os.listdir(directory)
    except OSError:
        return False
    for name in names:
        link = f"{directory}/{name}"
        try:
            # The name first: to ask for more of a file may hang where its server does.
            if not os.readlink(link).endswith(".log"):  # noqa: PTH115
                continue
            there = os.stat(link)
        except OSError:
            continue
        if (there.st_dev, there.st_ino) == (log.st_dev, log.st_ino):
            return True
    return False
