"""Where a command's log is, and reading it. The daemon never writes one: the command does."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from sysadmd import text

# Bytes of the longest UTF-8 character.
_LONGEST = 4


def directory(state_dir: Path, uid: int) -> Path:
    """The directory of a job's logs."""
    return state_dir / "jobs" / str(uid)


def path(state_dir: Path, uid: int, n: int) -> Path:
    """The log of command `n` of a job; it is there from just before the command's start."""
    return state_dir / f"jobs/{uid}/{n}.log"


def size(path: Path) -> int:
    """Bytes in a log; 0 if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def is_there(path: Path) -> bool:
    """False: it was never made, or somebody deleted it."""
    return path.exists()


def read(path: Path, offset: int, limit: int) -> bytes:
    """At most `limit` bytes from `offset` on; fewer at the end, none if the log is gone."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(file, limit, offset)
    except OSError:
        return b""
    finally:
        os.close(file)


def set_aside(state_dir: Path, uids: Iterable[int]) -> Path:
    """Move these jobs' logs out of the way; returns where they are."""
    aside = state_dir / f"jobs-aside-{time.time_ns()}"
    aside.mkdir(mode=0o700)
    for uid in uids:
        directory(state_dir, uid).rename(aside / str(uid))
    return aside


def is_held(path: Path) -> bool:
    """Does any process still hold the log open as its command was given it?

    The keeper takes a lock on it, which lives on in every copy of that descriptor. If it can't
    be told: yes.
    """
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def whole_characters(path: Path, start: int, end: int) -> int:
    """`end`, moved back so that start..end does not cut a UTF-8 character."""
    tail = read(path, max(start, end - _LONGEST), min(_LONGEST, end - start))
    return end - len(tail) + len(text.whole_characters(tail))


def uids(state_dir: Path) -> list[int]:
    """Of which jobs there are logs."""
    names = (entry.name for entry in (state_dir / "jobs").glob("*"))
    return [int(name) for name in names if name.isascii() and name.isdigit()]


def remove(state_dir: Path, uids: Iterable[int]) -> None:
    """Delete the logs of these jobs. Slow on some file systems: not for the event loop."""
    for uid in uids:
        shutil.rmtree(directory(state_dir, uid), ignore_errors=True)
