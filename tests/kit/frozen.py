"""Processes that stand still until they are let go, whatever signal they get but KILL.

As under a debugger: by ptrace(2), so these are to be called in one and the same thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from typing import Final

from tests.kit.needs import needs_linux
from tests.kit.processes import end

# Source: ptrace(2), waitpid(2) of Linux.
_SEIZE: Final = 0x4206
_INTERRUPT: Final = 0x4207
_DETACH: Final = 17
_WALL: Final = 0x40000000

_libc: Final = ctypes.CDLL(None, use_errno=True)


def _ptrace(request: int, pid: int) -> None:
    if _libc.ptrace(*(ctypes.c_long(each) for each in (request, pid, 0, 0))) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def freeze(pid: int) -> None:
    """From here on it does nothing. Its parent is not told."""
    needs_linux("PTRACE_SEIZE")
    _ptrace(_SEIZE, pid)
    _ptrace(_INTERRUPT, pid)
    os.waitpid(pid, _WALL)


def thaw(pid: int) -> None:
    """It goes on; nothing happens if somebody has killed it."""
    try:
        _ptrace(_DETACH, pid)
    except OSError:
        was_killed(pid)


def end_frozen(pid: int) -> None:
    """SIGKILL; its parent sees the end."""
    end(pid, signal.SIGKILL)
    os.waitpid(pid, _WALL)


def was_killed(pid: int) -> bool:
    """Has somebody killed it? Only when this was true its parent sees the end."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, _WALL | os.WNOHANG)[0] == pid
    return False
