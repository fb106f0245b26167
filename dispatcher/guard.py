"""The guard: the keeper's parent, and the net under it. Starts no command, talks to nobody.

Until the keeper dies it does nothing but continue it when somebody has stopped it. Then the
keeper's children, ended ones included, fall to the guard, since it is the reaper of its
descendants where the system has such a thing. Those that are starters go on by themselves, and
tell the ends of their commands. What falls to the guard when a starter dies, too, it knows by
the book: it empties its pipe and writes down its end; it stays as long as there is any of that.
Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from dispatcher import adoption, book, dye, locks, reaper
from dispatcher.fdstore import FdStore, Kept
from dispatcher.relays import Relays
from dispatcher.stopped import Stopped
from dispatcher.transits import Transits
from dispatcher.words import Began, Dead, Fact, Next
from sysadmd.machine import FORCED_PORTABLE

# Signals that guard and keeper do not take.
QUIET: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
# How often to look where nothing is told: if starters of a guard that is no reaper still live,
# if a guard that begins was stopped; ms.
_LOOK: Final = 500


@dataclass(frozen=True, slots=True)
class Setup:
    """What guard and keeper are told at their start. limits: those that commands get."""

    id: str
    version: str
    limits: dict[int, tuple[int, int]]


def read_setup(argv: list[str]) -> Setup:
    """From the command line; goes to the state directory, where all paths are relative to."""
    state_dir, id, version, limits = argv
    os.chdir(state_dir)
    pairs = {int(kind): (soft, hard) for kind, (soft, hard) in json.loads(limits).items()}
    return Setup(id, version, pairs)


def return_code(ended: os.waitid_result) -> int:
    """0..255, or minus the signal. si_code says which of the two si_status is."""
    # FreeBSD tells all 32 bits of what was given to exit().
    return ended.si_status & 0xFF if ended.si_code == os.CLD_EXITED else -ended.si_status


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What guard and keeper both have open, so that it outlives each of them."""

    store: FdStore
    transits: Transits


