"""Makes a backup, whether the daemon runs or not. Changes nothing of the state.

The database is copied as of one moment, then the logs of the jobs that are finished in that
copy: nobody writes to these any more. Everything is on disk before the manifest, by which it
becomes a backup.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from dispatcher import job_files, logs
from server.backup import contents, placing
from server.backup.contents import KEYS, LIST, MANIFEST, TOKEN, Manifest
from server.daemon import SCHEMAS
from server.dialects.values import rfc3339
from server.statedir import StateDir
from sysadmd import __version__, schema, store
from sysadmd.copies import to_disk
from sysadmd.errors import BackupFailed, CannotStart
from sysadmd.machine import host_name, reason, write_private
from sysadmd.mishaps import COMPLAINTS, translate

ROOMS: Final[schema.Schemas] = {**store.SCHEMAS, **SCHEMAS}


def make(state_dir: Path, target: Path, *, with_keys: bool) -> list[str]:
    """Back the state up into a directory, which is new or empty; what to say of it, in lines.

    Raises: BackupFailed, CannotStart, StoreUnusable, StoreFull.
    """
    os.umask(0o077)
    database = find(state_dir)
    opened = _identity(database)
    with _made(state_dir, target) as backup:
        _copy_database(database, backup)
        with contents.looked_at(backup.path / placing.DATABASE, alone=True) as db:
            missing = _copy_logs(state_dir, db, backup)
            if with_keys:
                _copy_keys(state_dir, backup)
            manifest = _manifest(db, backup, with_keys=with_keys)
        if placing.is_pending(state_dir) or _identity(database) != opened:
            raise BackupFailed(
                f"another state has been put into {state_dir} meanwhile, so this would be a"
                " mixture; back up again"
            )
        backup.finish(manifest)
    return _lines(target, manifest, missing)


def find(state_dir: Path) -> Path:
    """The state file, to be looked at. Raises: CannotStart."""
    database = state_dir / placing.DATABASE
    try:
        if placing.is_pending(state_dir):
            # A restore was cut off; unless it is under way, this finishes it.
            StateDir(state_dir)
        database.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CannotStart(
            f"there is no state in {state_dir}; name its directory: --state-dir"
        ) from error
    except OSError as error:
        raise CannotStart(
            f"the state directory {state_dir} can't be read: {error.strerror}; run as the"
            " daemon's account"
        ) from error
    return database


def check(db: sqlite3.Connection, path: Path, *, thoroughly: bool = False) -> None:
    """Is it a state, as schema.check has it, and not an empty file?

    Raises: CannotStart, StoreUnusable, StoreDamaged, sqlite3.Error.
    """
    schema.check(db, path, ROOMS, thoroughly=thoroughly)
    if not schema.versions(db):
        raise CannotStart(
            f"there is nothing in {path}; start the daemon once, or restore a backup"
        )


def _identity(database: Path) -> tuple[int, int] | None:
    try:
        found = database.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


class _NewBackup:
    """One that is being made. Raises: OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Made by nobody else: two that are told to make one here do not mix.
        self._list = (path / LIST).open("xb")
        os.fchmod(self._list.fileno(), 0o600)
        self._digest = hashlib.sha256()
        self.files = self.size = 0

    def add(self, name: str, data: Iterable[bytes]) -> None:
        """A file, and its line in the list."""
        target = self.path / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        contents.pour(self._counted(name, data), target)

    def note(self, name: str) -> None:
        """A file that was made by others."""
        with (self.path / name).open("rb") as file:
            for _ in self._counted(name, contents.portions(file.fileno())):
                pass

    def _counted(self, name: str, data: Iterable[bytes]) -> Generator[bytes]:
        found = hashlib.sha256()
        for portion in data:
            found.update(portion)
            self.size += len(portion)
            yield portion
        text = contents.line(name, found.hexdigest())
        self._digest.update(text)
        self._list.write(text)
        self.files += 1

    @property
    def list_digest(self) -> str:
        """The SHA-256 of the list."""
        return self._digest.hexdigest()

    def finish(self, manifest: Manifest) -> None:
        """Let it be a backup; all of it is on disk then."""
        self.close()
        contents.all_to_disk(self.path)
        # Which may be written to, but not read.
        with suppress(PermissionError):
            to_disk(self.path.parent)
        write_private(self.path / MANIFEST, contents.sealed(manifest).decode())
        to_disk(self.path)

    def close(self) -> None:
        self._list.close()


@contextmanager
def _made(state_dir: Path, target: Path) -> Generator[_NewBackup]:
    """A new backup in this directory; removed if it does not come to its end."""
    try:
        is_new = _make_room(state_dir, target)
        backup = _NewBackup(target)
    except OSError as error:
        raise BackupFailed(f"no backup can be made in {target}: {reason(error)}") from error
    try:
        yield backup
    except BaseException as error:
        with suppress(OSError):
            backup.close()
        _empty(target)
        if is_new:
            with suppress(OSError):
                target.rmdir()
        if isinstance(error, OSError):
            raise BackupFailed(
                f"no backup was made, and nothing of it is left: {reason(error)}"
            ) from error
        raise


