"""A command's output: from its pipe into its log. One process at a time does it for a command.

A command is given a pipe and not the file, so nothing that it does with its output, opening it
anew and cutting it included, can touch what was kept of it. The pipe has a name, and the
command both its ends: whoever empties it may die, another one goes on, and nothing is broken or
lost meanwhile. A log keeps its beginning and its end; of what lies between as much is dropped
as its limit asks for, and each byte stays at its place:

    jobs/UID/N.log            from 0 on, half of the limit; locked as long as there is a pipe
    jobs/UID/N.more/OFFSET    from there on, a quarter of the limit each; the last two are kept
    pipes/UID.N.pipe          as long as anybody has it for his output

What the disk does not take is dropped as well: the next file begins behind it.

Standard library only, all imported before the fork.
"""
# ruff: noqa: PTH102, PTH103, PTH104, PTH108, PTH208 - for every command

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import shutil
import stat
import struct
import termios
import time
from dataclasses import dataclass
from typing import Final, Self

from dispatcher.trouble import complain
from sysadmd.machine import FORCED_PORTABLE

# Moved at once: long enough to cost little, short enough for others to have their turns.
_PORTION: Final = 1024 * 1024
# Read at once where bytes can't be moved within the kernel. As much is lost if the process is
# killed just then.
_COPIED: Final = 64 * 1024
# What a pipe of a command that writes so much at once holds, where that can be set. Source:
# fcntl(2), F_SETPIPE_SZ.
_PIPE_SIZE: Final = 256 * 1024
_MUCH: Final = 32 * 1024
# The mode of a log until just before its command may have begun; then; and that of one which
# was made lest its command begin.
UNBEGUN: Final = 0o200
BEGUN: Final = 0o600
BARRED: Final = 0o400
# Below the state directory: where the pipes are.
PIPES: Final = "pipes"
# And, with a pid behind it, what is made ahead.
_SPARE: Final = "spare."
# Of the files behind the first one there are at most these.
_TAIL: Final = 2
# Between two looks whether an output can be taken over, s: at first, and when it takes long.
_RETRY: Final = 0.5
_LONGEST: Final = 10.0


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


def make_pipe(uid: int, n: int) -> int:
    """Make a command's pipe; an end of it that keeps what is in it. Raises: OSError."""
    path = pipe_path(uid, n)
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
            return open_pipe(uid, n)
        except OSError:
            os.unlink(path)
            raise


def open_pipe(uid: int, n: int) -> int:
    """An end of it to read from, which never waits. Raises: OSError."""
    return os.open(pipe_path(uid, n), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)


def make_log(uid: int, n: int, spare: Spare | None = None) -> int | None:
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
        except FileNotFoundError:
            os.makedirs(f"jobs/{uid}", 0o700, exist_ok=True)


def _new_log(path: str) -> int:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, UNBEGUN)
    fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return log


class Spare:
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
    with contextlib.suppress(OSError):
        for name in os.listdir(PIPES):
            if name.startswith(_SPARE):
                shutil.rmtree(f"{PIPES}/{name}", ignore_errors=True)


def may_have_begun(log: str | os.PathLike[str]) -> bool:
    """By its log: of a command whose starter is dead. False: it was not even about to."""
    try:
        return stat.S_IMODE(os.lstat(log).st_mode) == BEGUN
    except OSError:
        return False


def unread(pipe: int) -> int:
    """Bytes that are in a pipe. Source: tty_ioctl(2)."""
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0])


def say(log: int, text: str) -> int:
    """Write this into a log in which there is nothing yet; its length, as far as it fits."""
    with contextlib.suppress(OSError):
        os.fchmod(log, BEGUN)
        return os.pwrite(log, text.encode(errors="replace"), 0)
    return 0


