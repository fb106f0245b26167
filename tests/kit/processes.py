"""Processes of our own: started, ended, and found again; never by a look at the whole machine.

Known are the daemon, which a test started; guard and keeper, by the locks they hold; and what
these have started. Who else runs here, another test's processes included, is nobody's business.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import selectors
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Self

import psutil

from dispatcher import keepers, locks
from tests.kit.state_file import state_file
from tests.kit.waiting import DEADLINE

# Those that outlive the daemon; the guard first, since it takes over what a keeper leaves.
ROLES = ("guard", "keeper")
# Before a command line: starts it in a session of its own, and with another parent. FreeBSD has
# no setsid(1), but daemon(8), which does both.
APART = "setsid" if shutil.which("setsid") else "daemon"
# Of a log, for who reads why its program has ended.
_LAST_LINES = 30


class Program:
    """A program to start, kill and start again, which says by a line that it is ready."""

    def __init__(self, log: Path, environment: dict[str, str]) -> None:
        """log: where its errors go."""
        self.log = log
        self.environment = environment
        self.process: subprocess.Popen[str] | None = None

    def command(self) -> list[str]:
        """Its command line."""
        raise NotImplementedError

    def is_ready(self, line: str) -> bool:
        """Does its first line say that it is ready?"""
        raise NotImplementedError

    def start(self, *, stdin: int = subprocess.DEVNULL, pass_fds: Sequence[int] = ()) -> Self:
        """Start it and wait for the ready line. stdin, pass_fds: as Popen has them."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self.environment,
                cwd="/",
                pass_fds=pass_fds,
            )
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            line = self.process.stdout.readline() if selector.select(DEADLINE) else ""
        if not self.is_ready(line):
            self.kill()
            raise AssertionError(f"not ready, but {line!r}:\n{self.log.read_text()}")
        return self

    @property
    def is_up(self) -> bool:
        """It was started, and not ended by us."""
        return self.process is not None

    @property
    def pid(self) -> int:
        """Of the running program."""
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL, and wait for its end; nothing happens if we have ended it before."""
        if self.process is not None:
            self.process.kill()
            self.wait()

    def stop(self, seconds: float = DEADLINE) -> int:
        """SIGTERM, unless it has ended by itself; returns the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.wait(seconds)

    def wait(self, seconds: float = DEADLINE) -> int:
        """An end that is meant to come, whoever brings it about; returns the exit status."""
        assert self.process is not None
        status = self.process.wait(seconds)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process = None
        return status

    def check_alive(self) -> None:
        """Raises: AssertionError with the end of its log, if it ended and nobody meant that."""
        if self.process is not None and (status := self.process.poll()) is not None:
            last = self.log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
            text = "\n".join(last)
            raise AssertionError(f"it ended by itself, with status {status}:\n{text}")


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Generator[subprocess.Popen[str]]:
    """The process, which is killed at the end: a test that fails does not wait for it."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def end(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Signal a process; nothing happens if it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def holders(state_dir: Path, *roles: str) -> list[int]:
    """The pids of the living guards and keepers: each holds a lock on a file of its own."""
    room = state_dir / "keeper"
    pids = [
        pid
        for role in roles or ROLES
        for file in room.glob(f"*.{role}")
        if (pid := locks.holder(room, file.stem, role))
    ]
    # A daemon that asks who lives has the lock of a dead one for a moment.
    return [pid for pid in pids if keepers.is_of_pair(state_dir, pid)]


def family(pids: Iterable[int]) -> list[psutil.Process]:
    """Those of these processes that run, and all that descend from them."""
    found: dict[int, psutil.Process] = {}
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            found |= {each.pid: each for each in (process, *process.children(recursive=True))}
    return [process for process in found.values() if runs(process)]


def runs(process: psutil.Process) -> bool:
    """It has not ended, not even as far as a zombie has."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def command_line(process: psutil.Process) -> list[str]:
    """As it was started, or called itself; empty once it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return process.cmdline()
    return []


def members(state_dir: Path) -> list[psutil.Process]:
    """Processes of this state directory's jobs: all below its guards and keepers.

    Without starters: they look like their keeper. And without those that have lost their
    parents and have no reaper: where a guard is none (`SYSADMD_PORTABLE`), or is dead. See
    `held`, which tells of these as well.
    """
    pairs = holders(state_dir)
    everybody = family(pairs)
    ours = [command_line(process) for process in everybody if process.pid in pairs]
    return [process for process in everybody if command_line(process) not in ours]


def held(state_dir: Path) -> list[Path]:
    """The logs that any process of a job still has open, wherever it went.

    Only while no command is being started: to ask takes the lock for a moment.
    """
    return [log for log in (state_dir / "jobs").glob("*/*.log") if _is_held(log)]


def _is_held(log: Path) -> bool:
    """Every copy of the descriptor that its command was given holds the lock."""
    with log.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def books(state_dir: Path) -> str:
    """What guards and keepers have written, as far as it has not been worked in and deleted."""
    texts: list[str] = []
    for file in (state_dir / "keeper").glob("*.book"):
        with contextlib.suppress(FileNotFoundError):
            texts.append(file.read_text())
    return "".join(texts)


def begun(state_dir: Path) -> list[int]:
    """The pids that commands were given, by the books; they may be others' by now."""
    return [int(pid) for pid in re.findall(r'"began":.*"pid":(\d+)', books(state_dir))]


