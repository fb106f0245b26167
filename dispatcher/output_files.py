"""What a command's output goes through: its pipe and its log. Where they are, and making them.

The next ones are made ahead, while nobody waits: to make files takes longer than all else of a
short command's start. What is in them is the business of dispatcher/relay.py. Standard library
only, all imported before the fork.
"""
# ruff: noqa: PTH102, PTH103, PTH104, PTH106, PTH108, PTH112, PTH114, PTH208 - for every command

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from typing import Final

from dispatcher import job_files
from dispatcher.job_files import Replaced

# The mode of a log until just before its command may have begun; then; and that of one which
# was made lest its command begin.
UNBEGUN: Final = 0o200
BEGUN: Final = 0o600
BARRED: Final = 0o400
# What a pipe is as long as no command has changed that.
_MADE: Final = stat.S_IFIFO | 0o600
# Pipes that were used and wait to be used again, at most.
_MOST_USED: Final = 16
# Below the state directory: where the pipes are.
PIPES: Final = "pipes"
# And, with a pid behind it, what is made ahead.
_SPARE: Final = "spare."


def log_path(uid: int, n: int) -> str:
    """Below the state directory: where a command's log begins."""
    return f"jobs/{uid}/{n}.log"


def pipe_path(uid: int, n: int) -> str:
    """Below the state directory: what a command writes to."""
    # All in one directory: they are soon made there, and looked through.
    return f"{PIPES}/{uid}.{n}.pipe"


def more_path(uid: int, n: int) -> str:
    """Below the state directory: where the files behind the first one are."""
    return f"jobs/{uid}/{n}.more"


def make_pipe(uid: int, n: int, spare: SparePipe | None = None) -> int:
    """Make a command's pipe; an end of it that keeps what is in it. Raises: OSError."""
    path = pipe_path(uid, n)
    if spare is not None and (pipe := spare.take(path)) is not None:
        return pipe
    return _new_pipe(path)


def _new_pipe(path: str) -> int:
    while True:
        try:
            os.mkfifo(path, 0o600)
        except FileExistsError:
            # Of an attempt that was none.
            pass
        except FileNotFoundError:
            os.makedirs(PIPES, 0o700, exist_ok=True)
            continue
        try:
            return job_files.open_pipe(path)
        except OSError:
            os.unlink(path)
            raise


def open_pipe(uid: int, n: int) -> int:
    """An end of it to read from, which never waits. Raises: OSError."""
    return job_files.open_pipe(pipe_path(uid, n))


def forget_pipe(job: list[int], pipe: int) -> None:
    """There will be nothing in it. pipe: an end of it, which is closed."""
    uid, n = job
    if not may_have_begun(log_path(uid, n)):
        with contextlib.suppress(OSError):
            os.unlink(pipe_path(uid, n))
    os.close(pipe)


def used_path(uid: int, n: int) -> str:
    """Where the pipe is of a command that needs it no more."""
    return f"{PIPES}/{_SPARE}{uid}.{n}"


def _is_free(path: str) -> bool:
    """Has nobody this pipe open? Who can only read could still take what is in it."""
    try:
        os.close(job_files.open_pipe(path, os.O_WRONLY))
    except Replaced as error:
        return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENXIO
    except OSError:
        pass
    return False


class SparePipe:
    """A pipe that is got ready ahead, by the keeper, while the one before it is handed on.

    It is one that was used, if nobody has that open any more: the system has let go of all that
    was in it, and it is as one just made; to make and delete files costs some systems much.
    """

    def __init__(self) -> None:
        self._own = self._path = f"{PIPES}/{_SPARE}{os.getpid()}"
        self._pipe = -1
        self._used: list[str] = []

    def make(self) -> None:
        """Have it there."""
        while self._pipe < 0 and self._used:
            self._path = self._used.pop()
            with contextlib.suppress(OSError):
                self._pipe = job_files.open_pipe(self._path)
        if self._pipe < 0:
            self._path = self._own
            with contextlib.suppress(OSError):
                self._pipe = _new_pipe(self._own)

    def reuse(self, uid: int, n: int) -> None:
        """This command's is needed no more, and we have no end of it."""
        path = used_path(uid, n)
        try:
            found = os.lstat(path)
        except OSError:
            return
        as_made = found.st_mode == _MADE and found.st_uid == os.geteuid()
        if as_made and found.st_nlink == 1 and len(self._used) < _MOST_USED and _is_free(path):
            self._used.append(path)
        else:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def take(self, path: str) -> int | None:
        """Let it have this name; an end of it. None: there is none to give, or the name is that
        of an attempt that was none."""
        if self._pipe < 0 or os.path.lexists(path):
            return None
        pipe, self._pipe = self._pipe, -1
        try:
            os.rename(self._path, path)
        except OSError:
            # A new keeper took us for dead.
            os.close(pipe)
            return None
        return pipe


def make_log(uid: int, n: int, spare: SpareLog | None = None) -> int | None:
    """Make a command's log; a descriptor that holds its lock. None: it was made before.

    That decides, once for all, if the command begins: a kill makes it to prevent that. Raises:
    OSError.
    """
    if not n and spare is not None and (log := spare.take(uid)) is not None:
        return log
    while True:
        try:
            return _new_log(log_path(uid, n))
        except FileExistsError:
            return None
        except Replaced:
            raise
        except FileNotFoundError:
            os.makedirs(f"jobs/{uid}", 0o700, exist_ok=True)


def _new_log(path: str) -> int:
    log = job_files.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=UNBEGUN)
    fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return log


class SpareLog:
    """A directory of a job with its first log, made ahead, while nobody waits: to make the two
    takes longer than all else of a short command's start."""

    def __init__(self) -> None:
        self._path = f"{PIPES}/{_SPARE}{os.getpid()}"
        self._log = -1

    def make(self) -> None:
        """Make it, if it is not there."""
        if self._log >= 0:
            return
        with contextlib.suppress(OSError):
            os.mkdir(self._path, 0o700)
            self._log = _new_log(f"{self._path}/0.log")

    def drop(self) -> None:
        """There is no job to come."""
        if self._log < 0:
            return
        os.close(self._log)
        self._log = -1
        with contextlib.suppress(OSError):
            os.unlink(f"{self._path}/0.log")
            os.rmdir(self._path)

    def take(self, uid: int) -> int | None:
        """Let it be this job's; the log, as `make_log` has it. None: there is none to give, or
        the job has a log."""
        if self._log < 0:
            return None
        try:
            # Fails if anything is there.
            os.rename(self._path, f"jobs/{uid}")
        except FileNotFoundError:
            # A new keeper took us for dead.
            os.close(self._log)
            self._log = -1
            return None
        except OSError:
            return None
        log, self._log = self._log, -1
        return log


def remove_spares() -> None:
    """Those of dead starters. Who lives makes another one."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(PIPES) if name.startswith(_SPARE)]
    for name in names:
        path = f"{PIPES}/{name}"
        # One that somebody has just taken, or put something else there, keeps no other.
        with contextlib.suppress(OSError):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)


def may_have_begun(log: str | os.PathLike[str]) -> bool:
    """By its log: of a command whose starter is dead. False: it was not even about to."""
    try:
        found = os.lstat(log).st_mode
    except OSError:
        return False
    # Only what has begun puts something else there.
    return not stat.S_ISREG(found) or stat.S_IMODE(found) not in (UNBEGUN, BARRED)
