"""Where a command's log is, and reading it. The daemon never writes one: the command does."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sysadmd import text

# Bytes of the longest UTF-8 character.
_LONGEST = 4
# The mode of a log that was made lest its command make it, and of one whose command may have
# begun: until just before that it has another one (dispatcher/starter.py).
_BARRED = 0o400
_BEGUN = 0o600


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


@dataclass(frozen=True, slots=True)
class LogFiles:
    """All logs below a state directory, by the numbers of jobs and commands."""

    state_dir: Path

    def size(self, uid: int, n: int) -> int | None:
        """Bytes in a log; None: there is none."""
        file = path(self.state_dir, uid, n)
        return size(file) if is_there(file) else None

    def may_have_begun(self, uid: int, n: int) -> bool:
        """Of a command whose starter is dead. False: it was not even about to, for sure."""
        return may_have_begun(path(self.state_dir, uid, n))

    def forget(self, uid: int, n: int) -> None:
        """Remove the log of a command that did not begin."""
        path(self.state_dir, uid, n).unlink(missing_ok=True)


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


def may_have_begun(path: Path) -> bool:
    """Of a command whose starter is dead. False: it was not even about to, for sure."""
    try:
        return stat.S_IMODE(path.lstat().st_mode) == _BEGUN
    except OSError:
        return False


def set_aside(state_dir: Path, uids: Iterable[int]) -> Path:
    """Move these jobs' logs out of the way; returns where they are."""
    aside = state_dir / f"jobs-aside-{time.time_ns()}"
    aside.mkdir(mode=0o700)
    for uid in uids:
        directory(state_dir, uid).rename(aside / str(uid))
    return aside


def bar(path: Path) -> bool:
    """Make a command's log before it can, so that it never begins. False: it has begun.

    Raises: OSError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        try:
            os.close(os.open(path, flags, _BARRED))
        except FileExistsError:
            # An earlier daemon may have done it, and have had no time to say so.
            return stat.S_IMODE(path.lstat().st_mode) == _BARRED
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            return True


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
