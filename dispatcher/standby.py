"""A process that stands by to become a command. Forked by the keeper, and its child to the end.

It alone touches what a job names: working directory, program, interpreter. If they hang, it
hangs, and nobody else. In this order, each step for those who look from outside:

1. makes the command's log, which must not be there: who made it first decides, once for all
   whether the command begins. A kill makes it to prevent that.
2. writes `began` into the book: from here on the command has begun and has a process.
3. lets go of what says that something may still begin; becomes the command, or says in its log
   why it can't and ends as a shell would.

What is done between the order and the exec is written for few steps, not for looks: whatever a
forked process touches first costs a page. Standard library only, all imported before the fork.
"""
# ruff: noqa: PTH102, PTH103, PTH112 - a Path costs more than what is done with it here

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from dispatcher import book, dye
from dispatcher.identity import HAS_PROC, boot_clock, read_stat

# As a shell has it: not found, and found but not to be run.
NOT_FOUND: Final = 127
CANNOT_RUN: Final = 126
# How a stand-by ends that became no command.
UNUSED: Final = 0
BARRED: Final = 1
# An order up to this fits into the channel's buffer in any case (8 KiB on FreeBSD); for a
# longer one a process is forked that has it already.
MOST: Final = 4096

_PORTION: Final = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a stand-by has of its keeper.

    place: of the dye. ties: descriptors that say that something may still begin. limits: those
    that commands get.
    """

    place: int
    ties: tuple[int, ...]
    limits: Mapping[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class StandBy:
    """The keeper's side. channel: takes an order, tells `began`, ends with the exec."""

    pid: int
    channel: socket.socket


def fork(surroundings: Surroundings, order: bytes = b"") -> StandBy:
    """A new one. order: what it is to become; empty: that comes by the channel.

    No signal may be ignored meanwhile: a command would inherit that. Those that are blocked it
    gets when it begins. Raises: OSError if there can be no further process.
    """
    ours, theirs = socket.socketpair()
    since = boot_clock()
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        _stand_by(surroundings, theirs.fileno(), order, since)
    theirs.close()
    ours.setblocking(False)
    return StandBy(pid, ours)


def order(book_file: str, line: bytes) -> bytes:
    """What a stand-by takes: the book, and the daemon's line that asks for the start."""
    return b"%s\n%s\n" % (book_file.encode(), line)


def _stand_by(surroundings: Surroundings, channel: int, order: bytes, since: float) -> NoReturn:
    status = CANNOT_RUN
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        _close_all_but((0, 1, 2, channel, *surroundings.ties))
        stat = read_stat(os.getpid()) if HAS_PROC else None
        start = "null" if stat is None else repr(stat.start)
        order = order or _receive(channel)
        if order:
            file, line, _ = order.split(b"\n")
            began = f'"pid":{os.getpid()},"start":{start},"since":{since!r}'
            status = _become(surroundings, channel, file, json.loads(line), began)
        else:
            status = UNUSED
    except BaseException as error:  # noqa: BLE001 - there is nobody above
        os.write(2, f"a command could not be started: {error!r}\n".encode())
    finally:
        os._exit(status)


def _receive(channel: int) -> bytes:
    """The order; empty: the keeper is dead."""
    data = b""
    while data.count(b"\n") < 2:
        part = os.read(channel, _PORTION)
        if not part:
            return b""
        data += part
    return data


def _become(
    surroundings: Surroundings, channel: int, file: bytes, order: dict[str, Any], process: str
) -> int:
    """Returns the exit status of what could not become a command."""
    uid, n = order["start"]
    problem = ""
    try:
        log = make_log(uid, n)
        if log is None:
            return BARRED
        # Every copy of this descriptor holds the lock: free means that nothing writes any more.
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.dup2(log, 1)
        os.dup2(log, 2)
    except OSError as error:
        problem = f"job {uid}, command {n}: its log can't be written: {error.strerror}\n"
    began = f'{{"began":[{uid},{n}],{process},"at":{boot_clock()!r}}}\n'.encode()
    book.write(os.open(file, book.APPEND, 0o600), began)
    with suppress(OSError):
        # The keeper may be dead by now; its guard reads the book.
        os.write(channel, began)
    for tie in surroundings.ties:
        os.close(tie)
    dye.dye(uid, surroundings.place)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if problem:
        os.write(2, problem.encode())
        return CANNOT_RUN
    return _execute(order["argv"], order["env"], order["cwd"], surroundings.limits)


def make_log(uid: int, n: int) -> int | None:
    """Make a command's log; a descriptor that appends to it. None: somebody has made it before.

    Raises: OSError.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    if not n:
        with suppress(OSError):
            os.mkdir(f"jobs/{uid}", 0o700)
    while True:
        try:
            return os.open(f"jobs/{uid}/{n}.log", flags, 0o600)
        except FileExistsError:
            return None
        except FileNotFoundError:
            os.makedirs(f"jobs/{uid}", 0o700, exist_ok=True)


def refuse(job: list[int], reason: str) -> None:
    """Say in a command's log why it can't be started, if that can be said."""
    try:
        log = make_log(*job)
        if log is not None:
            _say(log, f"it: {reason}")
            os.close(log)
    except OSError:
        pass


def _say(log: int, reason: str) -> None:
    os.write(log, f"sysadmd: cannot start {reason}\n".encode(errors="replace"))


def _execute(
    argv: list[str],
    env: Mapping[str, str],
    cwd: str,
    limits: Mapping[int, tuple[int, int]],
) -> int:
    """Returns only if it could not be done, with the exit status; the reason is in the log."""
    try:
        os.chdir(cwd)
        for kind, pair in limits.items():
            if resource.getrlimit(kind) != pair:
                resource.setrlimit(kind, pair)
        _replace(argv, env)
    except OSError as error:
        code, reason = _explain(error, argv[0], cwd)
    except ValueError as error:
        # Nothing that was accepted should get here; the command is answered for all the same.
        code, reason = CANNOT_RUN, f"{argv[0]}: {error}"
    _say(1, reason)
    return code


def _replace(argv: list[str], env: Mapping[str, str]) -> NoReturn:
    """Become the program, sought in the PATH that the command itself has. Raises: OSError."""
    program = argv[0]
    if "/" in program:
        os.execve(program, argv, env)  # noqa: S606 - never a shell
    refused: OSError | None = None
    for directory in env.get("PATH", os.defpath).split(":") if program else ():
        candidate = f"{directory or '.'}/{program}"
        try:
            os.execve(candidate, argv, env)  # noqa: S606 - never a shell
        except (FileNotFoundError, NotADirectoryError) as error:
            # If the file is there, what it needs is not.
            if os.path.lexists(candidate):
                refused = refused or _of(error, candidate)
        except PermissionError as error:
            if not os.path.isdir(candidate):
                refused = refused or _of(error, candidate)
        except OSError as error:
            raise _of(error, candidate) from error
    raise refused or FileNotFoundError(errno.ENOENT, "command not found", program)


def _of(error: OSError, program: str) -> OSError:
    return OSError(error.errno, error.strerror, program)


def _explain(error: OSError, program: str, cwd: str) -> tuple[int, str]:
    """Return code and reason, as a shell has them."""
    name = os.fsdecode(error.filename or program)
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


def _close_all_but(kept: Iterable[int]) -> None:
    low = 0
    for file in sorted(kept):
        # An empty range means all there are to some versions of Python.
        if low < file:
            os.closerange(low, file)
        low = file + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
