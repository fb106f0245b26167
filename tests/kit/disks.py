"""File systems that are soon full."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Generator
from pathlib import Path

from tests.kit.needs import needs_linux, needs_root


@contextlib.contextmanager
def small_disk(where: Path, mebibytes: int, *options: str) -> Generator[Path]:
    """One of that size at `where`, which is made. options: more of them. Source: tmpfs(5)."""
    needs_linux("umount -l")
    needs_root("mount")
    where.mkdir()
    given = ",".join((f"size={mebibytes}m", *options))
    subprocess.run(["mount", "-t", "tmpfs", "-o", given, "tmpfs", where], check=True)
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
