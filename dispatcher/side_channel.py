"""Where a command tells what it does, beside its output: a socket, and a file of its lines.

A starter listens for as long as it moves the command's output, so it outlives the daemon; a
tool connects once and never again. It is always heard out: what the file does not take is
dropped, and counted, lest the tool waits for us.

    jobs/UID/N.sock      a Unix stream socket
    jobs/UID/N.events    lines as they came, each whole, at most LIMIT bytes

Standard library only, all imported before the fork.
"""
# ruff: noqa: PTH108 - as in relay

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

from dispatcher import job_files
from dispatcher.trouble import complain

# Of a command's file, bytes: a day of a package tool that tells each 8 KiB that it fetches.
LIMIT: Final = 16 * 1024 * 1024
# Read at once.
_PORTION: Final = 64 * 1024
# Of one line: a longer one is cut in pieces.
_LONGEST_LINE: Final = 64 * 1024
# Read at the command's end, at most: what sockets can hold is much less, and who is left may
# write for ever.
_LAST: Final = 16 * 1024 * 1024
# Who is connected at once; others are turned away, for a tool has one connection.
CONNECTIONS: Final = 16
# A socket's path has 104 bytes on FreeBSD, 108 on Linux, the last one NUL.
_LONGEST_PATH: Final = 100


def events_path(uid: int, n: int) -> str:
    """Below the state directory: the lines that a command has told."""
    return f"jobs/{uid}/{n}.events"


def _socket_path(uid: int, n: int) -> str:
    return f"jobs/{uid}/{n}.sock"


class SideChannel:
    """One command's. path: what the command is to connect to; sources: to be polled for."""

    def __init__(self, uid: int, n: int) -> None:
        """The working directory is the state directory. Raises: OSError."""
        self._name = f"job {uid}, command {n}"
        self._bound = _socket_path(uid, n)
        self._link: str | None = None
        self._partial: dict[socket.socket, bytes] = {}
        self._size = self._dropped = 0
        self._file = -1
        # Of an attempt that was none.
        job_files.unlink(self._bound)
        self._listener = socket.socket(socket.AF_UNIX)
        try:
            # By a short name, however long that of the state directory is.
            self._listener.bind(self._bound)
            self._listener.listen()
            self._listener.setblocking(False)
            self.path = self._reachable()
            self._file = job_files.open_file(
                events_path(uid, n), os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode=0o600
            )
        except OSError:
            self.close()
            raise

    @property
    def sources(self) -> list[int]:
        """Descriptors on which there may be something."""
        return [self._listener.fileno(), *(one.fileno() for one in self._partial)]

    def take(self, file: int) -> None:
        """Hear whoever this is; it may be nobody any more."""
        if file == self._listener.fileno():
            self._accept()
            return
        for one in list(self._partial):
            if one.fileno() == file:
                self._hear(one)

    def drain(self) -> None:
        """Hear all that was said by now."""
        self._accept()
        left = _LAST
        for one in list(self._partial):
            while left > 0 and (heard := self._hear(one)):
                left -= heard

    def close(self) -> None:
        """Nobody is heard any more."""
        for one in list(self._partial):
            self._leave(one)
        self._listener.close()
        with contextlib.suppress(OSError):
            job_files.unlink(self._bound)
        if self._link is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._link)
        if self._file >= 0:
            os.close(self._file)
        if self._dropped:
            complain(f"{self._name}: {self._dropped} bytes of its events were not kept")

    def _reachable(self) -> str:
        """The socket's path from anywhere, short enough to be one."""
        path = os.path.abspath(self._bound)  # noqa: PTH100
        if len(os.fsencode(path)) <= _LONGEST_PATH:
            return path
        # Not below TMPDIR: that may be as long.
        self._link = f"/tmp/sysadmd-{os.urandom(8).hex()}"  # noqa: S108 - made exclusively
        directory, _, name = path.rpartition("/")
        os.symlink(directory, self._link)  # noqa: PTH211
        return f"{self._link}/{name}"

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            if len(self._partial) >= CONNECTIONS:
                one.close()
                continue
            one.setblocking(False)
            self._partial[one] = b""

    def _hear(self, one: socket.socket) -> int:
        """Bytes that were there; 0: none just now, or no more."""
        try:
            data = one.recv(_PORTION)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if not data:
            self._leave(one)
            return 0
        whole, newline, rest = (self._partial[one] + data).rpartition(b"\n")
        if len(rest) > _LONGEST_LINE:
            whole, newline, rest = whole + newline + rest, b"\n", b""
        self._partial[one] = rest
        if newline:
            self._keep(whole + newline)
        return len(data)

    def _leave(self, one: socket.socket) -> None:
        rest = self._partial.pop(one)
        one.close()
        if rest:
            self._keep(rest + b"\n")

    def _keep(self, lines: bytes) -> None:
        """Append whole lines, or drop all from there on: what is kept has no hole."""
        if self._dropped or self._size + len(lines) > LIMIT:
            self._dropped += len(lines)
            return
        try:
            written = os.write(self._file, lines)
        except OSError:
            written = 0
        self._size += written
        self._dropped += len(lines) - written
