"""Whose command is it that has fallen to us? Asked by keeper and guard when a starter is dead.

A command becomes the child of the nearest living reaper above it (dispatcher/reaper.py). If its
starter had no time to say which it is, it is known by its job's mark (dispatcher/dye.py) or by
its output's pipe. Standard library only.
"""
# ruff: noqa: PTH116, PTH208 - texts, as the system tells paths

from __future__ import annotations

import os
from collections.abc import Container

from dispatcher import dye
from dispatcher.identity import HAS_PROC, TICK, Stat, read_stat
from dispatcher.output_files import log_path, may_have_begun, pipe_path


class Doubt(Exception):
    """It may have begun, and there is no way to tell who it is."""


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
    if not may_have_begun(log_path(*job)):
        # It was not even about to when its starter died.
        return None
    if not HAS_PROC:
        raise Doubt
    young = [
        child
        for child in _children()
        if child.pid not in known and child.start >= since - 2 * TICK
    ]
    mark = dye.mark(job[0], place)
    pipe = _pipe(job)
    # What it has started itself may have fallen to us as well, but is younger.
    young.sort(key=lambda child: (child.start, child.pid))
    held = {child.pid: _pipes_of(child.pid) for child in young}
    for child in young:
        if pipe is not None and pipe in held[child.pid]:
            if child is not young[0] and not dye.can_tell():
                # An older one may have been the command, and have ended.
                raise Doubt
            return child.pid
    for child in young:
        # Others of the job's have the pipes of commands before it.
        if dye.dyed(child.pid) == mark and not held[child.pid]:
            return child.pid
    if not dye.can_tell():
        raise Doubt
    return None


def _pipe(job: list[int]) -> tuple[int, int] | None:
    """Device and inode of its pipe."""
    try:
        found = os.lstat(pipe_path(*job))
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _children() -> list[Stat]:
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    stats = (read_stat(pid) for pid in pids)
    return [stat for stat in stats if stat is not None and stat.parent == os.getpid()]


def _pipes_of(pid: int) -> set[tuple[int, int]]:
    """Device and inode of all pipes of commands that it has open.

    Before it is the program, not yet as its output.
    """
    directory = f"/proc/{pid}/fd"
    found: set[tuple[int, int]] = set()
    try:
        names = os.listdir(directory)
    except OSError:
        return found
    for name in names:
        link = f"{directory}/{name}"
        try:
            # The name first: to ask for more of a file may hang where its server does.
            if os.readlink(link).endswith(".pipe"):  # noqa: PTH115
                there = os.stat(link)
                found.add((there.st_dev, there.st_ino))
        except OSError:
            continue
    return found
