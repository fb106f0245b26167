"""The starter: a process of the keeper's that begins one command at a time, and sees its end.

It alone touches what a job names: working directory, program, interpreter. If they hang, it
hangs, and nobody else. It tells the keeper over a line between the two; the keeper writes the
book, and acknowledges the end. For each order:

1. it makes the command's log, which decides once for all who may begin it;
2. goes to the working directory, and marks the log: from here on the command may have begun;
3. spawns it, and tells `began`; or says in its log why it can't, with a code as a shell has it;
4. sees its end, tells that, and reaps when the keeper has it in the book.

When the keeper is dead it writes what that did not acknowledge into the book itself, lets go of
what says that something may still begin, and stays until its command has ended.

Standard library only, all imported before the fork.
"""
# ruff: noqa: PTH102, PTH103, PTH112 - a Path costs more than what is done with it here

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import select
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from dispatcher import book, dye
from dispatcher.adoption import BEGUN
from dispatcher.guard import return_code
from dispatcher.identity import boot_clock

# As a shell has it: not found, and found but not to be run.
NOT_FOUND: Final = 127
CANNOT_RUN: Final = 126
# Read from the keeper at once; an order has up to some hundred KiB.
_PORTION: Final = 256 * 1024
# The mode of a log until just before its command may have begun. A kill's is another.
_UNBEGUN: Final = 0o200
# Python ignores SIGPIPE and SIGXFSZ, and the keeper takes some more.
_DEFAULTS: Final = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})

Limits = Mapping[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Fittings:
    """What a starter works with, in descriptors. home: the state directory.

    line: to the keeper. ties: what says that something may still begin. ends: what says that
    an end may still be told. id: the keeper's. mark: tells the daemon's dyes from others'.
    """

    id: str
    mark: int
    home: int
    line: int
    ties: Sequence[int]
    ends: int
    limits: Limits


def become(fittings: Fittings) -> NoReturn:
    """The life of a process that the keeper has just forked."""
    status = 1
    try:
        _close_others({0, 1, 2, fittings.home, fittings.line, fittings.ends, *fittings.ties})
        os.setsid()
        status = Starter(fittings).run()
    finally:
        # Nothing of the keeper's own goes on here.
        os._exit(status)


def _close_others(kept: Iterable[int]) -> None:
    following = 0
    for file in sorted(kept):
        if following < file:
            # An empty range would be taken for all that there is.
            os.closerange(following, file)
        following = file + 1
    os.closerange(following, os.sysconf("SC_OPEN_MAX"))


class Starter:
    """The state of the process: what it has told and nobody has acknowledged."""

    def __init__(self, fittings: Fittings) -> None:
        self._fittings = fittings
        self._heard = b""
        self._told: list[bytes] = []
        self._book: book.BookWriter | None = None
        self._refused: OSError | None = None
        self._own_session = True
        self._wake, wake_end = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_end, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._poll.register(fittings.line, select.POLLIN)
        try:
            for kind, pair in fittings.limits.items():
                if resource.getrlimit(kind) != pair:
                    resource.setrlimit(kind, pair)
        except (OSError, ValueError) as error:
            # Told of each command: none may run without them.
            self._refused = OSError(errno.EPERM, f"its limits can't be set: {error}")

    def run(self) -> int:
        """Until the keeper hangs up, and what was begun has ended."""
        while self._book is None and (line := self._next_line()) is not None:
            self._serve(json.loads(line))
        return 0

    def _serve(self, order: dict[str, Any]) -> None:
        job: list[int] = order["start"]
        try:
            log = make_log(*job)
        except OSError as error:
            reason = f"its log can't be written: {error.strerror}"
            print(f"job {job[0]}, command {job[1]}: {reason}", file=sys.stderr, flush=True)
            self._finish(book.end(job, CANNOT_RUN))
            return
        if log is None:
            self._finish({"barred": job})
            return
        # The command inherits it.
        dye.dye(job[0], self._fittings.mark)
        try:
            pid, code = self._begin(job, order["argv"], order["env"], order["cwd"], log)
        finally:
            dye.wash()
            os.close(log)
        if not pid:
            self._finish(book.end(job, code))
            return
        self._finish(book.end(job, return_code(self._see_end(pid))))
        os.waitpid(pid, 0)

    def _begin(
        self, job: list[int], argv: list[str], env: Mapping[str, str], cwd: str, log: int
    ) -> tuple[int, int]:
        """The command's pid; 0: it can't be started, with this code, and its log says why."""
        try:
            if self._refused is not None:
                raise self._refused
            os.chdir(cwd)
            os.fchmod(log, BEGUN)
            since = boot_clock()
            pid = self._find_and_spawn(argv, env, log)
        except OSError as error:
            code, reason = _explain(error, argv[0], cwd)
        except ValueError as error:
            # Nothing that was accepted should get here; the command is answered for all the
            # same.
            code, reason = CANNOT_RUN, f"{argv[0]}: {error}"
        else:
            os.fchdir(self._fittings.home)
            self._tell(
                b'{"began":[%d,%d],"pid":%d,"since":%r,"at":%r}\n'
                % (*job, pid, since, boot_clock())
            )
            return pid, 0
        os.fchdir(self._fittings.home)
        say(log, reason)
        return 0, code

    def _find_and_spawn(self, argv: list[str], env: Mapping[str, str], log: int) -> int:
        """Spawn the program, sought in the PATH that the command has. Raises: OSError."""
        program = argv[0]
        if "/" in program:
            return self._spawn(program, argv, env, log)
        candidates = [
            f"{directory or '.'}/{program}"
            for directory in env.get("PATH", os.defpath).split(":")
        ]
        for candidate in candidates if program else ():
            # To try each would cost a process.
            if os.access(candidate, os.X_OK):
                with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                    return self._spawn(candidate, argv, env, log)
        for candidate in candidates:
            # One that is there shows why it was refused.
            if program and os.path.lexists(candidate) and not os.path.isdir(candidate):
                return self._spawn(candidate, argv, env, log)
        raise FileNotFoundError(errno.ENOENT, "command not found", program)

    def _spawn(self, path: str, argv: list[str], env: Mapping[str, str], log: int) -> int:
        actions = ((os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2))
        if self._own_session:
            try:
                return os.posix_spawn(
                    path,
                    argv,
                    env,
                    file_actions=actions,
                    setsid=True,
                    setsigmask=(),
                    setsigdef=_DEFAULTS,
                )
            except NotImplementedError:
                self._own_session = False
        return os.posix_spawn(
            path,
            argv,
            env,
            file_actions=actions,
            setpgroup=0,
            setsigmask=(),
            setsigdef=_DEFAULTS,
        )

    def _see_end(self, pid: int) -> os.waitid_result:
        """Wait for a command's end, and meanwhile for the keeper's."""
        while True:
            if self._book is None:
                for file, _ in self._poll.poll():
                    if file == self._wake:
                        os.read(file, 4096)
                    elif not self._hear():
                        self._part()
            # Alone: nothing else is to be seen.
            patience = os.WNOHANG if self._book is None else 0
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | patience)
            if ended is not None:
                return ended

    def _finish(self, line: book.Line) -> None:
        """Tell the last of a command; returns when it is in the book."""
        self._tell(book.encode(line))
        if self._book is None and self._next_line() is None:
            self._part()
        self._told.clear()

    def _tell(self, line: bytes) -> None:
        if self._book is not None:
            book.write(self._book.file, line)
            return
        self._told.append(line)
        try:
            while line:
                line = line[os.write(self._fittings.line, line) :]
        except OSError:
            self._part()

    def _part(self) -> None:
        """The keeper is dead: write down what it may not have, and let go of the ties."""
        fittings = self._fittings
        room = Path("keeper")
        newest = book.generations(room, fittings.id)
        self._book = book.BookWriter(room, fittings.id, newest[-1] if newest else 1)
        for line in self._told:
            book.write(self._book.file, line)
        for file in fittings.ties:
            os.close(file)

    def _next_line(self) -> bytes | None:
        """What the keeper says next: an order, or nothing, which acknowledges. None: it is
        dead."""
        while b"\n" not in self._heard:
            if not self._hear():
                return None
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    def _hear(self) -> bool:
        """False: the keeper has hung up."""
        try:
            data = os.read(self._fittings.line, _PORTION)
        except OSError:
            data = b""
        self._heard += data
        return bool(data)


