"""Which processes can write to a file: told by the descriptors they have open.

Readers are nobody's business: whoever follows a log is no part of its job. Slow for processes
with many descriptors, so ask of few. No signal, no job, no table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from dispatcher.identity import HAS_PROC

_ACCESS: Final = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
# Source: proc_pid_fdinfo(5): octal, access mode and status flags.
_FLAGS: Final = re.compile(r"^flags:\s*([0-7]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class WantedFile:
    """A file as it is told from others. path: without links."""

    path: str
    device: int
    inode: int


def wanted_files(files: Iterable[Path]) -> list[WantedFile]:
    """Those of the files that are there."""
    found: list[WantedFile] = []
    for file in files:
        path = os.path.realpath(file)
        try:
            stat = os.stat(path)  # noqa: PTH116 - a text, as the system tells paths
        except OSError:
            continue
        found.append(WantedFile(path, stat.st_dev, stat.st_ino))
    return found


def writes(pid: int, wanted: list[WantedFile]) -> bool:
    """Has this process any of these files open for writing? False if we may not know."""
    return _writes(pid, wanted) if HAS_PROC else _writes_portable(pid, wanted)


def _writes(pid: int, wanted: list[WantedFile]) -> bool:
    directory = f"/proc/{pid}/fd"
    try:
        descriptors = os.listdir(directory)  # noqa: PTH208 - hundreds of processes at once
    except OSError:
        return False
    # The name first: to ask for more of a file may hang where its server does.
    names = {file.path.rpartition("/")[2] for file in wanted}
    for descriptor in descriptors:
        link = f"{directory}/{descriptor}"
        try:
            if os.readlink(link).rpartition("/")[2] not in names:  # noqa: PTH115
                continue
            stat = os.stat(link)  # noqa: PTH116
            if not any((stat.st_dev, stat.st_ino) == (it.device, it.inode) for it in wanted):
                continue
            info = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text(encoding="ascii")
        except OSError:
            continue
        flags = _FLAGS.search(info)
        if flags and int(flags[1], 8) & _ACCESS != os.O_RDONLY:
            return True
    return False


def _writes_portable(pid: int, wanted: list[WantedFile]) -> bool:
    """Regular files only: psutil tells of no others."""
    paths = {file.path for file in wanted}
    try:
        files = psutil.Process(pid).open_files()
    except psutil.Error:
        return False
    for file in files:
        mode: str | None = getattr(file, "mode", None)
        # Where it is not told, a command's output shows who inherited it.
        if file.path in paths and (file.fd in (1, 2) if mode is None else mode != "r"):
            return True
    return False
