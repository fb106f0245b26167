"""The tables of the state file: are they ours, and their way from an older version to today's.

Each room hands in its steps, oldest first; how many of them a file has had is the version of
that room's tables. JSON in columns is part of that: a step that changes its shape rewrites what
is there. Of events alone nothing is rewritten, their marks forbid it: each says its `format`.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sysadmd.copies import copy_database
from sysadmd.errors import StoreFull, StoreUnusable
from sysadmd.machine import reason
from sysadmd.mishaps import damaged


@dataclass(frozen=True, slots=True)
class Hiding:
    """A script after which the room's tables hold what is nobody's business, and in no copy.

    wipe: the statement that takes all of that out of a copy of this version, and of later ones
    up to the next such step.
    """

    script: str
    wipe: str


# A step: a script, or a function where SQL alone does not do. It may rebuild tables: foreign
# keys are not enforced meanwhile, but looked at before the commit.
Step = str | Hiding | Callable[[sqlite3.Connection], object]
# The steps of each room.
Schemas = Mapping[str, Sequence[Step]]

# "SyAd": tells our file from any other SQLite database (file(1), PRAGMA application_id).
APPLICATION_ID: Final = 0x53794164
# A file up to this size is checked whole at start; a larger one would hold the start up, its
# damage shows when the page is read.
CHECKED_AT_START: Final = 32 * 1024 * 1024
# Appended to the file's name: as it was before its tables were changed last.
BEFORE: Final = ".before"

log = logging.getLogger(__name__)


def check(
    db: sqlite3.Connection, path: Path, rooms: Schemas, *, thoroughly: bool = False
) -> None:
    """Is it empty, or one of ours, whole, and not newer than this program? Only looks.

    thoroughly: all of it is read, however large it is. Raises: StoreUnusable, StoreDamaged,
    sqlite3.Error.
    """
    mark = db.execute("PRAGMA application_id").fetchone()[0]
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_schema")}
    if not tables:
        return
    if mark != APPLICATION_ID:
        raise StoreUnusable(f"{path} is not a state file of sysadmd; move it away")
    if thoroughly or path.stat().st_size <= CHECKED_AT_START:
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise damaged(path, verdict)
    for room, version in versions(db).items():
        if version > len(rooms.get(room, ())):
            raise StoreUnusable(
                f"{path} was written by a newer sysadmd ({room} tables of version {version});"
                " install that version again, or move it away"
            )


def versions(db: sqlite3.Connection) -> dict[str, int]:
    """The version of each room's tables."""
    if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'schema'").fetchone() is None:
        return {}
    return dict(db.execute("SELECT room, version FROM schema"))


def copy(db: sqlite3.Connection, path: Path, rooms: Schemas) -> None:
    """`copy_database` of a file that was checked; the rooms say what is to be in no copy."""

    def wipe(copied: sqlite3.Connection) -> None:
        # By its own version: the file may have been brought up to date a moment ago.
        present = versions(copied)
        for room, steps in rooms.items():
            taken = steps[: present.get(room, 0)]
            if hiding := [step for step in taken if isinstance(step, Hiding)]:
                copied.execute(hiding[-1].wipe)

    copy_database(db, path, wipe)


def migrate(db: sqlite3.Connection, path: Path, rooms: Schemas) -> None:
    """Bring the tables up to date, all or nothing; what was there is copied before.

    Raises: StoreUnusable, StoreFull, sqlite3.Error.
    """
    present = versions(db)
    wanted = {room: len(steps) for room, steps in rooms.items()}
    if present == wanted:
        # Nothing is written: a start needs no room on the disk.
        return
    if present:
        before = path.with_name(path.name + BEFORE)
        older = ", ".join(
            f"{room} {present.get(room, 0)} to {version}"
            for room, version in wanted.items()
            if present.get(room, 0) != version
        )
        # First of all: with a large file this takes its time.
        log.info("%s is brought up to date (%s); as it was is kept in %s", path, older, before)
        try:
            copy(db, before, rooms)
        except OSError as error:
            raise StoreFull(
                f"{path} is of an older version and can't be copied to {before} before it is"
                f" brought up to date: {reason(error)}; then start again"
            ) from error
    # Has no effect within a transaction.
    db.execute("PRAGMA foreign_keys = OFF")
    db.execute("BEGIN IMMEDIATE")
    try:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(
            "CREATE TABLE IF NOT EXISTS schema"
            " (room TEXT PRIMARY KEY, version INTEGER NOT NULL)"
        )
        for room, steps in rooms.items():
            for step in steps[present.get(room, 0) :]:
                _take(db, step)
            db.execute("INSERT OR REPLACE INTO schema VALUES (?, ?)", (room, len(steps)))
        _check_references(db, path)
        db.execute("COMMIT")
    except BaseException:
        # SQLite may have undone all of it already: on a full disk it does.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    finally:
        db.execute("PRAGMA foreign_keys = ON")


def _take(db: sqlite3.Connection, step: Step) -> None:
    if callable(step):
        step(db)
        return
    for statement in _statements(step.script if isinstance(step, Hiding) else step):
        db.execute(statement)


def _check_references(db: sqlite3.Connection, path: Path) -> None:
    """Does each row still have those that it belongs to?"""
    tables = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    for (table,) in tables:
        try:
            lost = db.execute(f'PRAGMA foreign_key_check("{table}")').fetchone()
        except sqlite3.OperationalError as error:
            # No key is there to be looked for: a step has made a table without it. No row of
            # any table is lost by that.
            log.error("%s: references of %s can't be checked: %s", path, table, error)
            continue
        if lost is not None:
            raise StoreUnusable(
                f"{path} can't be brought up to date: a row of {table} would belong to none of"
                f" {lost[2]} any more. It is as it was; install the older version again, and"
                " report this as a defect"
            )


def _statements(script: str) -> list[str]:
    # executescript() would commit the migration in the middle.
    statements: list[str] = []
    pending = ""
    for piece in script.split(";"):
        pending += piece + ";"
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements[:-1] if statements and not statements[-1].strip(" \n;") else statements