def make_log(uid: int, n: int) -> int | None:
    """Make a command's log; a descriptor that appends to it. None: somebody has made it before.

    That decides, once for all, if the command begins: a kill makes it to prevent that. Every
    copy of the descriptor holds a lock: free means that nothing writes any more. Raises:
    OSError.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    if not n:
        with suppress(OSError):
            os.mkdir(f"jobs/{uid}", 0o700)
    while True:
        try:
            log = os.open(f"jobs/{uid}/{n}.log", flags, _UNBEGUN)
        except FileExistsError:
            return None
        except FileNotFoundError:
            os.makedirs(f"jobs/{uid}", 0o700, exist_ok=True)
        else:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return log


def is_held(uid: int, n: int) -> bool:
    """Does anybody still write a command's log?"""
    try:
        log = os.open(f"jobs/{uid}/{n}.log", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(log)
    return False


def say(log: int, reason: str) -> None:
    """Write into a command's log why it can't be started."""
    with suppress(OSError):
        os.fchmod(log, BEGUN)
        os.write(log, f"sysadmd: cannot start {reason}\n".encode(errors="replace"))


def _explain(error: OSError, program: str, cwd: str) -> tuple[int, str]:
    """Return code and reason, as a shell has them."""
    name = str(error.filename or program)
    if error.errno != errno.ENOENT or name == cwd:
        return CANNOT_RUN, f"{name}: {error.strerror}"
    interpreter = _interpreter(name)
    if interpreter is None:
        return NOT_FOUND, f"{name}: {error.strerror}"
    # What is not there is not the program, but what it asks for.
    return CANNOT_RUN, f"{name}: its interpreter {interpreter!r} is not there"


def _interpreter(program: str) -> str | None:
    """What a script names in its first line, or a binary's loader; None: it is not there."""
    try:
        with open(program, "rb") as file:  # noqa: PTH123 - the path is not ours to change
            first = file.readline(4096)
    except OSError:
        return None
    if not first.startswith(b"#!"):
        return "(the loader that it was linked for)"
    words = first[2:].strip(b" \t\n").split(None, 1)
    # A carriage return is shown: it is what makes most such names wrong.
    return os.fsdecode(words[0] + b"\r" * first.endswith(b"\r\n")) if words else ""
