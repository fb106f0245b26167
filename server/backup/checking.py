"""Is the history whole, in the state or in a backup? Only looks; the daemon may run."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from server.backup import contents, placing
from server.backup.contents import Backup
from server.backup.making import ROOMS, check, find
from server.dialects.values import rfc3339
from sysadmd import schema
from sysadmd.errors import StoreDamaged
from sysadmd.mishaps import COMPLAINTS, translate
from sysadmd.verify import HistoryBroken, verify


def check_state(state_dir: Path) -> str:
    """That it is whole, in a line. Raises: StoreDamaged, StoreUnusable, CannotStart."""
    return _check(find(state_dir), alone=False)


def check_backup(source: Path) -> str:
    """That each file of it is what was saved, and the history in it whole; in a line.

    Raises: BackupUnusable, StoreDamaged, StoreUnusable.
    """
    backup = Backup(source)
    backup.check()
    whole = _check(source / placing.DATABASE, alone=True)
    return f"{whole}; all {backup.manifest.files} files are as they were saved"


def _check(path: Path, *, alone: bool) -> str:
    try:
        with contents.looked_at(path, alone=alone) as db:
            # As of one moment.
            db.execute("BEGIN")
            check(db, path, thoroughly=True)
            if schema.versions(db).get("journal", 0) < len(ROOMS["journal"]):
                return (
                    f"{path} was written by an older sysadmd, whose events have no marks to"
                    " check them by; a start of this one brings it up to date"
                )
            return _whole(db)
    except HistoryBroken as error:
        raise StoreDamaged(
            f"{path}: {error}. What comes before it is as it was told. See in the system's log"
            " whether the disk fails, and who could write there; a backup of before then can be"
            " restored (sysadmd verify BACKUP checks it)"
        ) from error
    except COMPLAINTS as error:
        raise translate(error, path) from error


def _whole(db: sqlite3.Connection) -> str:
    found = verify(db)
    told = f"whole: {found.events} events"
    times = db.execute("SELECT min(time), max(time) FROM events").fetchone()
    if found.events:
        told += f", from {rfc3339(times[0])} to {rfc3339(times[1])}"
    if found.unmarked:
        told += f"; {found.unmarked} of them are from before there were marks, and only counted"
    return told
