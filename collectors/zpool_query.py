"""Runs `zpool`, one query at a time, whatever happens to it. Knows no pool.

A `zpool` can sit in the kernel and outlive KILL. Each query therefore runs in a thread that may
wait for ever, and in a slot: as long as its process is there, in this daemon's life or a later
one's, nobody starts another.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import sh

from collectors.process_slot import Outstanding, ProcessSlot, end_signed, signing
from sysadmd.apart import apart
from sysadmd.machine import COMMAND_PATH

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Absent", "Hung", "Identity", "Output", "Outstanding", "ZpoolQuery"]

# Of a program's file: device, inode, time of its last change in ns, bytes.
Identity = tuple[int, int, int, int]

# Bytes of output that are taken: 500 pools print some 50 KiB, their status some 500.
OUTPUT_LIMIT: Final = 8 * 1024 * 1024
# Bytes that are taken at a time, lines or none: by lines, `sh` would keep one that has no end.
CHUNK: Final = 64 * 1024
# Beside the query's own limit: for KILL to work and for the thread to tell; s.
GRACE: Final = 2.0
# How a program begins, if not with the name of its interpreter: elf(5); and so much of that
# is read. Source: execve(2).
_ELF: Final = b"\x7fELF"
_HEAD: Final = 256
# There as long as the kernel has ZFS. Source: zfs(4) of OpenZFS.
_DEVICE: Final = Path("/dev/zfs")
# A wrapper may ask for colours. Source: ECMA-48, SGR.
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
# So that messages can be recognised, and tools of ports are found.
ENVIRONMENT: Final = {
    "LC_ALL": "C",
    "PATH": COMMAND_PATH,
}


class Absent(Exception):
    """There is no such command on this machine."""


class Hung(Exception):
    """The query did not answer in time and was killed, if it can be."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a query gave."""

    status: int
    stdout: str
    stderr: str


class ZpoolQuery:
    """The one way to ask `zpool`."""

    def __init__(self, state_dir: Path) -> None:
        self._slot = ProcessSlot(state_dir / "zpool.lock")

    async def ask(self, command: str, arguments: Sequence[str], limit: float) -> Output:
        """Run `command arguments`. Raises: Absent, Outstanding, Hung, OSError."""
        lock = await self._slot.take()
        try:
            program = find(command)
        except Absent:
            os.close(lock)
            raise

        def query() -> Output:
            try:
                return _run(program, arguments, lock, limit)
            finally:
                # Its own copy of the lock goes with the end of the process, not before.
                os.close(lock)

        answer = apart(query, "zpool")
        await asyncio.wait({answer}, timeout=limit + GRACE)
        if not answer.done():
            raise Hung(f"{command} {arguments[0]} does not answer and can't be killed")
        return answer.result()


class _Printed(io.BytesIO):
    """What a command prints; one that prints too much is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.stop: Callable[[], None] = lambda: None
        self.overrun = False

    def write(self, data: ReadableBuffer, /) -> int:
        if self.tell() + len(memoryview(data)) > OUTPUT_LIMIT:
            self.overrun = True
            self.stop()
            return len(memoryview(data))
        return super().write(data)

    def text(self) -> str:
        return _COLOUR.sub("", self.getvalue().decode("utf-8", "replace"))


def _run(program: sh.Command, arguments: Sequence[str], lock: int, timeout: float) -> Output:
    """Run it to its end. Raises: Hung, OSError."""
    stdout, stderr = _Printed(), _Printed()
    running = start(
        program,
        arguments,
        lock,
        _ok_code=list(range(256)),
        _out=stdout,
        _err=stderr,
        _out_bufsize=CHUNK,
        _err_bufsize=CHUNK,
    )

    def stop() -> None:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)

    late = threading.Event()

    def expire() -> None:
        late.set()
        stop()

    stdout.stop = stderr.stop = stop
    clock = threading.Timer(timeout, expire)
    clock.daemon = True
    try:
        clock.start()
        running.wait()
    except RuntimeError as error:
        raise _abandoned(lock) from error
    except sh.SignalException as error:
        name = type(error).__name__.removeprefix("SignalException_")
        if late.is_set():
            raise Hung(f"{program} {arguments[0]} did not answer in {timeout:g} s") from None
        if not (stdout.overrun or stderr.overrun):
            raise OSError(f"{program} {arguments[0]} was ended by {name}") from error
    finally:
        clock.cancel()
    if stdout.overrun or stderr.overrun:
        limit = f"{OUTPUT_LIMIT // 1024**2} MiB"
        raise OSError(f"{program} {arguments[0]} printed over {limit}, which can't be read")
    return Output(running.exit_code, stdout.text(), stderr.text())


def kernel_has_zfs() -> bool:
    """Is there anything that could be asked about? False only where to ask would load it.

    That is so on FreeBSD, where any `zpool list` makes zfs.ko part of the kernel. Elsewhere
    `zpool` is not there without it, or the kernel has no part in it (zfs-fuse).
    """
    return not sys.platform.startswith("freebsd") or _DEVICE.exists()


def find(command: str) -> sh.Command:
    """The command, looked for in PATH, then where ports put theirs. Raises: Absent."""
    own = os.environ.get("PATH", "").split(":")
    ports = (path for path in COMMAND_PATH.split(":") if path not in own)
    try:
        return sh.Command(command, search_paths=[*own, *ports])
    except sh.CommandNotFound as error:
        raise Absent(f"{command}: command not found") from error


def identity(command: str) -> Identity | None:
    """Which file the command is just now; None: there is none that can be looked at."""
    try:
        found = Path(str(find(command))).stat()
    except (Absent, OSError):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def start(
    program: sh.Command, arguments: Sequence[str], lock: int, **options: Any
) -> sh.RunningCommand:
    """Start it in the background, in the slot that is locked; it can read nothing.

    options: of `sh`, beside ours; with `_out` and `_err`: what it prints needs an owner who
    bounds it. Raises: OSError.
    """
    _refuse_what_is_no_program(str(program))
    call = cast("Callable[..., sh.RunningCommand]", program)
    try:
        with Path(os.devnull).open("rb") as nothing:
            return call(
                *arguments,
                _env=ENVIRONMENT,
                _bg=True,
                _bg_exc=False,
                _in=nothing,
                _no_out=True,
                _no_err=True,
                _tty_out=False,
                # Whatever it starts is killed with it.
                _new_group=True,
                _pass_fds={lock},
                _preexec_fn=signing(lock),
                **options,
            )
    except sh.ForkException as error:
        raise OSError(f"{program} can't be run: it does not start") from error
    except RuntimeError as error:
        raise _abandoned(lock) from error


def _refuse_what_is_no_program(path: str) -> None:
    """Raises: OSError. Where exec(2) fails `sh` keeps descriptors and a zombie for ever."""
    try:
        with Path(path).open("rb") as file:
            head = file.readline(_HEAD)
    except PermissionError:
        # It may be run all the same.
        return
    if head.startswith(b"#!"):
        interpreter = os.fsdecode(head[2:].split()[0]) if head[2:].split() else ""
        if not os.access(interpreter, os.X_OK):
            raise OSError(f"{path} can't be run: there is no {interpreter}")
    elif not head.startswith(_ELF):
        raise OSError(f"{path} can't be run: it is no program")


def _abandoned(lock: int) -> OSError:
    """`sh` had no thread for a process that runs by now, and that nobody would listen to."""
    end_signed(lock)
    return OSError(errno.EAGAIN, "the system has no thread for it just now")