class Relay:
    """What empties one command's pipe. size: the log's, with what was dropped.

    source: to be polled for. through: nobody has the pipe for his output any more, and there is
    nothing in it: to be closed.
    """

    def __init__(self, uid: int, n: int, log: int, source: int, limit: int) -> None:
        """log: what `make_log` gave. limit: bytes that are kept. Both ends are then ours."""
        self.job = [uid, n]
        self.source = source
        self.through = False
        self.size = 0
        self._log = log
        self._limit = limit
        # Written to now, from where on, and how much it may still take.
        self._file = log
        self._start = 0
        self._room = limit // 2
        self._files: list[int] = []
        self._moves = hasattr(os, "splice") and not FORCED_PORTABLE
        self._complained = False
        self._widened = not hasattr(fcntl, "F_SETPIPE_SZ")
        with contextlib.suppress(OSError):
            fcntl.flock(source, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @classmethod
    def take_over(cls, uid: int, n: int, limit: int, *, lost: bool = False) -> Self | None:
        """Go on where another process has died. None: somebody does it, or it is through.

        lost: also if its log is gone: the command is not to wait for ever. Raises: OSError.
        """
        try:
            log = os.open(log_path(uid, n), os.O_WRONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            if not lost:
                return None
            log = os.open(os.devnull, os.O_WRONLY)
        else:
            lost = False
        source = -1
        try:
            source = open_pipe(uid, n)
            # Of a log that was deleted nobody else can find the lock; so the pipe has one, too.
            fcntl.flock(source if lost else log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = cls(uid, n, log, source, limit)
            taken._go_on()
        except OSError as error:
            os.close(log)
            _close(source)
            if isinstance(error, BlockingIOError | FileNotFoundError):
                return None
            raise
        return taken

    def open(self) -> int:
        """What the command is given for its output. Raises: OSError."""
        # Both ends: it is not broken, and keeps what is in it, when all others are dead.
        return os.open(pipe_path(*self.job), os.O_RDWR | os.O_NOFOLLOW)

    def take(self) -> int:
        """Move one portion into the log; how much it was, 0 if there is nothing just now."""
        if not self._is_ready() and not self._turn():
            return self._drop()
        count = min(self._room, _PORTION)
        try:
            taken = self._move(count) if self._moves else self._copy(count)
        except BlockingIOError:
            return 0
        except OSError as error:
            if self._moves and error.errno == errno.EINVAL:
                # Not every file system can.
                self._moves = False
                return 0
            self._complain(error)
            return self._drop()
        self.through = not taken
        if taken >= _MUCH and not self._widened:
            self._widen()
        return self._count(taken)

    def drain(self) -> None:
        """Move all that is in the pipe by now."""
        end = self.size + unread(self.source)
        while self.size < end and not self.through:
            self.take()

    def begin(self) -> None:
        """From here on the command may have begun."""
        os.fchmod(self._log, BEGUN)

    def say(self, text: str) -> None:
        """Write this into the log, in the command's place."""
        self._count(say(self._log, text))

    def close(self) -> None:
        """There is nothing to come any more."""
        with contextlib.suppress(OSError):
            os.unlink(pipe_path(*self.job))
        os.close(self.source)
        if self._file != self._log:
            os.close(self._file)
        os.close(self._log)

    def _go_on(self) -> None:
        """Behind what is there."""
        with contextlib.suppress(OSError):
            names = os.listdir(more_path(*self.job))
            self._files = sorted(int(name) for name in names if name.isdigit())
        if self._files:
            self._start = self._files[-1]
            path = f"{more_path(*self.job)}/{self._start}"
            self._file = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
            self._room = self._limit // 4
        length = os.fstat(self._file).st_size
        self._room -= length
        self.size = self._start + length

    def _is_ready(self) -> bool:
        """Is the present file as it was left, with room in it?"""
        if self._room <= 0:
            return False
        there = os.fstat(self._file)
        return bool(there.st_nlink) and there.st_size == self.size - self._start

    def _turn(self) -> bool:
        """Begin another file. False: the disk does not take it."""
        more = more_path(*self.job)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(more, 0o700)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            file = os.open(f"{more}/{self.size}", flags, 0o600)
        except OSError as error:
            self._complain(error)
            return False
        if self._file != self._log:
            os.close(self._file)
        self._file, self._start, self._room = file, self.size, self._limit // 4
        if self._files[-1:] != [self.size]:
            self._files.append(self.size)
        while len(self._files) > _TAIL:
            with contextlib.suppress(OSError):
                os.unlink(f"{more}/{self._files.pop(0)}")
        return True

    def _move(self, count: int) -> int:
        at = self.size - self._start
        return os.splice(
            self.source, self._file, count, offset_dst=at, flags=os.SPLICE_F_NONBLOCK
        )

    def _copy(self, count: int) -> int:
        data = memoryview(os.read(self.source, min(count, _COPIED)))
        at, written = self.size - self._start, 0
        try:
            while written < len(data):
                written += os.pwrite(self._file, data[written:], at + written)
        except OSError as error:
            self._complain(error)
            self._room = len(data)
        return len(data)

    def _drop(self) -> int:
        """Without room for it, it is let go: the command may be what makes room."""
        try:
            dropped = len(os.read(self.source, _COPIED))
        except BlockingIOError:
            return 0
        self.through = not dropped
        self._room = dropped
        return self._count(dropped)

    def _widen(self) -> None:
        """Let the pipe hold more: who writes much is to be woken less often."""
        self._widened = True
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.source, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)

    def _count(self, taken: int) -> int:
        self.size += taken
        self._room -= taken
        return taken

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            uid, n = self.job
            complain(f"job {uid}, command {n}: its output is not kept: {error.strerror}")


@dataclass(slots=True)
class _Wanted:
    """An output to be taken over. pipe: an end, lest what is in it be lost meanwhile; -1."""

    limit: int
    pipe: int
    begun: bool
    looks: int = 0


def _close(file: int) -> None:
    if file >= 0:
        os.close(file)


class Relays:
    """Those that a process has taken over from dead ones, or is to."""

    def __init__(self, poll: select.poll) -> None:
        """poll: what the process waits with; all that is served is registered there."""
        self._poll = poll
        self._served: dict[int, Relay] = {}
        self._wanted: dict[tuple[int, int], _Wanted] = {}
        # When they are looked at next, by the monotonic clock.
        self._due = 0.0

    @property
    def serves(self) -> bool:
        """Would the output of any command be stuck without us?"""
        return bool(self._served)

    @property
    def patience(self) -> float | None:
        """How long to wait at most until `look` is to be called, ms; None: for ever."""
        return max(0.0, self._due - time.monotonic()) * 1000 + 1 if self._wanted else None

    def want(self, job: list[int], limit: int, pipe: int = -1, *, begun: bool = True) -> None:
        """Take this command's output over, as soon as nobody else has it.

        pipe: an end of it, which then is ours. begun: it has, for sure: if its log is not there
        that is gone, and not about to be made by who begins it.
        """
        uid, n = job
        if (uid, n) in self._wanted or any(relay.job == job for relay in self._served.values()):
            _close(pipe)
            return
        if pipe < 0:
            try:
                pipe = open_pipe(uid, n)
            except FileNotFoundError:
                return
            except OSError:
                # Taken over without it, then.
                pass
        self._wanted[uid, n] = _Wanted(limit, pipe, begun)
        self._due = 0.0

    def forget(self, job: list[int]) -> None:
        """It is begun anew: what was wanted of an earlier attempt, which was none, is not."""
        uid, n = job
        wanted = self._wanted.pop((uid, n), None)
        if wanted is not None:
            _close(wanted.pipe)

    def waits_for(self, job: list[int]) -> bool:
        """May there still be output of it?"""
        served = any(relay.job == job for relay in self._served.values())
        return served or tuple(job) in self._wanted

    def look(self) -> None:
        """See which of them can be taken over by now."""
        now = time.monotonic()
        if not self._wanted or now < self._due:
            return
        # What a service has that a job has started may be served for months by another one.
        looks = 1 + min(wanted.looks for wanted in self._wanted.values())
        self._due = now + min(_RETRY * looks, _LONGEST)
        for (uid, n), wanted in list(self._wanted.items()):
            wanted.looks += 1
            try:
                # A starter that is about to make the log does so before the second look.
                lost = wanted.begun and wanted.looks > 1
                relay = Relay.take_over(uid, n, wanted.limit, lost=lost)
            except OSError:
                continue
            if relay is not None:
                self._served[relay.source] = relay
                self._poll.register(relay.source, select.POLLIN)
                # That nobody else had it by now, no poll would ever tell.
                self.take(relay.source)
            elif os.path.exists(pipe_path(uid, n)):  # noqa: PTH110
                # Somebody who is about to end, or to become the command, has it still.
                continue
            del self._wanted[uid, n]
            _close(wanted.pipe)

    def take(self, source: int) -> bool:
        """Move a portion, if this is one of ours."""
        relay = self._served.get(source)
        if relay is None:
            return False
        relay.take()
        if relay.through:
            self._poll.unregister(source)
            del self._served[source]
            relay.close()
        return True

    def size(self, job: list[int]) -> int | None:
        """Of the log, with all that is in the pipe by now. None: nobody served it."""
        self._due = 0.0
        self.look()
        for relay in self._served.values():
            if relay.job == job:
                relay.drain()
                return relay.size
        return None