def starters(state_dir: Path, *, busy: bool = False) -> list[int]:
    """The living starters that the books name, and those of living keepers.

    busy: without those of living keepers that have begun nothing which goes on.
    """
    pids = {int(pid) for pid in re.findall(r'"next":.*"pid":(\d+)', books(state_dir))}
    for keeper in holders(state_dir, "keeper"):
        with contextlib.suppress(psutil.NoSuchProcess):
            pids |= {child.pid for child in psutil.Process(keeper).children()}
    found: list[int] = []
    for pid in sorted(pids - set(holders(state_dir))):
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            named = keepers.is_of_pair(state_dir, pid)
            if named and runs(process) and (not busy or process.children()):
                found.append(pid)
    return found


def end_pairs(state_dir: Path) -> None:
    """Kill guards, keepers and starters; the keeper first: its guard sees it die."""
    helpers = starters(state_dir)
    for pid in (*reversed(holders(state_dir)), *helpers):
        end(pid)


def clean(state_dir: Path) -> None:
    """End what a test leaves: guards, keepers, and the jobs that they or dead ones began."""
    for process in family(remains(state_dir)):
        end(process.pid)


def remains(state_dir: Path) -> list[int]:
    """Guards, keepers, starters, and commands of dead ones: who is there without the daemon.

    A guard comes before its keeper, both before who was begun: to be ended in this order.
    """
    pids = begun(state_dir)
    # There may be none, or none that can be read.
    with contextlib.suppress(sqlite3.Error), state_file(state_dir) as db:
        pids += [
            pid for (pid,) in db.execute("SELECT pid FROM commands WHERE state = 1") if pid
        ]
    place = _place(state_dir)
    known = [*holders(state_dir), *starters(state_dir)]
    return [*known, *(pid for pid in pids if _writes_below(pid, place))]


def holding(state_dir: Path) -> list[int]:
    """Who else has a log of this state directory open, wherever it went.

    Looks at all processes, so only for what is known no other way; see `held`.
    """
    place = _place(state_dir)
    others = (pid for pid in psutil.pids() if pid != os.getpid())
    return [pid for pid in others if _writes_below(pid, place)]


def _place(state_dir: Path) -> str:
    return f"{state_dir.resolve()}/jobs/"


def _writes_below(pid: int, place: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(file.path.startswith(place) for file in psutil.Process(pid).open_files())
    return False
