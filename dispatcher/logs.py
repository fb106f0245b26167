"""Where a command's log is, and reading it. The daemon never writes one (dispatcher/relay.py).

A log is one file or, when it is long, several, between which bytes are missing; each byte has
its place, counted from the beginning of all that the command has written.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dispatcher import relay
from dispatcher.relay import BARRED
from sysadmd import text

# Bytes of the longest UTF-8 character.
_LONGEST = 4


def directory(state_dir: Path, uid: int) -> Path:
    """The directory of a job's logs."""
    return state_dir / "jobs" / str(uid)


def path(state_dir: Path, uid: int, n: int) -> Path:
    """The log of command `n` of a job; it is there from just before the command's start."""
    return state_dir / relay.log_path(uid, n)


def pipe(state_dir: Path, uid: int, n: int) -> Path:
    """What command `n` of a job writes to, as long as anybody can."""
    return state_dir / relay.pipe_path(uid, n)


def size(path: Path) -> int:
    """Bytes of a log, with those that are missing before its last; 0 if there is none."""
    parts = _parts(path)
    return parts[-1][1] if parts else 0


def is_there(path: Path) -> bool:
    """False: it was never made, or somebody deleted it."""
    return path.exists()


def _parts(path: Path) -> list[tuple[int, int, Path]]:
    """Of what places there are bytes: start, end, and in which file."""
    files = [(0, path)]
    more = path.with_suffix(".more")
    # Not there, if it was never so long.
    with contextlib.suppress(OSError):
        names = [file.name for file in more.iterdir()]
        files += sorted((int(name), more / name) for name in names if name.isdigit())
    found: list[tuple[int, int, Path]] = []
    for start, file in files:
        try:
            found.append((start, start + file.stat().st_size, file))
        except OSError:
            # Just dropped, or deleted by somebody.
            continue
    return found


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
        return relay.may_have_begun(path(self.state_dir, uid, n))

    def forget(self, uid: int, n: int) -> None:
        """Remove the log of a command that did not begin."""
        path(self.state_dir, uid, n).unlink(missing_ok=True)
        pipe(self.state_dir, uid, n).unlink(missing_ok=True)


def read(path: Path, offset: int, limit: int) -> tuple[int, bytes]:
    """The first bytes that are there from `offset` on, at most `limit`, and their place.

    Fewer where some are missing or the log ends; none, and `offset`, if nothing follows.
    """
    at, data = offset, b""
    for start, end, file in _parts(path):
        here = at + len(data)
        if data and start > here:
            break
        if end > here:
            here = max(start, here)
            more = _read(file, here - start, min(limit - len(data), end - here))
            at = at if data else here
            data += more
            if len(data) == limit or len(more) < end - here:
                break
    return (at, data) if data else (offset, b"")


def ends(path: Path, start: int, end: int, limit: int) -> tuple[bytes, bytes]:
    """What is there at both ends of start..end, at most `limit` bytes together: head, tail.

    If all of it is there and is not longer it is the head.
    """
    whole = end - start <= limit
    at, head = read(path, start, end - start if whole else limit // 2)
    if at != start:
        head = b""
    if start + len(head) == end:
        return head, b""
    tail, at = b"", max(end - limit // 2, start + len(head))
    while at < end:
        found, data = read(path, at, end - at)
        tail = data[: max(0, end - found)]
        if not tail:
            break
        at = found + len(tail)
    return head, tail


def _read(file: Path, offset: int, limit: int) -> bytes:
    # What a job has put in its log's place is not followed, and not waited for.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        opened = os.open(file, flags)
    except OSError:
        return b""
    try:
        return os.pread(opened, limit, offset)
    except OSError:
        return b""
    finally:
        os.close(opened)


def unread(pipe: Path) -> int:
    """Bytes that a command has written and that are not in its log yet."""
    try:
        file = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return relay.unread(file)
    finally:
        os.close(file)


def pipes(state_dir: Path) -> Iterator[tuple[int, int]]:
    """Commands, by job and number, whose output is not at its end. Slow: not for the event
    loop."""
    for pipe in (state_dir / relay.PIPES).glob("*.pipe"):
        uid, _, n = pipe.stem.partition(".")
        if uid.isdigit() and n.isdigit():
            yield int(uid), int(n)


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
            os.close(os.open(path, flags, BARRED))
        except FileExistsError:
            # An earlier daemon may have done it, and have had no time to say so.
            return stat.S_IMODE(path.lstat().st_mode) == BARRED
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            return True


def whole_characters(path: Path, start: int, end: int) -> int:
    """`end`, moved back so that start..end does not cut a UTF-8 character."""
    _, tail = read(path, max(start, end - _LONGEST), min(_LONGEST, end - start))
    return end - len(tail) + len(text.whole_characters(tail))


def uids(state_dir: Path) -> list[int]:
    """Of which jobs there are logs."""
    names = (entry.name for entry in (state_dir / "jobs").glob("*"))
    return [int(name) for name in names if name.isascii() and name.isdigit()]


def remove(state_dir: Path, uids: Iterable[int]) -> None:
    """Delete the logs of these jobs. Slow on some file systems: not for the event loop."""
    for uid in uids:
        shutil.rmtree(directory(state_dir, uid), ignore_errors=True)
