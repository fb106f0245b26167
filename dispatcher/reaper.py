"""To be the reaper of one's descendants: those that lose their parents become one's children.

FreeBSD's kernel remembers by which child of its reaper's a process came to be, whatever that
one's end, and whatever session it went to: so a command's descendants are known. Standard
library only: guard, keeper and starters are such reapers.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any, Final

from sysadmd.machine import FORCED_PORTABLE

# Source: prctl(2).
_PR_SET_CHILD_SUBREAPER: Final = 36
# Source: procctl(2) and <sys/procctl.h> of FreeBSD.
_P_PID: Final = 0
_PROC_REAP_ACQUIRE: Final = 2
_PROC_REAP_STATUS: Final = 4
_PROC_REAP_GETPIDS: Final = 5
_PIDINFO_VALID: Final = 1
# Asked about at once: who has as many descendants is asked again, with room for twice as many.
_ROOM: Final = 256


class _Status(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint),
        ("children", ctypes.c_uint),
        ("descendants", ctypes.c_uint),
        ("reaper", ctypes.c_int32),
        ("pid", ctypes.c_int32),
        ("pad", ctypes.c_uint * 15),
    )


class _Info(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_int32),
        ("subtree", ctypes.c_int32),
        ("flags", ctypes.c_uint),
        ("pad", ctypes.c_uint * 15),
    )


class _Pids(ctypes.Structure):
    _fields_ = (
        ("count", ctypes.c_uint),
        ("pad", ctypes.c_uint * 15),
        ("pids", ctypes.POINTER(_Info)),
    )


def _find(name: str, system: str) -> Any:
    if FORCED_PORTABLE or not sys.platform.startswith(system):
        return None
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None


_prctl: Final = _find("prctl", "linux")
_procctl: Final = _find("procctl", "freebsd")


def become() -> None:
    """Orphaned descendants become our children, where the system has such a thing."""
    if _prctl is not None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if _procctl is not None:
        _ask(os.getpid(), _PROC_REAP_ACQUIRE, None)


def origin(pid: int) -> tuple[int, int] | None:
    """The reaper of a process, and the child of that one's from which it descends.

    That child may have ended long ago. None: it is gone, or the system does not remember.
    """
    if _procctl is None:
        return None
    status = _Status()
    if not _ask(pid, _PROC_REAP_STATUS, ctypes.byref(status)) or status.reaper == pid:
        # It is one itself, and would be told of its own.
        return None
    room = _ROOM
    while True:
        found = (_Info * room)()
        asked = _Pids(count=room, pids=found)
        if not _ask(pid, _PROC_REAP_GETPIDS, ctypes.byref(asked)):
            return None
        for one in found:
            if one.pid == pid and one.flags & _PIDINFO_VALID:
                return status.reaper, one.subtree
        if not found[-1].flags & _PIDINFO_VALID:
            return None
        room *= 2


def _ask(pid: int, command: int, data: Any) -> bool:
    return not _procctl(_P_PID, ctypes.c_int64(pid), command, data)
