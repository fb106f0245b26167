"""The guard: the keeper's parent, and the net under it. Starts no command, talks to nobody.

Does nothing until the keeper dies. Then the keeper's children, ended ones included, fall to
the guard, since it is the reaper of its descendants where the system has such a thing; it lists
them in the book, writes down the end of each, and goes. If guard and keeper die together, the
codes of the commands then running are nowhere: they end as `lost`. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dispatcher import book, dye
from dispatcher.identity import HAS_PROC, boot_clock, read_stat
from sysadmd.machine import FORCED_PORTABLE

# Source: prctl(2), PR_SET_CHILD_SUBREAPER; procctl(2), PROC_REAP_*.
_PR_SET_CHILD_SUBREAPER: Final = 36
_PROC_REAP_ACQUIRE: Final = 2
_P_PID: Final = 0


@dataclass(frozen=True, slots=True)
class Setup:
    """What guard and keeper are told at their start. limits: those that commands get."""

    id: str
    version: str
    limits: dict[int, tuple[int, int]]


def read_setup(argv: list[str]) -> Setup:
    """From the command line; goes to the state directory, where all paths are relative to."""
    state_dir, id, version, limits = argv
    os.chdir(state_dir)
    pairs = {int(kind): (soft, hard) for kind, (soft, hard) in json.loads(limits).items()}
    return Setup(id, version, pairs)


def return_code(ended: os.waitid_result) -> int:
    """0..255, or minus the signal. si_code says which of the two si_status is."""
    # FreeBSD tells all 32 bits of what was given to exit().
    return ended.si_status & 0xFF if ended.si_code == os.CLD_EXITED else -ended.si_status


def run(setup: Setup, keep: Callable[[Setup, socket.socket, int], int]) -> int:
    """Leave the daemon, start the keeper, and guard it. Returns the exit status."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    # A job may have started the daemon.
    dye.wash()
    ready, ready_end = os.pipe()
    if os.fork():
        # The daemon waits for this process alone: it is parent of neither guard nor keeper.
        os.close(ready_end)
        return 0 if os.read(ready, 1) else 1
    os.close(ready)
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    reaper = not FORCED_PORTABLE and _become_reaper()
    guard_end, keeper_end = socket.socketpair()
    keeper = os.fork()
    if keeper == 0:
        guard_end.close()
        return keep(setup, keeper_end, ready_end)
    keeper_end.close()
    os.close(ready_end)
    # Shows for as long as we live that we do. A record lock: the keeper does not inherit it.
    lock = os.open(Path("keeper", f"{setup.id}.guard"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.lockf(lock, fcntl.LOCK_EX)
    return _Guard(setup, keeper, guard_end, reaper).run()


class _Guard:
    def __init__(
        self, setup: Setup, keeper: int, keeper_line: socket.socket, reaper: bool
    ) -> None:
        self._setup = setup
        self._keeper = keeper
        self._line = keeper_line
        self._reaper = reaper
        self._book: book.BookWriter | None = None
        # Of the dead keeper's children, those that may be commands and have not ended.
        self._owed: set[int] = set()

    def run(self) -> int:
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            except ChildProcessError:
                return 0
            assert ended is not None
            if ended.si_pid == self._keeper or self._is_alone():
                code = self._bury()
                if code is not None:
                    return code
                continue
            if self._book is not None:
                self._write_end(ended)
            os.waitpid(ended.si_pid, 0)
            if self._book is not None and not self._owed:
                return 0

    def _is_alone(self) -> bool:
        """Is the keeper dying, though not yet a zombie? Its descriptors go before its children
        fall to us, so a zombie that we see while the line still stands is not one of them."""
        if self._book is not None:
            return False
        self._line.setblocking(False)
        try:
            return self._line.recv(1) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _bury(self) -> int | None:
        """Write down what the keeper leaves; an exit status if that is nothing."""
        ended = os.waitid(os.P_PID, self._keeper, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        if return_code(ended) == 0:
            # It went by itself and owed nothing.
            os.waitpid(self._keeper, 0)
            return 0
        # Ends only when a child that was between fork and exec is through as well: what is
        # listed after that is what it will be.
        self._line.setblocking(True)
        with contextlib.suppress(OSError):
            self._line.recv(1)
        newest = book.generations(Path("keeper"), self._setup.id)
        self._book = book.BookWriter(
            Path("keeper"), self._setup.id, newest[-1] if newest else 1
        )
        children = self._children() if self._reaper else None
        # Begins with a line's end: the keeper may have died in the middle of a line.
        self._book.blank()
        self._book.write({"dead": True, "children": children, "at": boot_clock()})
        os.waitpid(self._keeper, 0)
        self._owed = {pid for pid, _, leads, _, _ in children or () if leads}
        return None if self._owed else 0

    def _write_end(self, ended: os.waitid_result) -> None:
        assert self._book is not None
        stat = read_stat(ended.si_pid) if HAS_PROC else None
        self._book.write(
            {
                "orphan": ended.si_pid,
                "start": stat and stat.start,
                "code": return_code(ended),
                "time": time.time(),
            }
        )
        self._owed.discard(ended.si_pid)

    def _children(self) -> list[tuple[int, float | None, bool, str | None, bool]]:
        """Our children but the keeper: pid, start, leads its group, its stdout, has ended."""
        if sys.platform.startswith("freebsd"):
            return _reaped_children(self._keeper)
        found: list[tuple[int, float | None, bool, str | None, bool]] = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            stat = read_stat(int(entry.name))
            if stat is None or stat.parent != os.getpid() or stat.pid == self._keeper:
                continue
            try:
                output = str(Path(f"/proc/{stat.pid}/fd/1").readlink())
            except OSError:
                output = None
            leads = stat.group == stat.pid
            found.append((stat.pid, stat.start, leads, output, stat.zombie))
        return found


def _become_reaper() -> bool:
    """Orphaned descendants become our children. False: this system has no such thing."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform.startswith("freebsd"):
        this = ctypes.c_int64(os.getpid())
        return bool(libc.procctl(_P_PID, this, _PROC_REAP_ACQUIRE, None) == 0)
    if sys.platform.startswith("linux"):
        return bool(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    return False


class _ReaperPid(ctypes.Structure):
    """Source: sys/procctl.h, struct procctl_reaper_pidinfo."""

    _fields_ = [
        ("pid", ctypes.c_int32),
        ("subtree", ctypes.c_int32),
        ("flags", ctypes.c_uint),
        ("pad", ctypes.c_uint * 15),
    ]


class _ReaperPids(ctypes.Structure):
    """Source: sys/procctl.h, struct procctl_reaper_pids."""

    _fields_ = [
        ("count", ctypes.c_uint),
        ("pad", ctypes.c_uint * 15),
        ("pids", ctypes.POINTER(_ReaperPid)),
    ]


_PROC_REAP_GETPIDS: Final = 5
_REAPER_PIDINFO_VALID: Final = 1
_REAPER_PIDINFO_CHILD: Final = 2
_REAPER_PIDINFO_ZOMBIE: Final = 8
# Descendants of one keeper that are looked at; those beyond are looked for in vain and `lost`.
_MOST_PIDS: Final = 8192


def _reaped_children(
    keeper: int,
) -> list[tuple[int, float | None, bool, str | None, bool]]:
    """As `_Guard._children`, where the reaper itself can be asked: starts are not told."""
    entries = (_ReaperPid * _MOST_PIDS)()
    request = _ReaperPids(count=_MOST_PIDS, pids=entries)
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.procctl(
        _P_PID, ctypes.c_int64(os.getpid()), _PROC_REAP_GETPIDS, ctypes.byref(request)
    )
    found: list[tuple[int, float | None, bool, str | None, bool]] = []
    for entry in entries if not failed else ():
        if not entry.flags & _REAPER_PIDINFO_VALID:
            break
        if not entry.flags & _REAPER_PIDINFO_CHILD or entry.pid == keeper:
            continue
        try:
            leads = os.getpgid(entry.pid) == entry.pid
        except OSError:
            # A zombie is not told of; it may have been one.
            leads = True
        ended = bool(entry.flags & _REAPER_PIDINFO_ZOMBIE)
        found.append((entry.pid, None, leads, None, ended))
    return found
