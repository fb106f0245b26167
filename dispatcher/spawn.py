"""Start one command under its starting conditions. Only the keeper calls this.

Stdin empty, stdout and stderr the command's own log, no other descriptor, default signals, its
own process group, its own session where the system's spawn can give one. Standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

# As a shell has it: not found, and found but not to be run.
NOT_FOUND: Final = 127
CANNOT_RUN: Final = 126

_DEFAULTS: Final = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


class CommandNotStarted(Exception):
    """The command has no process. `code` is its return code; the reason stands in its log."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def spawn(
    argv: list[str],
    env: Mapping[str, str],
    cwd: str,
    log: Path,
    *,
    home: int,
    own_session: bool,
) -> int:
    """Start it; returns its pid. `home`: descriptor of the directory to come back to.

    Raises: CommandNotStarted.
    """
    try:
        file = _open_log(log)
    except OSError as error:
        raise CommandNotStarted(
            CANNOT_RUN, f"its log can't be written: {error.strerror}"
        ) from error
    try:
        try:
            os.chdir(cwd)
            return _start(_find(argv[0], env), argv, env, file, own_session)
        finally:
            os.fchdir(home)
    except OSError as error:
        missing = error.errno == errno.ENOENT and error.filename != cwd
        failure = CommandNotStarted(
            NOT_FOUND if missing else CANNOT_RUN,
            f"{error.filename or argv[0]}: {error.strerror}",
        )
        _explain(file, failure)
        raise failure from error
    except ValueError as error:
        # Nothing that was accepted should get here; the command is answered for all the same.
        failure = CommandNotStarted(CANNOT_RUN, f"{argv[0]}: {error}")
        _explain(file, failure)
        raise failure from error
    finally:
        os.close(file)


def _open_log(log: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    try:
        file = os.open(log, flags, 0o600)
    except FileNotFoundError:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(log, flags, 0o600)
    # Every copy of this descriptor holds the lock: free means that nothing writes any more.
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def _start(
    program: str, argv: list[str], env: Mapping[str, str], log: int, own_session: bool
) -> int:
    actions = ((os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2))
    if own_session:
        return os.posix_spawn(
            program,
            argv,
            env,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            # Python ignores SIGPIPE and SIGXFSZ, the keeper some more.
            setsigdef=_DEFAULTS,
        )
    return os.posix_spawn(
        program,
        argv,
        env,
        file_actions=actions,
        setpgroup=0,
        setsigmask=(),
        setsigdef=_DEFAULTS,
    )


def can_make_sessions() -> bool:
    """Can the system's spawn make the command the leader of its own session?"""
    try:
        pid = os.posix_spawn("/nonexistent", ["-"], {}, setsid=True)
    except NotImplementedError:
        return False
    except OSError:
        return True
    os.waitpid(pid, 0)
    return True


def _find(program: str, env: Mapping[str, str]) -> str:
    """The path of a program, sought in the PATH that the command itself will have."""
    if "/" in program:
        return program
    refused = None
    for directory in env.get("PATH", os.defpath).split(":"):
        candidate = f"{directory or '.'}/{program}"
        if program and Path(candidate).is_file():
            if os.access(candidate, os.X_OK):
                return candidate
            refused = candidate
    if refused:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), refused)
    raise FileNotFoundError(errno.ENOENT, "command not found", program)


def _explain(log: int, failure: CommandNotStarted) -> None:
    try:
        # An earlier attempt, cut short by the keeper's death, may have explained already.
        os.ftruncate(log, 0)
        os.write(log, f"sysadmd: cannot start {failure}\n".encode())
    except OSError:
        pass
