"""A compressed log, unpacked as it is read: within bounds, and into no file.

Source: newsyslog.conf(5) for what a rotation may leave (.gz, .bz2, .xz, .zst).
"""

from __future__ import annotations

import bz2
import lzma
import os
import selectors
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path, PurePath
from typing import Final, Protocol

from collectors.log_file import CHUNK, FINGERPRINT, LogFile
from sysadmd.text import printable

# Bytes of one file, unpacked. Life Preserver rotates its log at 3 MB; where that has failed for
# years it is still shorter than this.
OUTPUT: Final = 2**30
# From when a file is opened until it has been read; s. A GiB of lines takes a minute or two.
TIME: Final = 300.0
# What unpacking may take; bytes. `xz -9` needs 65 MiB; zstd is content with 128 by itself, and
# there it is not the daemon's memory.
MEMORY: Final = 80 * 2**20
ZSTD_MEMORY: Final = 128 * 2**20
# Zeros passed over at a time; bytes.
STRIDE: Final = 4 * 2**20
# How long zstd may give nothing before its bounds are looked at; s.
ZSTD_PAUSE: Final = 1.0
# Bytes of its complaints that are kept, the last ones: it may complain of each of many frames.
COMPLAINT: Final = 4096
# What a compressed file raises that is damaged.
_DAMAGE: Final = (OSError, EOFError, zlib.error, lzma.LZMAError)
# A shell's exit status for a command that is not there.
_NO_COMMAND: Final = 127

Pieces = Generator[bytes, None, None]


class _Stream(Protocol):
    """What bz2 and lzma have for one stream."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gunzip:
    """zlib's, with the words of the other two."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(zlib.MAX_WBITS + 16)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)


def _pieces(new: Callable[[], _Stream], descriptor: int) -> Pieces:
    """What streams, one behind the other, hold.

    Each piece takes and gives CHUNK at most, so that the bounds are looked at even where much
    gives nothing. Raises: what is in _DAMAGE.
    """
    stream, between, data, place = new(), True, b"", 0
    begun = False
    while True:
        ended = False
        if not data and (between or stream.needs_input):
            data = os.pread(descriptor, CHUNK, place)
            place += len(data)
            ended = not data
        if between:
            # Zeros may fill up the last block.
            data = data.lstrip(b"\0")
            between = not data
            if ended:
                if not begun:
                    raise EOFError("there is nothing packed in it")
                return
            if between:
                yield b""
                continue
        begun = True
        piece, data = stream.decompress(data, CHUNK), b""
        if stream.eof:
            data, stream, between = stream.unused_data, new(), True
        elif ended and not piece:
            raise EOFError("it ends too soon")
        yield piece


def _zstd(descriptor: int) -> Pieces:
    """By `zstd`; Python has no module for it before 3.14. Raises: OSError."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    # The shell for its ulimit: of what gives nothing no piece comes at which to stop it.
    script = f"ulimit -t {TIME:.0f}; exec zstd -dcq --memory={ZSTD_MEMORY}"
    command = ["/bin/sh", "-c", script]
    pipe = subprocess.PIPE
    complaint = b""
    with (
        subprocess.Popen(command, stdin=descriptor, stdout=pipe, stderr=pipe) as process,
        selectors.DefaultSelector() as ready,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        ready.register(process.stdout, selectors.EVENT_READ)
        ready.register(process.stderr, selectors.EVENT_READ)
        try:
            while ready.get_map():
                # Nothing may come for long; who reads looks at its bounds meanwhile.
                found = ready.select(ZSTD_PAUSE)
                if not found:
                    yield b""
                for key, _ in found:
                    data = os.read(key.fd, CHUNK)
                    if not data:
                        ready.unregister(key.fileobj)
                    elif key.fileobj is process.stdout:
                        yield data
                    else:
                        complaint = (complaint + data)[-COMPLAINT:]
                        yield b""
            process.wait()
        finally:
            process.kill()
    if process.returncode == _NO_COMMAND:
        raise OSError("there is no command zstd on this machine")
    if process.returncode:
        text = complaint.decode("utf-8", "replace").strip()
        raise OSError(text or f"zstd ended with {process.returncode}")


_KINDS: Final[dict[str, Callable[[int], Pieces]]] = {
    ".bz2": partial(_pieces, bz2.BZ2Decompressor),
    ".gz": partial(_pieces, _Gunzip),
    ".xz": partial(_pieces, partial(lzma.LZMADecompressor, memlimit=MEMORY)),
    ".zst": _zstd,
}


def is_packed(path: PurePath) -> bool:
    """Is it compressed, by its name?"""
    return path.suffix in _KINDS


class PackedLog(LogFile):
    """Read forward; a little way back costs nothing, further back it is unpacked anew."""

    def __init__(
        self, descriptor: int, name: str, *, output: int = OUTPUT, seconds: float = TIME
    ) -> None:
        """output, seconds: what it may give, and take."""
        super().__init__(descriptor)
        self._name = name
        self._output = output
        self._until = time.monotonic() + seconds
        # Its first bytes, and those from `_start` on that were unpacked last.
        self._head = b""
        self._start = 0
        self._window = bytearray()
        self._pieces: Pieces | None = self._begin()

    def close(self) -> None:
        """As LogFile has it."""
        self._end()
        super().close()

    @property
    def size(self) -> int:
        """It is not known: not less than any place in it."""
        return sys.maxsize

    def read(self, offset: int, size: int) -> bytes:
        """As LogFile has it. Where it is damaged, or longer than it may be, it ends."""
        end = offset + size
        if end <= len(self._head):
            return self._head[offset:end]
        if offset < self._start:
            self._end()
            self._start, self._window = 0, bytearray()
            self._pieces = self._begin()
        while self._start + len(self._window) < end and self._unpack():
            passed = min(offset - FINGERPRINT - self._start, len(self._window))
            if passed > 0:
                del self._window[:passed]
                self._start += passed
        at = offset - self._start
        return bytes(self._window[at : at + size])

    def next_data(self, offset: int) -> int:
        """As LogFile has it, but no further than it has looked."""
        for _ in range(STRIDE // CHUNK):
            data = self.read(offset, CHUNK)
            zeros = len(data) - len(data.lstrip(b"\0"))
            offset += zeros
            if zeros < CHUNK:
                break
        return offset

    def _unpack(self) -> bool:
        """One more piece; False: there is none."""
        if self._pieces is None:
            return False
        try:
            piece = next(self._pieces, None)
        except _DAMAGE as error:
            self._give_up(f"can't be unpacked to its end ({error})")
            return False
        if piece is None:
            self._end()
            return False
        place, known = self._start + len(self._window), len(self._head)
        if known < FINGERPRINT:
            self._head += piece[known - place : FINGERPRINT - place]
        self._window += piece
        if self._start + len(self._window) > self._output:
            self._give_up(f"holds more than {self._output} bytes")
        elif time.monotonic() > self._until:
            self._give_up("takes longer to read than a log may")
        return True

    def _give_up(self, why: str) -> None:
        self.damage = printable(f"{self._name} {why}; its rest is lost")
        self._end()

    def _begin(self) -> Pieces:
        return _KINDS[Path(self._name).suffix](self._descriptor)

    def _end(self) -> None:
        if self._pieces is not None:
            self._pieces.close()
        self._pieces = None
