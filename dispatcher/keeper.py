"""The keeper: the one process that starts commands and sees them end. Outlives the daemon.

It decides nothing, keeps nothing but its children, and says everything in its book, from where
the daemon takes it when it can: before a spawn, after it, and at an end, before the child is
reaped. If it dies, its children fall to the guard (dispatcher/guard.py), its parent. If the
guard dies, it takes no more commands and goes when the last one has ended. Without daemon and
commands it goes at once. Single-threaded, standard library only, everything imported at the
start: the very job that it runs may replace the files that it was started from.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections import deque
from pathlib import Path
from types import FrameType
from typing import Any, Final

from dispatcher import book, dye, guard, spawn
from dispatcher.guard import Setup
from dispatcher.identity import HAS_PROC, boot_clock, read_stat
from sysadmd.machine import FORCED_PORTABLE

# A keeper that its daemon never called, because that was killed meanwhile, goes after this; s.
UNCALLED: Final = 30.0
# Read from the daemon at once; a request has up to some hundred KiB.
_PORTION: Final = 256 * 1024
# The daemon falls silent inside a request only if it is broken; its requests are far smaller.
_LONGEST: Final = 4 * 1024 * 1024
_QUIET: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


def main(argv: list[str]) -> int:
    """`sysadmd keeper STATE_DIR ID VERSION LIMITS`: become guard and keeper, detached."""
    return guard.run(guard.read_setup(argv), keep)


def keep(setup: Setup, guard_end: socket.socket, ready: int) -> int:
    """The keeper's life; returns its exit status, 0 if it owed nothing.

    ready: a pipe; a byte is written there when the keeper can be called.
    """
    for number in _QUIET:
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    os.umask(0o022)
    for kind, (soft, hard) in setup.limits.items():
        resource.setrlimit(kind, (soft, hard))
    keeper = Keeper(setup, guard_end)
    os.write(ready, b"!")
    os.close(ready)
    return keeper.run()


def _noticed(number: int, frame: FrameType | None) -> None:
    """The byte that Python writes to the wake-up pipe is all that is needed."""


class _Child:
    """A command that runs."""

    def __init__(self, job: list[int], started: list[book.Line]) -> None:
        self.job = job
        # What a new generation of the book has to say of it.
        self.started = started


class Keeper:
    """The state of the process: its children, its daemon, its guard."""

    def __init__(self, setup: Setup, guard_end: socket.socket) -> None:
        room = Path("keeper")
        self._setup = setup
        # Shows for as long as we live that we do.
        self._lock = os.open(room / f"{setup.id}.keeper", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        self._book = book.BookWriter(room, setup.id, 1)
        self._home = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        self._place = os.fstat(self._home).st_ino
        self._own_session = not FORCED_PORTABLE and spawn.can_make_sessions()
        self._children: dict[int, _Child] = {}
        self._orders: deque[dict[str, Any]] = deque()
        self._news = False
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
        signal.signal(signal.SIGCHLD, _noticed)
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
            if self._orders:
                self._start(self._orders.popleft())
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
        limit = 0 if self._orders else None if self._called else UNCALLED * 1000
        ready = {file for file, _ in poll.poll(limit)}
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
        if self._daemon is None:
            return
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
            self._obey(json.loads(line))

    def _obey(self, order: dict[str, Any]) -> None:
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
        elif "drain" in order:
            self._drain()
        elif "turn" in order:
            lines = [line for child in self._children.values() for line in child.started]
            try:
                self._book.turn(lines)
            except OSError as error:
                print(f"the book goes on without a new generation: {error}", file=sys.stderr)
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
        job = order["start"]
        following: book.Line = {"next": job, "at": boot_clock()}
        self._book.write(following)
        # A spawned child has no moment of its own before the exec: it inherits the mark.
        dye.dye(job[0], self._place)
        try:
            pid = spawn.spawn(
                order["argv"],
                order["env"],
                order["cwd"],
                Path("jobs", str(job[0]), f"{job[1]}.log"),
                home=self._home,
                own_session=self._own_session,
            )
        except spawn.CommandNotStarted as error:
            print(f"job {job[0]}, command {job[1]}: {error}", file=sys.stderr, flush=True)
            self._end(job, error.code)
            return
        finally:
            dye.wash()
        stat = read_stat(pid) if HAS_PROC else None
        began: book.Line = {
            "began": job,
            "pid": pid,
            "start": stat and stat.start,
            "at": boot_clock(),
        }
        self._book.write(began)
        self._children[pid] = _Child(job, [following, began])

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
                self._end(child.job, guard.return_code(ended))
            os.waitpid(ended.si_pid, 0)

    def _end(self, job: list[int], code: int) -> None:
        log = Path("jobs", str(job[0]), f"{job[1]}.log")
        try:
            size = log.stat().st_size
        except OSError:
            size = None
        self._book.write({"end": job, "code": code, "time": time.time(), "size": size})
        self._news = True