def _make_room(state_dir: Path, target: Path) -> bool:
    """Make the directory, or see that it is empty; is it new? Raises: BackupFailed, OSError."""
    inside = state_dir.resolve()
    place = target.parent.resolve() / target.name
    if place.is_relative_to(inside):
        raise BackupFailed(
            f"{target} is in the state directory, with whose disk it would be lost; name a"
            " directory elsewhere"
        )
    try:
        target.mkdir(mode=0o700)
    except FileExistsError:
        found = target.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise BackupFailed(
                f"{target} is no directory, or a link to one; name a directory that is new or"
                " empty"
            ) from None
        if found.st_uid != os.geteuid():
            raise BackupFailed(
                f"{target} belongs to uid {found.st_uid}, who could change what is in it; name"
                " a directory that is new, or your own"
            ) from None
        if any(target.iterdir()):
            raise BackupFailed(
                f"{target} is not empty; name a directory that is new or empty"
            ) from None
        target.chmod(0o700)
        return False
    except FileNotFoundError:
        raise BackupFailed(
            f"there is no directory {target.parent}; make it, or mount its file system"
        ) from None
    return True


def _empty(target: Path) -> None:
    with suppress(OSError):
        for path in target.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def _copy_database(database: Path, backup: _NewBackup) -> None:
    """Raises: CannotStart, StoreUnusable, StoreFull, BackupFailed, OSError."""
    copy = backup.path / placing.DATABASE
    try:
        with contents.looked_at(database) as db:
            check(db, database)
            schema.copy(db, copy, ROOMS)
        with contents.looked_at(copy, alone=True) as db:
            # What is damaged could not be restored. The copy may take its time, unlike a look
            # at the state, which would hold the daemon's WAL.
            check(db, database, thoroughly=True)
    except COMPLAINTS as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise BackupFailed(
                f"no backup was made, and nothing of it is left: the disk of {backup.path}"
                " takes no more; free some space there"
            ) from error
        raise translate(error, database) from error
    backup.note(placing.DATABASE)


def _copy_logs(state_dir: Path, db: sqlite3.Connection, backup: _NewBackup) -> int:
    """Those of finished jobs; how many commands have written something that is not there."""
    missing = 0
    # Bounded by the commands, whatever a job has put into its directory.
    for uid, n, written in db.execute(
        "SELECT job, n, coalesce(log_size, 0) > 0 FROM commands JOIN jobs ON job = uid"
        " WHERE jobs.state = 2 AND commands.state = 2 ORDER BY job, n"
    ):
        first = logs.path(state_dir, uid, n)
        with logs.files(first) as files:
            is_whole = any(path == first for path, _ in files)
            for path, file in files:
                name = str(path.relative_to(state_dir))
                try:
                    backup.add(name, _of_log(file))
                except _Unreadable:
                    (backup.path / name).unlink()
                    is_whole = False
            missing += written and not is_whole
    return missing


class _Unreadable(Exception):
    """The disk does not give a log: all the others are to be saved nonetheless."""


def _of_log(file: int) -> Generator[bytes]:
    data = contents.portions(file)
    while True:
        try:
            portion = next(data, b"")
        except OSError as error:
            raise _Unreadable from error
        if not portion:
            return
        yield portion


def _copy_keys(state_dir: Path, backup: _NewBackup) -> None:
    directory = state_dir / KEYS
    # None was made, where the configuration names others.
    found = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    for name in (*(f"{KEYS}/{each}" for each in sorted(found)), TOKEN):
        # What a start that was killed has left of others is a directory.
        with suppress(FileNotFoundError):
            file = job_files.open_file(state_dir / name, depth=name.count("/") + 1)
            try:
                if contents.is_name(name):
                    backup.add(name, contents.portions(file))
            finally:
                os.close(file)


def _manifest(db: sqlite3.Connection, backup: _NewBackup, *, with_keys: bool) -> Manifest:
    # As any version of the tables has them.
    (epoch,) = db.execute("SELECT epoch FROM journal").fetchone()
    (events,) = db.execute("SELECT count(*) FROM events").fetchone()
    last = db.execute("SELECT place, time FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    counts = dict(db.execute("SELECT state = 2, count(*) FROM jobs GROUP BY state = 2"))
    return Manifest(
        version=__version__,
        host=host_name(),
        time=rfc3339(round(time.time() * 1000)),
        epoch=epoch,
        cursor=f"{epoch}:{last[0]}" if last else "",
        last_event=rfc3339(last[1]) if last else None,
        events=events,
        finished_jobs=counts.get(1, 0),
        active_jobs=counts.get(0, 0),
        with_keys=with_keys,
        files=backup.files,
        size=backup.size,
        list=backup.list_digest,
    )


def _lines(target: Path, manifest: Manifest, missing: int) -> list[str]:
    last = f", the last of {manifest.last_event}" if manifest.last_event else ""
    keys = "TLS key and admin token" if manifest.with_keys else "no TLS key, no admin token"
    lines = [
        f"saved in {target}: events: {manifest.events}{last}; finished jobs, with their logs:"
        f" {manifest.finished_jobs}; {keys}; {manifest.files} files, {manifest.size} bytes"
    ]
    if manifest.active_jobs:
        lines.append(
            f"jobs that run or wait now, and end as lost when this is restored:"
            f" {manifest.active_jobs}"
        )
    if missing:
        lines.append(
            "commands whose logs were not there, or not to be read, since retention or somebody"
            f" else has taken them: {missing}"
        )
    return lines
