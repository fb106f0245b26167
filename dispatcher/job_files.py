"""Opens the files of a job, in whose place the job may have put anything. Knows no job.

No link is followed, nothing is waited for, and what is of another kind than was made there is
not there: so nobody hangs at a pipe, and nothing is read, written or deleted elsewhere.
Standard library only.
"""
# ruff: noqa: PTH208 - below an open directory, for every command

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Generator
from typing import Final

# What an open says of a link, EMLINK on FreeBSD, and of other kinds.
_REPLACED: Final = (errno.ELOOP, errno.EMLINK, errno.ENOTDIR, errno.EISDIR, errno.ENXIO)
_CAREFUL: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Of a file's name that is a number, digits: so many bytes can be counted everywhere.
_DIGITS: Final = 18

Path = str | os.PathLike[str]


class Replaced(FileNotFoundError):
    """It is not there: something else is in its place."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.ENOENT, "something else is in its place", os.fspath(path))


def open_file(path: Path, flags: int = os.O_RDONLY, *, depth: int = 2, mode: int = 0) -> int:
    """A regular file. Raises: OSError; of another kind: Replaced.

    depth: how many of the path's last names are the job's to replace; the others are followed.
    """
    return _open(path, depth, stat.S_ISREG, flags, mode)


def open_pipe(path: Path, flags: int = os.O_RDONLY) -> int:
    """An end of a pipe, which never waits. Raises: OSError; of another kind: Replaced."""
    return _open_one(path, lambda found: stat.S_ISFIFO(found.st_mode), flags)


def open_same(path: Path, flags: int, known: int) -> int:
    """What this descriptor is of, another time. Raises: OSError; it is not: Replaced."""
    there = os.fstat(known)
    return _open_one(
        path,
        lambda found: found.st_ino == there.st_ino and found.st_dev == there.st_dev,
        flags,
    )


@contextlib.contextmanager
def directory(path: Path, *, depth: int = 1) -> Generator[int]:
    """An open directory, to act in by `dir_fd`. depth: as `open_file` has it. Raises: OSError;
    of another kind: Replaced."""
    opened = _open(path, depth, stat.S_ISDIR, os.O_RDONLY, 0)
    try:
        yield opened
    finally:
        os.close(opened)


def unlink(path: Path) -> None:
    """Delete what has this name in a job's directory, if it is there. Raises: OSError."""
    parent, _, name = os.fspath(path).rpartition("/")
    with contextlib.suppress(FileNotFoundError), directory(parent) as opened:
        os.unlink(name, dir_fd=opened)


def numbers(where: int | Path) -> list[int]:
    """The names in a directory that are numbers, lowest first. Raises: OSError."""
    return sorted(int(name) for name in os.listdir(where) if is_number(name))


def is_number(name: str) -> bool:
    """Is it one that can be counted on from, everywhere?"""
    return name.isascii() and name.isdigit() and len(name) <= _DIGITS


def _open_one(path: Path, fits: Callable[[os.stat_result], bool], flags: int) -> int:
    """Only the last name is the job's to replace. For every command, so without detours."""
    try:
        opened = os.open(path, flags | _CAREFUL)
    except OSError as error:
        if error.errno in _REPLACED:
            raise Replaced(path) from error
        raise
    if not fits(os.fstat(opened)):
        os.close(opened)
        raise Replaced(path)
    return opened


def _open(path: Path, depth: int, fits: Callable[[int], bool], flags: int, mode: int) -> int:
    outer, *names = os.fspath(path).rsplit("/", depth)
    # What lies above the job's own names is followed on the way to the first of them.
    names[0] = f"{outer}/{names[0]}"
    at: int | None = None
    try:
        for name in names[:-1]:
            inner = os.open(name, _DIRECTORY, dir_fd=at)
            if at is not None:
                os.close(at)
            at = inner
        opened = os.open(names[-1], flags | _CAREFUL, mode, dir_fd=at)
    except OSError as error:
        if error.errno in _REPLACED:
            raise Replaced(path) from error
        raise
    finally:
        if at is not None:
            os.close(at)
    if not fits(os.fstat(opened).st_mode):
        os.close(opened)
        raise Replaced(path)
    return opened
