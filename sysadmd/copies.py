"""A copy of the state file as it is at one moment, while others may write into it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path


def copy_database(
    db: sqlite3.Connection, path: Path, wipe: Callable[[sqlite3.Connection], object]
) -> None:
    """Put a copy of this database at `path`, one file, whole or not at all, ours to read alone.

    db: outside a transaction. wipe: takes out of the copy what is to be in none. Raises:
    sqlite3.Error, OSError.
    """
    new = path.with_name(path.name + ".new")
    # Of a copy that was cut off.
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with closing(sqlite3.connect(new, isolation_level=None)) as copy:
            # In one step: what is committed meanwhile would have it begin anew.
            db.backup(copy)
            # A file beside it would keep what is wiped; it is not used before it is whole.
            copy.execute("PRAGMA journal_mode = MEMORY")
            copy.execute("PRAGMA synchronous = OFF")
            copy.execute("PRAGMA secure_delete = ON")
            wipe(copy)
        to_disk(new)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    to_disk(path.parent)


def to_disk(path: Path) -> None:
    """Return once a file, or which files a directory has, would outlast a power cut."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
