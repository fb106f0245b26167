"""Unix sockets whose path may be longer than the system lets a socket's name be."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# A unix socket's path: 104 bytes on FreeBSD, 108 on Linux, the last one NUL.
_LONGEST_PATH: Final = 100


@contextmanager
def short(path: Path) -> Generator[Path]:
    """A path to the same socket that can be connected to, for as long as it takes to do so.

    Raises: OSError.
    """
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield path
        return
    # Not below TMPDIR: that may be as long.
    with tempfile.TemporaryDirectory(prefix="sysadmd-", dir="/tmp") as directory:
        link = Path(directory) / "s"
        link.symlink_to(path.parent.resolve())
        yield link / path.name
