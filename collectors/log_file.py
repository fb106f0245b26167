"""A log file, plain or compressed, as bytes that can be read at any place. Knows no position.

Source: newsyslog.conf(5) for what a rotation may leave (.gz, .bz2, .xz, .zst).
"""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import logging
import lzma
import os
import stat
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Final, Self

log = logging.getLogger(__name__)

# Read at a time, and the longest line.
CHUNK: Final = 64 * 1024
# Bytes before the offset that the fingerprint is of.
FINGERPRINT: Final = 1024
# What a compressed file raises that is damaged.
_DAMAGE: Final = (OSError, EOFError, zlib.error, lzma.LZMAError)


class LogFile:
    """An open log. A compressed one is unpacked, once, into a file without a name."""

    def __init__(self, descriptor: int, packed: os.stat_result | None = None) -> None:
        self._descriptor = descriptor
        self._packed = packed

    def close(self) -> None:
        os.close(self._descriptor)

    @property
    def info(self) -> os.stat_result:
        """Of the file that has a name."""
        return self._packed or os.fstat(self._descriptor)

    @property
    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        """At most so many bytes from there."""
        return os.pread(self._descriptor, size, offset)

    def fingerprint(self, offset: int) -> str:
        """Of the bytes before `offset`."""
        start = max(0, offset - FINGERPRINT)
        return fingerprint_of(self.read(start, offset - start), offset)

    def begins(self, head: bytes) -> bool:
        """Does it begin so, as far as it goes?"""
        return head.startswith(self.read(0, len(head)))

    def next_data(self, offset: int) -> int | None:
        """Where data goes on behind a hole; None: it is a hole up to the end."""
        try:
            return os.lseek(self._descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            # ENXIO: nothing but the hole. Anything else: this file system can't tell.
            return None if error.errno == errno.ENXIO else offset


class _Zstd:
    """What `zstd -dc` makes of a file; Python has no module for it before 3.14."""

    def __init__(self, path: Path) -> None:
        with ExitStack() as stack:
            self._packed = stack.enter_context(path.open("rb"))
            self._plain = stack.enter_context(tempfile.TemporaryFile())
            self._complaint = _zstd(self._packed, self._plain)
            self._plain.seek(0)
            self.read, self.seek = self._plain.read, self._plain.seek
            self._files = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def fileno(self) -> int:
        return self._packed.fileno()

    def read1(self, size: int) -> bytes:
        data = self._plain.read(size)
        if not data and self._complaint:
            raise OSError(self._complaint)
        return data


def _zstd(packed: IO[bytes], plain: IO[bytes]) -> str:
    """Unpack, as far as it goes; the complaint, or nothing. Raises: OSError: no room."""
    command = ["zstd", "-dcq"]
    try:
        done = subprocess.run(
            command, stdin=packed, stdout=plain, stderr=subprocess.PIPE, check=False
        )
    except FileNotFoundError:
        return "there is no command zstd on this machine"
    complaint = done.stderr.decode("utf-8", "replace").strip()
    if os.strerror(errno.ENOSPC) in complaint:
        raise OSError(errno.ENOSPC, complaint)
    return complaint


_UNPACKERS: Final[
    dict[str, Callable[[Path], bz2.BZ2File | gzip.GzipFile | lzma.LZMAFile | _Zstd]]
] = {
    ".bz2": bz2.BZ2File,
    ".gz": gzip.GzipFile,
    ".xz": lzma.LZMAFile,
    ".zst": _Zstd,
}


def is_packed(path: Path) -> bool:
    """Is it compressed, by its name?"""
    return path.suffix in _UNPACKERS


def open_plain(path: Path) -> LogFile | None:
    """The file by its name; None: there is none. A directory or device is not read."""
    try:
        # What is no file must neither hold us up nor become our terminal.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(f"{path} is not a regular file")
    return LogFile(file)


def unpack(path: Path) -> LogFile | None:
    """What a compressed file holds, up to where it is damaged. Raises: OSError: no room."""
    try:
        packed = _UNPACKERS[path.suffix](path)
    except FileNotFoundError:
        # Rotated on in this moment.
        return None
    with packed, tempfile.TemporaryFile() as plain:
        while True:
            try:
                # Not more than is sure: what stands before the damage counts.
                data = packed.read1(CHUNK)
            except _DAMAGE as error:
                log.warning(
                    "%s can't be unpacked to its end (%s); its rest is lost", path, error
                )
                break
            if not data:
                break
            plain.write(data)
        plain.flush()
        return LogFile(os.dup(plain.fileno()), os.fstat(packed.fileno()))


def packs(path: Path, head: bytes, offset: int, fingerprint: str) -> bool:
    """Does the compressed file begin so, and have this fingerprint before `offset`?"""
    with suppress(*_DAMAGE), _UNPACKERS[path.suffix](path) as packed:
        if packed.read(len(head)) != head:
            return False
        start = max(0, offset - FINGERPRINT)
        packed.seek(start)
        return fingerprint_of(packed.read(offset - start), offset) == fingerprint
    return False


def fingerprint_of(data: bytes, offset: int) -> str:
    """Of the bytes before `offset`; fewer than there should be give another."""
    if len(data) != min(offset, FINGERPRINT):
        return "short"
    return hashlib.sha256(data).hexdigest()[:32] if data else ""