def run(setup: Setup, keep: Callable[[Setup, socket.socket, Inheritance, int], int]) -> int:
    """Leave the daemon, start the keeper, and guard it. Returns the exit status."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    # A job may have started the daemon.
    dye.wash()
    ready, ready_end = os.pipe()
    guard = os.fork()
    if guard:
        # The daemon waits for this process alone: it is parent of neither guard nor keeper.
        os.close(ready_end)
        stopped = Stopped("guard")
        while not select.select([ready], [], [], _LOOK / 1000)[0]:
            stopped.go_on({guard})
        return 0 if os.read(ready, 1) else 1
    os.close(ready)
    os.setsid()
    # Not ignored: a command would inherit that. What becomes one takes them when it begins.
    signal.pthread_sigmask(signal.SIG_BLOCK, QUIET)
    reaper.become()
    guard_end, keeper_end = socket.socketpair()
    kept = Inheritance(FdStore(), Transits())
    # Shows for as long as we live that we do, before there is anything to guard. A record lock:
    # the keeper does not inherit it.
    lock = os.open(Path("keeper", f"{setup.id}.guard"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.lockf(lock, fcntl.LOCK_EX)
    keeper = os.fork()
    if keeper == 0:
        os.close(lock)
        guard_end.close()
        return keep(setup, keeper_end, kept, ready_end)
    keeper_end.close()
    os.close(ready_end)
    return _guard(setup, keeper, guard_end, kept)


def _guard(setup: Setup, keeper: int, line: socket.socket, kept: Inheritance) -> int:
    """Until there is nothing left to tell."""
    # Nobody else falls to us before: as long as it lives, all below it fall to the keeper.
    code = return_code(_end_of(keeper))
    # On FreeBSD what a reaper leaves falls to the next one only when that one is reaped.
    os.waitpid(keeper, 0)
    if code == 0:
        # It went by itself and owed nothing.
        return 0
    newest = book.generations(Path("keeper"), setup.id)
    writer = book.BookWriter(Path("keeper"), setup.id, newest[-1] if newest else 1)
    pipes = kept.store.take_all()
    # Ends when each starter that may still begin a command has begun it, or is gone.
    line.setblocking(True)
    with contextlib.suppress(OSError):
        line.recv(1)
    left = _look_for_begun(setup.id, writer)
    writer.write({"dead": True})
    return _reap(setup.id, writer, left, pipes, kept.transits)


def _end_of(keeper: int) -> os.waitid_result:
    """Wait for it, and continue it until then when it is stopped; it is not reaped."""
    stopped = Stopped("keeper")
    while True:
        seen = os.waitid(os.P_PID, keeper, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
        assert seen is not None
        if seen.si_code != os.CLD_STOPPED:
            return seen
        stopped.go_on({keeper})


@dataclass(slots=True)
class _Open:
    """A command that was announced and has not ended. starter: of it; pid: None: not begun."""

    job: list[int]
    since: float
    starter: int | None
    limit: int
    transit: int | None
    pid: int | None = None


def _open(facts: list[Fact]) -> list[_Open]:
    """The commands that have neither ended nor were barred, by the book."""
    left: dict[tuple[int, int], _Open] = {}
    for fact in facts:
        if isinstance(fact, Next):
            left[fact.job] = _Open(list(fact.job), fact.at, fact.pid, fact.limit, fact.transit)
        elif isinstance(fact, Began):
            known = left.get(fact.job)
            if known is not None:
                known.pid = fact.pid
        elif not isinstance(fact, Dead):
            left.pop(fact.job, None)
    return list(left.values())


def _look_for_begun(id: str, writer: book.BookWriter) -> list[_Open]:
    """Say what became of commands whose starters died with the keeper and could not say it.

    Returns those that go on, and whose ends nobody will see.
    """
    there, left = _open(writer.facts()), list[_Open]()
    known = {pid for one in there for pid in (one.starter, one.pid) if pid is not None}
    for one in there:
        if one.pid is not None:
            if not adoption.is_ours(one.pid) and not _serves(id, one.starter):
                writer.write({"left": one.job})
                left.append(one)
            continue
        # It has hung up, but only when it is gone its command has fallen to us.
        with contextlib.suppress(OSError):
            os.waitid(os.P_PID, one.starter or 0, os.WEXITED | os.WNOWAIT)
        try:
            pid = adoption.find(one.job, one.since, _place(), known)
        except adoption.Doubt:
            writer.write(book.end(one.job, None, None))
            left.append(one)
            continue
        if pid is not None:
            writer.write(book.began(one.job, pid, one.since))
            known.add(pid)
    return left


def _reap(
    id: str,
    writer: book.BookWriter,
    left: list[_Open],
    pipes: dict[tuple[int, ...], Kept],
    transits: Transits,
) -> int:
    """Write down each end that falls to us before it is reaped; starters tell theirs.

    left: commands of which the output alone is ours. pipes: of these, and of others.
    """
    signal.signal(signal.SIGCHLD, noticed)
    wake = wake_up_pipe()
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    relays = Relays(poll, transits)
    for one in left:
        relays.want(one.job, one.limit, transit=one.transit)
    while True:
        there = _open(writer.facts())
        # What has not by now never does; its pipe may be that of another attempt soon.
        begun = [one for one in there if one.pid is not None]
        for one in begun:
            if not _serves(id, one.starter):
                kept = pipes.pop(tuple(one.job), None)
                relays.want(one.job, one.limit, kept.pipe if kept else -1, one.transit)
        # Somebody may have the output of what has ended.
        for job in pipes.keys() - {tuple(one.job) for one in there}:
            kept = pipes.pop(job)
            relays.want(kept.job, kept.limit, kept.pipe, begun=False)
        ours = [one for one in begun if one.pid is not None and adoption.is_ours(one.pid)]
        relays.look()
        if not (ours or relays.serves or any(_serves(id, one.starter) for one in there)):
            return 0
        ended = _next_end(poll, wake, relays)
        if ended is None:
            continue
        # A starter that lived when we looked may have told what has now fallen to us.
        for one in _open(writer.facts()):
            if one.pid == ended.si_pid:
                size = relays.size(one.job)
                writer.write(book.end(one.job, return_code(ended), size))
        os.waitpid(ended.si_pid, 0)


def wake_up_pipe() -> int:
    """Where there is a byte to read for each signal that has a handler; never waits."""
    wake, wake_end = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(wake_end, False)
    signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
    return wake


def noticed(number: int, frame: FrameType | None) -> None:
    """The byte that Python writes to the wake-up pipe is all that is needed."""


def _next_end(poll: select.poll, wake: int, relays: Relays) -> os.waitid_result | None:
    """Empty pipes until a child has ended. None: there is none, and no pipe either."""
    while True:
        relays.look()
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            if not relays.serves:
                if FORCED_PORTABLE:
                    # Starters go on that are not ours: nobody says when they end.
                    poll.poll(_LOOK)
                return None
            ended = None
        if ended is not None:
            return ended
        for file, _ in poll.poll(relays.patience):
            if not relays.take(file):
                os.read(wake, 4096)


def _serves(id: str, starter: int | None) -> bool:
    """Does this starter of the pair live? Where we are the reaper, it is ours by now."""
    if starter is None:
        return False
    if not FORCED_PORTABLE:
        return adoption.is_ours(starter)
    try:
        os.kill(starter, 0)
    except OSError:
        return False
    # If none of them lives it is another's pid by now.
    return locks.is_held(Path("keeper", f"{id}.ends"))


def _place() -> int:
    return Path().stat().st_ino
