"""Which processes can write to a file: told by the descriptors they have open.

Readers are nobody's business: whoever follows a log is no part of its job. Slow for processes
with many descriptors, so ask of few. Linux tells it in /proc, FreeBSD by a sysctl: its fuser(1)
knows no fifo, and psutil no path of a file that was just made, but elsewhere these two do. No
signal, no job, no table.
"""

from __future__ import annotations

import ctypes
import os
import re
import stat
import struct
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from dispatcher.identity import HAS_PROC
from sysadmd.machine import COMMAND_PATH, FORCED_PORTABLE

_ACCESS: Final = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
# Source: proc_pid_fdinfo(5): octal, access mode and status flags.
_FLAGS: Final = re.compile(r"^flags:\s*([0-7]+)$", re.MULTILINE)
# struct kinfo_file: its size, type, descriptor, flags; device and inode, which are here since
# FreeBSD 12. Source: <sys/user.h>, KERN_PROC_FILEDESC.
_KINFO: Final = struct.Struct("=iiiiii8x256xQ8xQ")
_VNODE, _FIFO = 1, 4
_WRITES: Final = 2
# How long fuser(1) may take, s.
_PATIENCE: Final = 5.0


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it is told from others. path: without links."""

    path: str
    device: int
    inode: int
    is_pipe: bool

    @property
    def is_there(self) -> bool:
        """Is it still what has this name? A pipe that a job needs no more, others get."""
        try:
            found = os.lstat(self.path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (self.device, self.inode)


class Writers:
    """Who can write to any of these files: `pid in writers`; False if we may not know."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._files = [found for file in files if (found := _find(file))]
        self._of_pipes: set[int] | None = None

    def look_again(self) -> None:
        """What was found out by now may be so no more."""
        self._of_pipes = None

    def __contains__(self, pid: int) -> bool:
        if not self._files:
            return False
        if HAS_PROC:
            return self._has_open(pid)
        if _mib is not None:
            written = _written_by(pid)
            # Only now: if it has its name still, it had it when that was told.
            return any(
                (file.device, file.inode) in written and (file.is_there or not file.is_pipe)
                for file in self._files
            )
        return self._has_open_portable(pid)

    def _has_open(self, pid: int) -> bool:
        directory = f"/proc/{pid}/fd"
        try:
            descriptors = os.listdir(directory)  # noqa: PTH208 - hundreds of processes at once
        except OSError:
            return False
        # The name first: to ask for more of a file may hang where its server does.
        names = {file.path.rpartition("/")[2] for file in self._files}
        known = {(file.device, file.inode) for file in self._files}
        for descriptor in descriptors:
            link = f"{directory}/{descriptor}"
            try:
                if os.readlink(link).rpartition("/")[2] not in names:  # noqa: PTH115
                    continue
                found = os.stat(link)  # noqa: PTH116
                if (found.st_dev, found.st_ino) not in known:
                    continue
                info = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text(encoding="ascii")
            except OSError:
                continue
            flags = _FLAGS.search(info)
            if flags and int(flags[1], 8) & _ACCESS != os.O_RDONLY:
                return True
        return False

    def _has_open_portable(self, pid: int) -> bool:
        """Of regular files psutil tells, of pipes fuser(1), where it is."""
        if self._of_pipes is None:
            self._of_pipes = self._users_of_pipes()
        if pid in self._of_pipes:
            return True
        paths = {file.path for file in self._files if not file.is_pipe}
        try:
            opened = psutil.Process(pid).open_files() if paths else []
        except psutil.Error:
            return False
        for file in opened:
            mode: str | None = getattr(file, "mode", None)
            # Where it is not told, a command's output shows who inherited it.
            if file.path in paths and (file.fd in (1, 2) if mode is None else mode != "r"):
                return True
        return False

    def _users_of_pipes(self) -> set[int]:
        while True:
            pipes = [file for file in self._files if file.is_pipe and file.is_there]
            users = _users([file.path for file in pipes])
            # As above.
            if all(file.is_there for file in pipes):
                return users


def _find_mib() -> ctypes.Array[ctypes.c_int] | None:
    """Of what FreeBSD's kernel tells of a process's descriptors, the pid to be filled in."""
    if FORCED_PORTABLE or not sys.platform.startswith("freebsd"):
        return None
    mib, size = (ctypes.c_int * 4)(), ctypes.c_size_t(4)
    failed = ctypes.CDLL(None).sysctlnametomib(b"kern.proc.filedesc", mib, ctypes.byref(size))
    return None if failed else mib


_mib: Final = _find_mib()


def _written_by(pid: int) -> set[tuple[int, int]]:
    """Device and inode of all files and fifos that it can write to; none if we may not know."""
    assert _mib is not None
    mib = (ctypes.c_int * 4)(*_mib[:3], pid)
    sysctl, size = ctypes.CDLL(None).sysctl, ctypes.c_size_t()
    if sysctl(mib, 4, None, ctypes.byref(size), None, ctypes.c_size_t(0)):
        return set()
    # As much as the kernel says, with room for what is opened meanwhile.
    told = ctypes.create_string_buffer(size.value)
    if sysctl(mib, 4, told, ctypes.byref(size), None, ctypes.c_size_t(0)):
        return set()
    data, at = told.raw[: size.value], 0
    found: set[tuple[int, int]] = set()
    while at + _KINFO.size <= len(data):
        length, kind, file, _, flags, _, device, inode = _KINFO.unpack_from(data, at)
        # Those below 0 are no descriptors, but the program, its directory and such.
        if kind in (_VNODE, _FIFO) and file >= 0 and flags & _WRITES:
            found.add((device, inode))
        if length <= 0:
            break
        at += length
    return found


def _find(file: Path) -> _File | None:
    """None: it is not there, or a job has put something else in its place, which is to be
    nobody's mark."""
    path = os.path.realpath(file)
    try:
        found = file.lstat()
    except OSError:
        return None
    is_pipe = stat.S_ISFIFO(found.st_mode)
    if file.parent.is_symlink() or not (is_pipe or stat.S_ISREG(found.st_mode)):
        return None
    return _File(path, found.st_dev, found.st_ino, is_pipe)


def _users(paths: list[str]) -> set[int]:
    """Who has any of these open: of a job's pipes these are its processes, and ours."""
    if not paths:
        return set()
    try:
        # The numbers are on standard output, all else is not. Source: fuser(1) of POSIX.
        told = subprocess.run(
            ["fuser", *paths],  # noqa: S607 - of the PATH below
            env={"PATH": COMMAND_PATH},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return set()
    return {int(word) for word in told.split() if word.isdigit()}
