"""File systems that are soon full."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Generator
from pathlib import Path

from tests.kit.needs import needs_root


@contextlib.contextmanager
def small_disk(where: Path, mebibytes: int) -> Generator[Path]:
    """One of that size at `where`, which is made."""
    needs_root("mount")
    where.mkdir()
    size = f"size={mebibytes}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", where], check=True)
    try:
        yield where
    finally:
        # Lazily: a job that a failure has left is not waited for.
        subprocess.run(["umount", "-l", where], check=True)


def fill(file: Path) -> None:
    """Write into the file until the disk takes no more."""
    with file.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while True:
            out.write(b"x" * 4096)


@contextlib.contextmanager
def hung_disk(where: Path) -> Generator[Path]:
    """One that does not answer, at `where`, which is made; afterwards it answers by errors."""
    needs_root("mount")
    where.mkdir()
    # Nobody ever reads what the kernel asks here.
    server = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0"
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.mount(b"hung", os.fsencode(where), b"fuse", 0, options.encode()):
            raise OSError(ctypes.get_errno(), "mount")
        try:
            yield where
        finally:
            subprocess.run(["umount", "-l", where], check=True)
    finally:
        os.close(server)
