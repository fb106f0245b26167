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
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dispatcher import job_files, output_files, relay
from dispatcher.job_files import Replaced
from dispatcher.output_files import BARRED
from sysadmd import text

# Bytes of the longest UTF-8 character.
_LONGEST: Final = 4
# No log has more bytes than can be counted in a table, whatever a job has made of its files.
_FARTHEST: Final = 2**62


def directory(state_dir: Path, uid: int) -> Path:
    """The directory of a job's logs."""
    return state_dir / "jobs" / str(uid)


def path(state_dir: Path, uid: int, n: int) -> Path:
    """The log of command `n` of a job; it is there from just before the command's start."""
    return state_dir / output_files.log_path(uid, n)


def pipe(state_dir: Path, uid: int, n: int) -> Path:
    """What command `n` of a job writes to, as long as anybody can."""
    return state_dir / output_files.pipe_path(uid, n)


def size(path: Path) -> int | None:
    """Bytes of a log, with those that are missing before its last; None: it was never made, or
    somebody deleted it."""
    with _parts(path) as parts:
        return parts[-1].end if parts else None


def present(path: Path) -> tuple[int, int | None]:
    """`size`, 0 if there is no log; and when its last byte was written, ms since 1970 by the
    wall clock. None: none ever was."""
    with _parts(path) as parts:
        if not parts or not parts[-1].end:
            return 0, None
        return parts[-1].end, os.fstat(parts[-1].file).st_mtime_ns // 1_000_000


@dataclass(frozen=True, slots=True)
class _Part:
    """An open file of a log: of what places it has the bytes."""

    path: Path
    start: int
    end: int
    file: int


@contextlib.contextmanager
def _parts(path: Path) -> Generator[list[_Part]]:
    """The files of a log, in order. What a job has put in their place is not there."""
    found: list[_Part] = []
    more = path.with_suffix(".more")
    starts: list[int] = []
    # Not there, if it was never so long.
    with contextlib.suppress(OSError), job_files.directory(more, depth=2) as opened:
        starts = job_files.numbers(opened)[-relay.MOST_FILES :]
    try:
        for start, file, depth in ((0, path, 2), *((at, more / str(at), 3) for at in starts)):
            # Just dropped, or deleted by somebody.
            with contextlib.suppress(OSError):
                opened = job_files.open_file(file, depth=depth)
                end = min(start + os.fstat(opened).st_size, _FARTHEST)
                found.append(_Part(file, start, end, opened))
        yield found
    finally:
        for part in found:
            os.close(part.file)


@contextlib.contextmanager
def files(path: Path) -> Generator[list[tuple[Path, int]]]:
    """The files of a log, in order, opened to be read; none if it is not there."""
    with _parts(path) as parts:
        yield [(part.path, part.file) for part in parts]


@dataclass(frozen=True, slots=True)
class LogFiles:
    """All logs below a state directory, by the numbers of jobs and commands."""

    state_dir: Path

    def size(self, uid: int, n: int) -> int | None:
        """Bytes in a log; None: there is none."""
        return size(path(self.state_dir, uid, n))

    def may_have_begun(self, uid: int, n: int) -> bool:
        """Of a command whose starter is dead. False: it was not even about to, for sure."""
        return output_files.may_have_begun(path(self.state_dir, uid, n))

    def forget(self, uid: int, n: int) -> None:
        """Remove the log of a command that did not begin."""
        with contextlib.suppress(OSError):
            job_files.unlink(path(self.state_dir, uid, n))
        with contextlib.suppress(OSError):
            pipe(self.state_dir, uid, n).unlink()


def read(path: Path, offset: int, limit: int) -> tuple[int, bytes]:
    """The first bytes that are there from `offset` on, at most `limit`, and their place.

    Fewer where some are missing or the log ends; none, and `offset`, if nothing follows.
    """
    at, data = offset, b""
    with _parts(path) as parts:
        for part in parts:
            here = at + len(data)
            if data and part.start > here:
                break
            if part.end > here:
                here = max(part.start, here)
                wanted = min(limit - len(data), part.end - here)
                more = _read(part.file, wanted, here - part.start)
                at = at if data else here
                data += more
                if len(data) == limit or len(more) < part.end - here:
                    break
    return (at, data) if data else (offset, b"")


def _read(file: int, limit: int, offset: int) -> bytes:
    try:
        return os.pread(file, limit, offset)
    except OSError:
        # As much as the disk gives.
        return b""


def beginning(path: Path, size: int) -> bytes:
    """The first bytes of a log, of its first file; less: that has no more, or is not there.

    For the many that are short: where others of it are need not be found out.
    """
    try:
        file = job_files.open_file(path)
    except OSError:
        return b""
    try:
        return _read(file, size, 0)
    finally:
        os.close(file)


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


def unread(pipe: Path) -> int:
    """Bytes that a command has written and that are not in its log yet."""
    try:
        file = job_files.open_pipe(pipe)
    except OSError:
        return 0
    try:
        return relay.unread(file)
    finally:
        os.close(file)


def pipes(state_dir: Path) -> Iterator[tuple[int, int]]:
    """Commands, by job and number, whose output is not at its end. Slow: not for the event
    loop."""
    for pipe in (state_dir / output_files.PIPES).glob("*.pipe"):
        uid, _, n = pipe.stem.partition(".")
        if job_files.is_number(uid) and job_files.is_number(n):
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
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    while True:
        try:
            os.close(job_files.open_file(path, flags, mode=BARRED))
        except FileExistsError:
            # An earlier daemon may have done it, and have had no time to say so.
            return path.lstat().st_mode == stat.S_IFREG | BARRED
        except Replaced:
            raise
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
    return job_files.numbers(state_dir / "jobs")


def remove(state_dir: Path, uids: Iterable[int]) -> None:
    """Delete the logs of these jobs. Slow on some file systems: not for the event loop."""
    for uid in uids:
        there = directory(state_dir, uid)
        if there.is_symlink() or not there.is_dir():
            there.unlink(missing_ok=True)
        else:
            shutil.rmtree(there, ignore_errors=True)
