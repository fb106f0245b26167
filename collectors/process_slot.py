"""Room for one process at a time, across restarts of the daemon.

A process can sit in the kernel and outlive KILL, and any outlives a kill -9 of the daemon. Each
therefore inherits the lock on a file that holds its process group: while the lock is held, the
group is there, and its number is nobody else's.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

# How long KILL may take to work on what an earlier daemon left; s.
KILL_TIME: Final = 2.0
_PAUSE: Final = 0.02
# A process number's digits, and more.
_NUMBER_SIZE: Final = 32


class Outstanding(Exception):
    """An earlier process has not ended; nothing may be started."""


class ProcessSlot:
    """The right to start a process, told apart by a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def take(self) -> int:
        """The lock, as a descriptor: close it once the process runs or is not to be started.

        What still holds it is killed first. Raises: Outstanding, OSError.
        """
        lock = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await self._lock(lock)
        except BaseException:
            os.close(lock)
            raise
        # Until the new process has signed, nobody is named.
        os.ftruncate(lock, 0)
        return lock

    async def _lock(self, lock: int) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + KILL_TIME
        killed = False
        while True:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                killed = killed or _kill_group(lock)
            if loop.time() >= end:
                raise Outstanding("an earlier process has not ended: it sits in the kernel")
            await asyncio.sleep(_PAUSE)


def signing(lock: int) -> Callable[[], None]:
    """What the process runs between fork and exec, as the first of its group."""

    def sign() -> None:
        # In this process alone: another one must not carry the lock off.
        os.set_inheritable(lock, True)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        # The daemon's threads block what one of them takes.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return sign


def end_signed(lock: int) -> None:
    """Kill who signed, a child of ours, and reap it."""
    if _kill_group(lock):
        with suppress(ChildProcessError):
            os.waitpid(_signed(lock), 0)


def _kill_group(lock: int) -> bool:
    """Kill who signed; False: nobody has yet."""
    group = _signed(lock)
    if group <= 1:
        return False
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    return True


def _signed(lock: int) -> int:
    """0: nobody has signed yet."""
    text = os.pread(lock, _NUMBER_SIZE, 0)
    return int(text) if text.isdigit() else 0
