"""The daemon's side of guard and keeper: start a pair, call it.

Starts no command itself. Who lives is told by dispatcher/locks.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import sysadmd
from dispatcher import book, locks, words
from dispatcher.fate import Pair
from dispatcher.processes import command_line
from dispatcher.trouble import LOG_SIZE
from dispatcher.words import Said
from sysadmd import unix_socket
from sysadmd.apart import apart

# A keeper that does not answer within this is stopped or swapped out; it is called again, s.
PATIENCE: Final = 5.0
# Of what a keeper says, bytes.
_LONGEST: Final = 64 * 1024

Limits = Mapping[int, tuple[int, int]]


class NoAnswer(Exception):
    """The keeper can't be reached now: it is not there yet, not any more, or stopped."""


class KeeperLine(asyncio.Protocol):
    """The lines that a keeper says, each taken in the turn of the loop in which it comes."""

    def __init__(self) -> None:
        self._take: Callable[[bytes], object] | None = None
        # Those that nobody has taken yet; there is one, or it has hung up.
        self._early: list[bytes] = []
        self._came = asyncio.Event()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            self._hand_in(line)
        if len(self._heard) > _LONGEST:
            # No keeper says so much.
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._over.done():
            self._over.set_result(None)
        self._came.set()

    async def ask(self, request: bytes, is_answer: Callable[[bytes], bool]) -> bytes | None:
        """Say this; the first line that is an answer. None: it has hung up.

        What comes before it is passed over: it was said to whoever is there.
        """
        self.write(request)
        while True:
            await self._came.wait()
            while self._early:
                line = self._early.pop(0)
                if is_answer(line):
                    return line
            if self._over.done():
                return None
            self._came.clear()

    async def listen(self, take: Callable[[bytes], object]) -> None:
        """Have each further line taken, until it has hung up. Raises: what `take` raises."""
        self._take = take
        for line in self._early:
            self._hand_in(line)
        await self._over

    def write(self, data: bytes) -> None:
        """Hand it over, if it has not hung up."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def _hand_in(self, line: bytes) -> None:
        if self._take is None:
            self._early.append(line)
            self._came.set()
            return
        try:
            self._take(line)
        except Exception as error:  # noqa: BLE001 - handed to who listens
            if not self._over.done():
                self._over.set_exception(error)


@dataclass(slots=True)
class Link:
    """A connection to a keeper. lends: commands can be lent to it. given: jobs that it was
    given over this connection, and that have not ended."""

    id: str
    version: str
    draining: bool
    line: KeeperLine
    lends: bool = False
    given: set[int] = field(default_factory=set[int])

    def send(self, request: Mapping[str, Any]) -> None:
        """Hand a request over. If the keeper is gone it is lost, and found to be so later."""
        self.line.write(book.encode(dict(request)))

    async def listen(self, take: Callable[[Said], object]) -> None:
        """Until it hangs up: each thing that the keeper says; nothing: its book has grown."""
        await self.line.listen(lambda line: take(words.said(line)))

    def close(self) -> None:
        """The keeper goes when it has no children, else it goes on without us."""
        self.line.close()


@dataclass(slots=True)
class KeeperPair:
    """A guard and its keeper, as the daemon knows them.

    takes: it may be asked to start commands. settle: what it was asked for and has not written
    `next` for by now, it will not start. dead: nothing begins any more, though starters may
    still tell ends. over: guard, keeper and starters are dead. turning: it was asked for a new
    generation of its book. strange: it writes what is not known here, and that was told.
    hanging: commands (job, number) whose start takes long. silent: in how many looks
    (dispatcher/rousing.py) nothing was heard of the keeper.
    """

    id: str
    book: book.BookReader
    link: Link | None = None
    takes: bool = False
    settle: bool = False
    dead: bool = False
    over: bool = False
    turning: bool = False
    strange: bool = False
    hanging: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    silent: int = 0

    @property
    def state(self) -> Pair:
        """What is to be said of it with the next turn."""
        if self.over:
            return Pair.OVER
        if self.dead:
            return Pair.DEAD
        return Pair.SETTLED if self.settle else Pair.STARTS


async def start(state_dir: Path, limits: Limits) -> str:
    """Start guard and keeper; returns their id. Raises: OSError."""
    id = secrets.token_hex(6)
    program = Path(sysadmd.__file__).with_name("__main__.py")
    argv = [
        sys.executable,
        *("-I", "-S", "-X", "utf8", str(program), "keeper"),
        *(os.path.realpath(state_dir), id, sysadmd.__version__),  # noqa: ASYNC240 - no disk is asked
        json.dumps({str(kind): pair for kind, pair in limits.items()}),
    ]
    # In a thread: the spawn holds its caller until the exec.
    status = await apart(partial(_spawn, argv, state_dir), "keeper")
    if status:
        raise OSError(f"the keeper could not be started; {state_dir}/keeper.log says why")
    return id


def _spawn(argv: list[str], state_dir: Path) -> int:
    log = state_dir / "keeper.log"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    if log.exists() and log.stat().st_size > LOG_SIZE:
        flags |= os.O_TRUNC
    pid = os.posix_spawn(
        argv[0],
        argv,
        {name: os.environ[name] for name in ("PATH", "SYSADMD_PORTABLE") if name in os.environ},
        # Nothing of ours: who reads the daemon's output to its end must not wait for a job.
        file_actions=(
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ),
        setsigmask=(),
        setsigdef=tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}),
    )
    while True:
        _, status = os.waitpid(pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status)
        os.kill(pid, signal.SIGCONT)


async def call(state_dir: Path, id: str, patience: float = PATIENCE) -> Link:
    """Connect to a keeper and hear its answer. Whoever was connected before is cut off.

    After this its book holds whatever an earlier daemon's requests have led to.
    Raises: NoAnswer.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(patience):
            with unix_socket.short(state_dir / "keeper" / f"{id}.sock") as path:
                _, line = await loop.create_unix_connection(KeeperLine, str(path))
            try:
                answer = await line.ask(book.encode({"hello": 1}), _is_answer)
            except BaseException:
                line.close()
                raise
    except (OSError, ValueError, TimeoutError) as error:
        raise NoAnswer(str(error) or type(error).__name__) from error
    if answer is None:
        raise NoAnswer("it has hung up")
    heard = words.said(answer)
    return Link(id, heard.version, heard.draining, line, heard.lends)


def _is_answer(line: bytes) -> bool:
    """Not news, nor what hangs. What is not understood is one: of another version."""
    heard = words.said(line)
    return heard.hello or not (line == b"" or heard.hanging is not None)


def ids(room: Path) -> list[str]:
    """The pairs of which there is anything in the room."""
    return sorted({file.name.split(".")[0] for file in room.iterdir()})


def living(room: Path) -> set[int]:
    """The pids of guards, keepers and starters; 0: one of which it can't be told."""
    found: set[int] = set()
    for id in ids(room) if room.is_dir() else ():
        if locks.lives(room, id, "guard") or locks.tells(room, id):
            pids = [locks.holder(room, id, role) for role in ("guard", "keeper")]
            found |= {pid for pid in (*pids, *locks.starters(room, id)) if pid} or {0}
    return found


def is_of_pair(state_dir: Path, pid: int) -> bool:
    """Is it a guard, a keeper or a starter, by its command line?"""
    argv = command_line(pid)
    return argv[6:8] == ["keeper", os.path.realpath(state_dir)]


def remove(room: Path, ids: Iterable[str]) -> None:
    """Delete what dead pairs have left."""
    for id in ids:
        for file in room.glob(f"{id}.*"):
            with suppress(OSError):
                file.unlink()
