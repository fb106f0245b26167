"""What SQLite complains of, in words that say what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from sysadmd.errors import StoreDamaged, StoreFull, StoreLocked

# All that SQLite's module raises for a file's sake.
COMPLAINTS: Final = (sqlite3.Error, UnicodeDecodeError)
# What says that a statement of ours is wrong, not that the file is.
_OURS: Final = (
    *(sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.DataError),
    sqlite3.NotSupportedError,
)
_LOCKED: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
# The second: no room for the index of the WAL.
_NO_ROOM: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
# A file that ends too soon; what a file system with checksums has found wrong.
_TORN: Final = (sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS)
_REFUSED: Final = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)


def translate(error: BaseException, path: Path) -> BaseException:
    """What went wrong with the state file at `path`; what is none of its, as it is."""
    if isinstance(error, UnicodeDecodeError | msgspec.DecodeError):
        # What SQLite says of a damaged schema has a piece of it inside. What JSON in a column
        # holds was checked when it was written.
        told: StoreFull = damaged(path, error)
    elif isinstance(error, sqlite3.DatabaseError) and not isinstance(error, _OURS):
        told = _told(error, path)
    else:
        return bearable(error)
    told.__cause__ = error
    return told


def bearable(error: BaseException) -> BaseException:
    """As a future takes it, for it takes no StopIteration: a `next` that found nothing."""
    if not isinstance(error, StopIteration):
        return error
    told = RuntimeError(repr(error))
    told.__cause__ = error
    return told


def _told(error: sqlite3.DatabaseError, path: Path) -> StoreFull:
    # What Python itself can't read, text that is no UTF-8, has no code.
    extended = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    code = extended & 0xFF
    if code in _LOCKED:
        return StoreLocked(
            f"another process holds {path.name} locked; end it (fuser, lsof), then try again"
        )
    if extended in _NO_ROOM:
        return StoreFull(
            f"the state directory's disk takes no more ({error}); free some space, then"
            " try again"
        )
    if code in _REFUSED:
        return StoreFull(
            f"{path} can only be read ({error}); mount its file system writable again, or give"
            " file and directory back to the daemon's account"
        )
    if code == sqlite3.SQLITE_CANTOPEN:
        return StoreFull(
            f"{path} can't be opened ({error}); see that its directory is there, and that the"
            " daemon's account may write in it"
        )
    if code == sqlite3.SQLITE_IOERR and extended not in _TORN:
        return StoreFull(
            f"the state directory's disk fails ({error}); the system's log says what it, or"
            " its cable, reports. A quota that is used up can look like this, too"
        )
    return damaged(path, error)


def damaged(path: Path, what: object) -> StoreDamaged:
    """The state file is not as it was written."""
    line = " ".join(str(what).split())
    return StoreDamaged(
        f"{path} is damaged ({line}). Stop the daemon, see in the system's log whether the disk"
        " fails, then restore the file from a backup, or move it away to start with an empty"
        " history"
    )


def find_damage(path: Path) -> StoreFull | None:
    """What is wrong with the state file, by a connection that has nothing of it at hand yet."""
    try:
        uri = f"{path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True)) as fresh:
            verdict = fresh.execute("PRAGMA quick_check(1)").fetchone()[0]
    except COMPLAINTS as error:
        told = translate(error, path)
        if isinstance(told, StoreFull):
            return told
        raise
    return None if verdict == "ok" else damaged(path, verdict)


Translate = Callable[[BaseException], BaseException]


class WordedCursor(sqlite3.Cursor):
    """Whose errors are told in words."""

    def __init__(self, connection: sqlite3.Connection, translate: Translate) -> None:
        super().__init__(connection)
        self._translate = translate

    def execute(self, *arguments: Any) -> Self:
        try:
            return super().execute(*arguments)
        except COMPLAINTS as error:
            raise self._translate(error) from error

    def fetchone(self) -> Any:
        try:
            return super().fetchone()
        except COMPLAINTS as error:
            raise self._translate(error) from error

    def fetchall(self) -> list[Any]:
        try:
            return super().fetchall()
        except COMPLAINTS as error:
            raise self._translate(error) from error

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except COMPLAINTS as error:
            raise self._translate(error) from error


class WordedConnection(sqlite3.Connection):
    """A connection for whoever asks: no error of SQLite's reaches him raw."""

    def __init__(self, translate: Translate, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._cursor = partial(WordedCursor, translate=translate)

    def execute(self, *arguments: Any) -> WordedCursor:
        return self.cursor(self._cursor).execute(*arguments)
