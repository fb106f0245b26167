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
# ruff: noqa: PTH104, PTH108 - for every command

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import termios
import time
from typing import Final, Self

from dispatcher import job_files, output_files
from dispatcher.job_files import Replaced
from dispatcher.pace import PAUSE, Pace
from dispatcher.transits import Transit, can_move
from dispatcher.trouble import complain

# Moved at once: long enough to cost little, short enough for others to have their turns.
_PORTION: Final = 1024 * 1024
# Read at once where bytes can't be moved within the kernel. As much is lost if the process is
# killed just then.
_COPIED: Final = 64 * 1024
# What a pipe of a command that writes so much at once holds, where that can be set: the first
# that the system grants. A portion: so who writes has as much time as it takes to write one.
# More than that would not stay in the processor's caches. Source: fcntl(2), F_SETPIPE_SZ;
# pipe(7), /proc/sys/fs/pipe-max-size.
_PIPE_SIZES: Final = (_PORTION, 256 * 1024)
_MUCH: Final = 32 * 1024
# What any pipe holds, at least, until then. Source: FreeBSD's sys/pipe.h, PIPE_SIZE.
_UNWIDENED: Final = 16 * 1024
# Of the files behind the first one there are at most these.
_TAIL: Final = 2
# And for a moment one that is about to go.
MOST_FILES: Final = _TAIL + 1


def unread(pipe: int) -> int:
    """Bytes that are in a pipe. Source: tty_ioctl(2)."""
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0])


def say(log: int, text: str) -> int:
    """Write this into a log in which there is nothing yet; its length, as far as it fits."""
    with contextlib.suppress(OSError):
        os.fchmod(log, output_files.BEGUN)
        return os.pwrite(log, text.encode(errors="replace"), 0)
    return 0


