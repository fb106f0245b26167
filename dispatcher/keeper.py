"""The keeper: the one process whose children become commands. Outlives the daemon.

It decides nothing, keeps nothing but its children, and says everything in its book, from where
the daemon takes it when it can: what comes next before it is forked (dispatcher/begin.py), and
an end before the child is reaped. It touches nothing that a job names. If it dies, its children
fall to the guard (dispatcher/guard.py), its parent. If the guard dies, it takes no more
commands and goes when the last one has ended. Without daemon and commands it goes at once.
Single-threaded, standard library only, everything imported at the start: the very job that it
runs may replace the files that it was started from.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

from dispatcher import begin, book, guard
from dispatcher.begin import Program
from dispatcher.guard import Setup
from dispatcher.identity import boot_clock

# A keeper that its daemon never called, because that was killed meanwhile, goes after this; s.
UNCALLED: Final = 30.0
# A start that takes longer is told of: working directory or program do not answer; s.
HANGS: Final = 5.0
# Read from the daemon at once; a request has up to some hundred KiB.
_PORTION: Final = 256 * 1024
# Our own log is for trouble alone; above this it is begun anew.
_LOG_SIZE: Final = 1024 * 1024
# The daemon falls silent inside a request only if it is broken; its requests are far smaller.
_LONGEST: Final = 4 * 1024 * 1024


def main(argv: list[str]) -> int:
    """`sysadmd keeper STATE_DIR ID VERSION LIMITS`: become guard and keeper, detached."""
    return guard.run(guard.read_setup(argv), keep)


def keep(setup: Setup, guard_end: socket.socket, ready: int) -> int:
    """The keeper's life; returns its exit status, 0 if it owed nothing.

    ready: a pipe; a byte is written there when the keeper can be called.
    """
    # With a handler also what Python ignores: a command would inherit that.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
        signal.signal(number, _noticed)
    os.setsid()
    os.umask(0o022)
    keeper = Keeper(setup, guard_end)
    os.write(ready, b"!")
    os.close(ready)
    # Nothing of what is there by now is garbage: those that are forked share it, untouched.
    gc.freeze()
    return keeper.run()


def _noticed(number: int, frame: FrameType | None) -> None:
    """The byte that Python writes to the wake-up pipe is all that is needed."""


def _complain(text: str) -> None:
    """Into our own log, which begins anew when it is long: trouble may go on and on."""
    with suppress(OSError):
        if os.fstat(2).st_size > _LOG_SIZE:
            os.ftruncate(2, 0)
    print(text, file=sys.stderr, flush=True)


class _Child:
    """A process that is to become a command. pipe: None: it has, or has ended."""

    def __init__(self, job: list[int], pipe: int, following: book.Line) -> None:
        self.job = job
        self.pipe: int | None = pipe
        self.following = following
        self.began = b""
        self.hangs = False

    def hear(self) -> None:
        """What it says: first that it has begun, then, by its silence, that it is through."""
        while self.pipe is not None:
            try:
                told = os.read(self.pipe, _PORTION)
            except BlockingIOError:
                return
            if told:
                self.began = told
            else:
                os.close(self.pipe)
                self.pipe = None

    @property
    def may_begin(self) -> bool:
        """Is it still about to write into the book?"""
        return self.pipe is not None and not self.began

    @property
    def lines(self) -> list[book.Line]:
        """What a new generation of the book has to say of it."""
        return [self.following] + [json.loads(self.began)] * bool(self.began)


class Keeper:
    """The state of the process: its children, its daemon, its guard."""

    def __init__(self, setup: Setup, guard_end: socket.socket) -> None:
        room = Path("keeper")
        self._setup = setup
        # Shows for as long as we live that we do.
        self._lock = os.open(room / f"{setup.id}.keeper", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        # Shows that a command may still begin: held by what is about to, too.
        starts = os.open(room / f"{setup.id}.starts", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(starts, fcntl.LOCK_EX)
        self._book = book.BookWriter(room, setup.id, 1)
        self._place = Path().stat().st_ino
        self._children: dict[int, _Child] = {}
        # Of those told to become commands, not seen to have: until when, by the monotonic
        # clock.
        self._fresh: deque[tuple[float, int]] = deque()
        self._orders: deque[dict[str, Any]] = deque()
        self._news = False
        self._turn = False
        self._draining = False
        self._guard: socket.socket | None = guard_end
        self._daemon: socket.socket | None = None
        self._heard = bytearray()
        self._unsent = bytearray()
        self._called = False
        self._wake, wake_end = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_end, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        self._listener = socket.socket(socket.AF_UNIX)
        self._path = room / f"{setup.id}.sock"
        self._listener.bind(str(self._path))
        self._listener.listen(4)
        self._listener.setblocking(False)

    def run(self) -> int:
        """Until there is nothing left to do."""
        since = time.monotonic()
        while self._daemon or self._children or not self._called:
            if self._draining and not self._children:
                break
            if not self._called and time.monotonic() - since > UNCALLED:
                break
            self._look()
            self._reap()
            self._follow_starts()
            if self._orders:
                self._start(self._orders.popleft())
            elif self._turn:
                self._turn_book()
            if self._news:
                self._news = False
                self._tell(b"\n")
        self._path.unlink(missing_ok=True)
        return 0

    def _look(self) -> None:
        """Wait for news, and hear it."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._listener, select.POLLIN)
        if self._guard:
            poll.register(self._guard, select.POLLIN)
        if self._daemon:
            poll.register(self._daemon, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        if self._turn:
            for child in self._children.values():
                if child.may_begin and child.pipe is not None:
                    poll.register(child.pipe, select.POLLIN)
        ready = {file for file, _ in poll.poll(self._patience())}
        if self._wake in ready:
            os.read(self._wake, 4096)
        if self._guard and self._guard.fileno() in ready:
            # It says nothing, so this is its end.
            self._guard = None
            self._drain()
        if self._daemon and self._daemon.fileno() in ready:
            self._tell(b"")
            self._hear()
        if self._listener.fileno() in ready:
            self._welcome()

    def _patience(self) -> float | None:
        """How long to wait at most, ms; None: for ever."""
        if self._orders:
            return 0
        if not self._called:
            return UNCALLED * 1000
        if self._fresh:
            return max(0.0, self._fresh[0][0] - time.monotonic()) * 1000 + 1
        return None

    def _welcome(self) -> None:
        try:
            daemon, _ = self._listener.accept()
        except OSError:
            return
        daemon.setblocking(False)
        # There is one daemon at a time; what the last one still wanted, this one knows better.
        self._hang_up()
        self._daemon = daemon
        self._called = True

    def _hang_up(self) -> None:
        if self._daemon:
            self._daemon.close()
        self._daemon = None
        self._heard.clear()
        self._unsent.clear()
        self._orders.clear()

    def _hear(self) -> None:
        """All that the daemon has said by now: if it hung up after that, none of it is done."""
        while self._daemon is not None:
            try:
                data = self._daemon.recv(_PORTION)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self._heard += data
            if not data or len(self._heard) > _LONGEST:
                self._hang_up()
                return
            *lines, rest = self._heard.split(b"\n")
            self._heard = bytearray(rest)
            for line in lines:
                self._obey(bytes(line))

    def _obey(self, line: bytes) -> None:
        order: dict[str, Any] = json.loads(line)
        if "start" in order:
            if not self._draining:
                self._orders.append(order)
        elif "hello" in order:
            answer = {
                "hello": self._setup.id,
                "version": self._setup.version,
                "draining": self._draining,
            }
            self._tell(book.encode(answer))
            self._tell_hanging()
        elif "drain" in order:
            self._drain()
        elif "turn" in order:
            self._turn = True

    def _turn_book(self) -> None:
        """Begin a new generation, once nobody is about to write into the present one."""
        for child in self._children.values():
            child.hear()
            if child.may_begin:
                return
        self._turn = False
        lines = [line for child in self._children.values() for line in child.lines]
        try:
            self._book.turn(lines)
        except OSError as error:
            _complain(f"the book goes on without a new generation: {error}")
        self._tell(b"\n")

    def _drain(self) -> None:
        """Start nothing more: what has no `next` in the book by now will have none from us."""
        if not self._draining:
            self._draining = True
            self._orders.clear()
            self._tell(book.encode({"draining": True}))

    def _tell(self, data: bytes) -> None:
        """Say this to the daemon, if there is one; news that it has not read yet is enough."""
        if self._daemon is None or (data == b"\n" and self._unsent):
            return
        self._unsent += data
        try:
            sent = self._daemon.send(self._unsent) if self._unsent else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._hang_up()
            return
        del self._unsent[:sent]

    def _start(self, order: dict[str, Any]) -> None:
        job: list[int] = order["start"]
        uid, n = job
        following: book.Line = {"next": job, "at": boot_clock()}
        self._book.write(following)
        try:
            log = begin.make_log(uid, n)
        except OSError as error:
            self._refuse(job, f"its log can't be written: {error.strerror}")
            return
        if log is None:
            self._write({"barred": job})
            return
        program = Program(uid, n, order["argv"], order["env"], order["cwd"], log)
        try:
            pid, pipe = begin.start(
                program,
                self._book.file,
                self._place,
                self._setup.limits,
                [self._daemon.fileno()] if self._daemon else [],
            )
        except OSError as error:
            reason = f"it: no process can be made: {error.strerror}"
            begin.say(log, reason)
            self._refuse(job, reason)
            return
        finally:
            os.close(log)
        self._children[pid] = _Child(job, pipe, following)
        self._fresh.append((time.monotonic() + HANGS, pid))

    def _refuse(self, job: list[int], reason: str) -> None:
        _complain(f"job {job[0]}, command {job[1]}: {reason}")
        self._write(book.end(job, begin.CANNOT_RUN))

    def _follow_starts(self) -> None:
        """Say which starts take long, and which do so no more."""
        changed = False
        now = time.monotonic()
        while self._fresh and self._fresh[0][0] <= now:
            _, pid = self._fresh.popleft()
            child = self._children.get(pid)
            if child is None:
                continue
            child.hear()
            if child.pipe is not None:
                # Looked at again until it is through.
                self._fresh.append((now + HANGS, pid))
            hangs = child.pipe is not None and bool(child.began)
            changed |= child.hangs != hangs
            child.hangs = hangs
        if changed:
            self._tell_hanging()

    def _tell_hanging(self) -> None:
        jobs = [child.job for child in self._children.values() if child.hangs]
        self._tell(book.encode({"hanging": jobs}))

    def _reap(self) -> None:
        """Write down every end before the child is reaped: until then the guard could do it."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            child = self._children.pop(ended.si_pid, None)
            if child is not None:
                child.hear()
                code = guard.return_code(ended)
                self._write(book.end(child.job, code, begun=bool(child.began)))
                if child.hangs:
                    self._tell_hanging()
            os.waitpid(ended.si_pid, 0)

    def _write(self, line: book.Line) -> None:
        self._book.write(line)
        self._news = True
