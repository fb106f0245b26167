"""Who a process is: its pid and its start, relative to boot. No signal, no psutil, no table.

A pid alone says nothing: it may belong to another process by now. The start is told relative to
boot, since the wall clock steps. Standard library only: guard and keeper use this, too.
"""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sysadmd.machine import FORCED_PORTABLE

# Of a start as /proc tells it: cut to whole ticks; s.
TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
# Of a start as psutil tells it: the time of boot that it is relative to has whole seconds; s.
COARSE: Final = 1.1

# Linux's /proc may be read.
HAS_PROC: Final = not FORCED_PORTABLE and Path("/proc/self/stat").exists()

_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_clock() -> float:
    """Seconds since boot; goes on while the machine sleeps, never steps."""
    return time.clock_gettime(_BOOT_CLOCK)


def boot_id() -> str:
    """A text that is another one after each boot; empty where the system has none."""
    if not HAS_PROC:
        return "" if FORCED_PORTABLE else _sysctl_boot_id()
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _sysctl_boot_id() -> str:
    """FreeBSD's, 16 random bytes, in hexadecimal; its time of boot moves with the wall clock.

    Source: sys/kern/kern_mib.c of 13.0, where it is new.
    """
    size, text = ctypes.c_size_t(16), ctypes.create_string_buffer(16)
    try:
        ask = ctypes.CDLL(None).sysctlbyname
    except (AttributeError, OSError):
        return ""
    if ask(b"kern.boot_id", text, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return ""
    return text.raw[: size.value].hex()


@dataclass(frozen=True, slots=True)
class Stat:
    """What the system says of a process.

    start: seconds since boot; zombie: it has ended; stopped: by a signal or a debugger.
    """

    pid: int
    parent: int
    group: int
    session: int
    start: float
    zombie: bool
    stopped: bool


def read_stat(pid: int) -> Stat | None:
    """From Linux's /proc; None: there is no such process. Source: proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - half the cost of a Path
            text = file.read()
    except OSError:
        return None
    # The name in brackets may hold anything, brackets and blanks included.
    fields = text[text.rindex(b")") + 2 :].split()
    return Stat(
        pid=pid,
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        start=int(fields[19]) * TICK,
        zombie=fields[0] in (b"Z", b"X"),
        stopped=fields[0] in (b"T", b"t"),
    )


@dataclass(frozen=True, slots=True)
class Identity:
    """One process for ever.

    earliest, latest: by our own boot clock before it was made, and when it first ran. Since
    nobody else reaped it meanwhile, a process of this pid that started between them is the one.
    """

    pid: int
    earliest: float
    latest: float

    def is_start(self, measured: float, coarse: bool) -> bool:
        """Is a process of our pid with this start the one? coarse: measured by psutil."""
        slack = COARSE if coarse else 2 * TICK
        return self.earliest - slack <= measured <= self.latest + slack
