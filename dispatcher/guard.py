"""The guard: the keeper's parent, and the net under it. Starts no command, talks to nobody.

Does nothing until the keeper dies. Then the keeper's children, ended ones included, fall to the
guard, since it is the reaper of its descendants where the system has such a thing. The book
says which of them are commands; it writes down the end of each, and goes. If guard and keeper
die together, the codes of the commands then running are nowhere: they end as `lost`. Standard
library only.
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dispatcher import book, dye
from sysadmd.machine import FORCED_PORTABLE

# Source: prctl(2), PR_SET_CHILD_SUBREAPER; procctl(2), PROC_REAP_ACQUIRE.
_PR_SET_CHILD_SUBREAPER: Final = 36
_PROC_REAP_ACQUIRE: Final = 2
_P_PID: Final = 0
# Signals that guard and keeper do not take.
QUIET: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


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
    # Not ignored: a command would inherit that. What becomes one takes them when it begins.
    signal.pthread_sigmask(signal.SIG_BLOCK, QUIET)
    if not FORCED_PORTABLE:
        _become_reaper()
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
    return _guard(setup, keeper, guard_end)


def _guard(setup: Setup, keeper: int, line: socket.socket) -> int:
    """Until there is nothing left to tell."""
    while True:
        # Descendants that have lost their parents may be among those that end.
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        if ended.si_pid == keeper or _hangs_up(line):
            break
        os.waitpid(ended.si_pid, 0)
    ended = os.waitid(os.P_PID, keeper, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    if return_code(ended) == 0:
        # It went by itself and owed nothing.
        return 0
    # Ends when a process that may still begin a command has begun it, or gone.
    line.setblocking(True)
    with contextlib.suppress(OSError):
        line.recv(1)
    newest = book.generations(Path("keeper"), setup.id)
    writer = book.BookWriter(Path("keeper"), setup.id, newest[-1] if newest else 1)
    owed = _running(writer.lines())
    writer.write({"dead": True})
    os.waitpid(keeper, 0)
    return _reap(owed, writer)


def _hangs_up(line: socket.socket) -> bool:
    """Is the keeper dying, though not yet a zombie? Its descriptors go before its children fall
    to us, so a zombie that we see while the line still stands is not one of them."""
    line.setblocking(False)
    try:
        return line.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _running(lines: list[book.Line]) -> dict[int, list[int]]:
    """Commands that have begun and not ended, by pid: nobody else has one meanwhile."""
    running: dict[int, list[int]] = {}
    for line in lines:
        if "began" in line:
            running[line["pid"]] = line["began"]
        elif "end" in line:
            running = {pid: job for pid, job in running.items() if job != line["end"]}
    return running


def _reap(owed: dict[int, list[int]], writer: book.BookWriter) -> int:
    """Write down the end of each that has fallen to us, before it is reaped."""
    owed = {pid: job for pid, job in owed.items() if _is_ours(pid)}
    while owed:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        job = owed.pop(ended.si_pid, None)
        if job is not None:
            writer.write(book.end(job, return_code(ended)))
        os.waitpid(ended.si_pid, 0)
    return 0


def _is_ours(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _become_reaper() -> None:
    """Orphaned descendants become our children, where the system has such a thing."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform.startswith("freebsd"):
        libc.procctl(_P_PID, ctypes.c_int64(os.getpid()), _PROC_REAP_ACQUIRE, None)
    elif sys.platform.startswith("linux"):
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
