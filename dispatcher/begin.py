"""The process that becomes a command: what a fork of the keeper does until the exec.

It alone touches what a job names: working directory, program, interpreter. If they hang, it
hangs, and nobody else. The keeper has made the command's log before the fork; from then on:

1. it writes `began` into the book: from here on the command has begun and has a process;
2. lets go of what says that something may still begin, and of all else that is the keeper's;
3. becomes the command, or says in its log why it can't and ends as a shell would.

Written for few steps, not for looks: whatever a forked process touches first costs a page.
Standard library only, all imported before the fork.
"""
# ruff: noqa: PTH102, PTH103, PTH112 - a Path costs more than what is done with it here

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from dispatcher import book, dye
from dispatcher.identity import boot_clock

# As a shell has it: not found, and found but not to be run.
NOT_FOUND: Final = 127
CANNOT_RUN: Final = 126
# Where the process keeps the pipe that it says this by: all above is the keeper's.
_TELL: Final = 3
_ALL: Final = os.sysconf("SC_OPEN_MAX")

Limits = Mapping[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Program:
    """What is to be started. log: a descriptor, for both outputs."""

    uid: int
    n: int
    argv: list[str]
    env: Mapping[str, str]
    cwd: str
    log: int


def start(
    program: Program, book_file: int, place: int, limits: Limits, private: Iterable[int]
) -> tuple[int, int]:
    """Fork what is to become this command; its pid, and a pipe.

    By that it says what it has written into the book, and that it has become the command: by
    its silence.

    book_file: descriptor to append to. place: of the dye. limits: those that commands get.
    private: descriptors whose other ends show if the caller lives. No signal may be ignored by
    the caller: a command would inherit that; those that are blocked it gets when it begins.
    Raises: OSError if there can be no further process.
    """
    heard, tell = os.pipe()
    began = f'{{"began":[{program.uid},{program.n}],"since":{boot_clock()!r},"pid":'.encode()
    # Inherited: the process itself would pay far more for it.
    dye.dye(program.uid, place)
    try:
        pid = os.fork()
    except OSError:
        os.close(heard)
        raise
    else:
        if not pid:
            _become(program, book_file, tell, began, limits, private)
    finally:
        dye.wash()
        os.close(tell)
    os.set_blocking(heard, False)
    return pid, heard


def _become(
    program: Program,
    book_file: int,
    tell: int,
    began: bytes,
    limits: Limits,
    private: Iterable[int],
) -> NoReturn:
    status = CANNOT_RUN
    try:
        for file in private:
            os.close(file)
        signal.set_wakeup_fd(-1)
        os.setsid()
        line = b'%b%d,"at":%r}\n' % (began, os.getpid(), boot_clock())
        os.dup2(program.log, 1)
        os.dup2(program.log, 2)
        book.write(book_file, line)
        os.dup2(tell, _TELL, inheritable=False)
        # Who tells that something may still begin is among them.
        os.closerange(_TELL + 1, _ALL)
        with suppress(OSError):
            # The keeper may be dead by now; its guard reads the book.
            os.write(_TELL, line)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        status = _execute(program.argv, program.env, program.cwd, limits)
    finally:
        # Nothing of the keeper's own goes on here.
        os._exit(status)


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
            log = os.open(f"jobs/{uid}/{n}.log", flags, 0o600)
        except FileExistsError:
            return None
        except FileNotFoundError:
            os.makedirs(f"jobs/{uid}", 0o700, exist_ok=True)
        else:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return log


def say(log: int, reason: str) -> None:
    """Write into a command's log why it can't be started."""
    with suppress(OSError):
        os.write(log, f"sysadmd: cannot start {reason}\n".encode(errors="replace"))


def _execute(
    argv: list[str],
    env: Mapping[str, str],
    cwd: str,
    limits: Limits,
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
    say(1, reason)
    return code


def _replace(argv: list[str], env: Mapping[str, str]) -> NoReturn:
    """Become the program, sought in the PATH that the command itself has. Raises: OSError."""
    program = argv[0]
    if "/" in program:
        os.execve(program, argv, env)  # noqa: S606 - never a shell
    candidates = [
        f"{directory or '.'}/{program}" for directory in env.get("PATH", os.defpath).split(":")
    ]
    for candidate in candidates if program else ():
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            os.execve(candidate, argv, env)  # noqa: S606 - never a shell
    for candidate in candidates:
        # One that is there shows why it was refused.
        if program and os.path.lexists(candidate) and not os.path.isdir(candidate):
            os.execve(candidate, argv, env)  # noqa: S606 - never a shell
    raise FileNotFoundError(errno.ENOENT, "command not found", program)


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