class Relay:
    """What empties one command's pipe. size: the log's, with what was dropped.

    source: to be polled for. through: nobody has the pipe for his output any more, and there is
    nothing in it: to be closed.
    """

    def __init__(
        self,
        uid: int,
        n: int,
        log: int,
        source: int,
        limit: int,
        transit: Transit | None = None,
    ) -> None:
        """log: what `make_log` gave. limit: bytes that are kept. Both ends are then ours.

        transit: for what a command writes that writes much. It is empty, now and between calls.
        """
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
        self._moves = can_move()
        self._transit = transit
        # What is in it. Nothing goes through it until the pipe has been widened.
        self._carried = 0
        self._complained = False
        self._widened = not hasattr(fcntl, "F_SETPIPE_SZ")
        self._holds = _UNWIDENED
        self._pace = Pace()
        with contextlib.suppress(OSError):
            fcntl.flock(source, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @classmethod
    def take_over(
        cls,
        uid: int,
        n: int,
        limit: int,
        transit: Transit | None = None,
        *,
        lost: bool = False,
    ) -> Self | None:
        """Go on where another process has died. None: somebody does it, or it is through.

        transit: where that may have left something. lost: also if its log is gone: the command
        is not to wait for ever. Raises: OSError.
        """
        try:
            log = job_files.open_file(output_files.log_path(uid, n), os.O_WRONLY)
        except FileNotFoundError as error:
            lost |= isinstance(error, Replaced)
            if not lost:
                return None
            log = os.open(os.devnull, os.O_WRONLY)
        else:
            lost = False
        source = -1
        try:
            source = output_files.open_pipe(uid, n)
            # Of a log that was deleted nobody else can find the lock; so the pipe has one, too.
            fcntl.flock(source if lost else log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = cls(uid, n, log, source, limit, transit)
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
        # Of another one nobody would read.
        pipe = job_files.open_same(output_files.pipe_path(*self.job), os.O_RDWR, self.source)
        os.set_blocking(pipe, True)
        return pipe

    def take(self) -> int:
        """Move one portion into the log; how much it was, 0 if there is nothing just now."""
        taken = self._take()
        while self._carried:
            taken += self._take()
        return taken

    def keep_to_pipe(self) -> None:
        """Have no bytes pass through the transit: nobody may be there to look for them."""
        self._transit = None

    def _take(self) -> int:
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

    def pause(self) -> None:
        """To be called before it is polled for, by who serves nobody else: lets who writes line
        by line write some."""
        if self._pace.is_pause_due():
            time.sleep(PAUSE)

    def drain(self) -> None:
        """Move all that is in the pipe by now."""
        end = self.size + unread(self.source)
        while self.size < end and not self.through:
            self.take()

    def begin(self) -> None:
        """From here on the command may have begun."""
        os.fchmod(self._log, output_files.BEGUN)

    def say(self, text: str) -> int:
        """Write this into the log, in the command's place; as many bytes of it as fit."""
        return self._count(say(self._log, text))

    def close(self, *, again: bool = False) -> None:
        """There is nothing to come any more. again: its pipe may be used for another."""
        # First: who looks if anybody has it is to find nobody.
        os.close(self.source)
        path = output_files.pipe_path(*self.job)
        with contextlib.suppress(OSError):
            if again:
                os.rename(path, output_files.used_path(*self.job))
            else:
                os.unlink(path)
        if self._file != self._log:
            os.close(self._file)
        os.close(self._log)

    def _go_on(self) -> None:
        """Behind what is there."""
        more = output_files.more_path(*self.job)
        with contextlib.suppress(OSError), job_files.directory(more, depth=2) as opened:
            self._files = job_files.numbers(opened)
        for start in reversed(self._files):
            with contextlib.suppress(OSError):
                self._file = job_files.open_file(f"{more}/{start}", os.O_WRONLY, depth=3)
                self._start, self._room = start, self._limit // 4
                break
        length = os.fstat(self._file).st_size
        self._room -= length
        self.size = self._start + length
        if self._transit is not None:
            self._carried = unread(self._transit.outlet)
            if self._carried:
                self.take()
        self.keep_to_pipe()

    def _is_ready(self) -> bool:
        """Is the present file as it was left, with room in it?"""
        if self._room <= 0:
            return False
        there = os.fstat(self._file)
        return bool(there.st_nlink) and there.st_size == self.size - self._start

    def _turn(self) -> bool:
        """Begin another file. False: the disk does not take it."""
        more = output_files.more_path(*self.job)
        try:
            parent, _, name = more.rpartition("/")
            with contextlib.suppress(FileExistsError), job_files.directory(parent) as opened:
                os.mkdir(name, 0o700, dir_fd=opened)
            path, flags = f"{more}/{self.size}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            file = job_files.open_file(path, flags, depth=3, mode=0o600)
        except OSError as error:
            self._complain(error)
            return False
        if self._file != self._log:
            os.close(self._file)
        self._file, self._start, self._room = file, self.size, self._limit // 4
        if self._files[-1:] != [self.size]:
            self._files.append(self.size)
        while len(self._files) > _TAIL:
            oldest = str(self._files.pop(0))
            with contextlib.suppress(OSError), job_files.directory(more, depth=2) as opened:
                os.unlink(oldest, dir_fd=opened)
        return True

    def _move(self, count: int) -> int:
        if self._transit is not None and self._widened and not self._carried:
            self._carried = os.splice(
                self.source, self._transit.inlet, count, flags=os.SPLICE_F_NONBLOCK
            )
            if not self._carried:
                return 0
        source, most = self._nearest()
        moved = os.splice(
            source,
            self._file,
            min(count, most),
            offset_dst=self.size - self._start,
            flags=os.SPLICE_F_NONBLOCK,
        )
        return self._off(moved)

    def _nearest(self) -> tuple[int, int]:
        """Where the next bytes are, and how many of them at most."""
        if self._transit is not None and self._carried:
            return self._transit.outlet, self._carried
        return self.source, _PORTION

    def _off(self, taken: int) -> int:
        """So many are taken from there."""
        if self._carried:
            self._carried -= taken
        return taken

    def _read(self, count: int) -> bytes:
        source, most = self._nearest()
        data = os.read(source, min(count, most))
        self._off(len(data))
        return data

    def _copy(self, count: int) -> int:
        data = memoryview(self._read(min(count, _COPIED)))
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
            dropped = len(self._read(_COPIED))
        except BlockingIOError:
            return 0
        self.through = not dropped
        self._room = dropped
        return self._count(dropped)

    def _widen(self) -> None:
        """Let the pipe hold more: who writes much is to be woken less often."""
        self._widened = True
        for size in _PIPE_SIZES:
            with contextlib.suppress(OSError):
                self._holds = fcntl.fcntl(self.source, fcntl.F_SETPIPE_SZ, size)
                if self._transit is not None:
                    fcntl.fcntl(self._transit.inlet, fcntl.F_SETPIPE_SZ, size)
                break

    def _count(self, taken: int) -> int:
        self.size += taken
        self._room -= taken
        most = self._holds if self._moves else min(self._holds, _COPIED)
        self._pace.count(taken, most, time.monotonic())
        return taken

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            uid, n = self.job
            complain(f"job {uid}, command {n}: its output is not kept: {error.strerror}")


def _close(file: int) -> None:
    if file >= 0:
        os.close(file)
