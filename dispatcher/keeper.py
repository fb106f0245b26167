"""The keeper: the one process whose children become commands. Outlives the daemon.

It decides nothing, keeps nothing but its children, and says everything in its book, from where
the daemon takes it when it can: what comes next before it is told to a process that stands by
(dispatcher/standby.py), and an end before the child is reaped. It touches nothing that a job
names. If it dies, its children fall to the guard (dispatcher/guard.py), its parent. If the
guard dies, it takes no more commands and goes when the last one has ended. Without daemon and
commands it goes at once. Single-threaded, standard library only, everything imported at the
start: the very job that it runs may replace the files that it was started from.
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

from dispatcher import book, guard, standby
from dispatcher.guard import Setup
from dispatcher.identity import boot_clock
from dispatcher.standby import StandBy, Surroundings

# A keeper that its daemon never called, because that was killed meanwhile, goes after this; s.
UNCALLED: Final = 30.0
# A start that takes longer is told of: working directory or program do not answer; s.
HANGS: Final = 5.0
# Read from the daemon at once; a request has up to some hundred KiB.
_PORTION: Final = 256 * 1024
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
    # Nothing of what is there by now is garbage: the stand-bys share it, untouched.
    gc.freeze()
    return keeper.run()


def _noticed(number: int, frame: FrameType | None) -> None:
    """The byte that Python writes to the wake-up pipe is all that is needed."""


class _Child:
    """A process that was told to become a command. channel: None: it has, or has ended."""

    def __init__(self, job: list[int], channel: socket.socket, following: book.Line) -> None:
        self.job = job
        self.channel: socket.socket | None = channel
        self.following = following
        self.began: book.Line | None = None
        self.hangs = False

    def hear(self) -> None:
        """What it says: first that it is about to begin, then, by its silence, that it has."""
        while self.channel is not None:
            try:
                told = self.channel.recv(_PORTION)
            except BlockingIOError:
                return
            except OSError:
                told = b""
            if told:
                self.began = json.loads(told)
            else:
                self.channel.close()
                self.channel = None

    @property
    def lines(self) -> list[book.Line]:
        """What a new generation of the book has to say of it."""
        return [self.following, self.began] if self.began else [self.following]


class Keeper:
    """The state of the process: its children, its daemon, its guard."""

    def __init__(self, setup: Setup, guard_end: socket.socket) -> None:
        room = Path("keeper")
        self._setup = setup
        # Shows for as long as we live that we do.
        self._lock = os.open(room / f"{setup.id}.keeper", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        # Shows that a command may still begin: held by those that stand by, too.
        starts = os.open(room / f"{setup.id}.starts", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(starts, fcntl.LOCK_EX)
        self._book = book.BookWriter(room, setup.id, 1)
        self._surroundings = Surroundings(
            place=Path().stat().st_ino,
            ties=(starts, guard_end.fileno()),
            limits=setup.limits,
        )
        self._idle: StandBy | None = None
        self._children: dict[int, _Child] = {}
        # Of those told to become commands, not seen to have: until when, by the monotonic
        # clock.
        self._fresh: deque[tuple[float, int]] = deque()
        self._orders: deque[bytes] = deque()
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
            if not self._orders and not self._draining and self._idle is None:
                self._stand_ready()
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
                if child.channel is not None and child.began is None:
                    poll.register(child.channel, select.POLLIN)
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
        if line.startswith(b'{"start"'):
            if not self._draining:
                self._orders.append(line)
            return
        order: dict[str, Any] = json.loads(line)
        if "hello" in order:
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
            if child.channel is not None and child.began is None:
                return
        self._turn = False
        lines = [line for child in self._children.values() for line in child.lines]
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
            if self._idle is not None:
                # It ends by itself, and says nothing.
                self._idle.channel.close()
                self._idle = None
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

    def _start(self, line: bytes) -> None:
        job: list[int] = json.loads(line)["start"]
        following: book.Line = {"next": job, "at": boot_clock()}
        self._book.write(following)
        order = standby.order(str(self._book.path), line)
        process, self._idle = self._idle, None
        if process is not None and not _hand_over(process, order):
            process = None
        if process is None:
            try:
                process = standby.fork(self._surroundings, order)
            except OSError as error:
                standby.refuse(job, f"no process can be made: {error.strerror}")
                self._end(job, standby.CANNOT_RUN)
                return
        self._children[process.pid] = _Child(job, process.channel, following)
        self._fresh.append((time.monotonic() + HANGS, process.pid))

    def _stand_ready(self) -> None:
        """Have a process that the next order goes to: to fork it then would take too long."""
        # If there can be none now, the order will say so.
        with suppress(OSError):
            self._idle = standby.fork(self._surroundings)

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
            if child.channel is not None:
                # Looked at again until it is through.
                self._fresh.append((now + HANGS, pid))
            hangs = child.channel is not None and child.began is not None
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
                if child.began is None and code == standby.BARRED:
                    self._write({"barred": child.job})
                else:
                    self._end(child.job, code, begun=child.began is not None)
                if child.hangs:
                    self._tell_hanging()
            elif self._idle is not None and self._idle.pid == ended.si_pid:
                self._idle.channel.close()
                self._idle = None
            os.waitpid(ended.si_pid, 0)

    def _end(self, job: list[int], code: int, *, begun: bool = True) -> None:
        self._write(book.end(job, code, begun=begun))

    def _write(self, line: book.Line) -> None:
        self._book.write(line)
        self._news = True


def _hand_over(process: StandBy, order: bytes) -> bool:
    """Tell a process that stands by what to become. False: it is too much, or the process dead.

    It then ends by itself, and says nothing.
    """
    if len(order) <= standby.MOST:
        with suppress(OSError):
            if process.channel.send(order) == len(order):
                return True
    process.channel.close()
    return False
