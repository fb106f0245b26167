"""Which processes can write to a file: told by the descriptors they have open.

Readers are nobody's business: whoever follows a log is no part of its job. Slow for processes
with many descriptors, so ask of few. No signal, no job, no table.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from dispatcher.identity import HAS_PROC
from sysadmd.machine import COMMAND_PATH

_ACCESS: Final = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
# Source: proc_pid_fdinfo(5): octal, access mode and status flags.
_FLAGS: Final = re.compile(r"^flags:\s*([0-7]+)$", re.MULTILINE)
# How long fuser(1) may take, s.
_PATIENCE: Final = 5.0


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it is told from others. path: without links."""

    path: str
    device: int
    inode: int
    is_pipe: bool


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
        return self._has_open(pid) if HAS_PROC else self._has_open_portable(pid)

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
            self._of_pipes = _users([file.path for file in self._files if file.is_pipe])
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
