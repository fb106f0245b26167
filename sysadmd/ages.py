"""How old rows are: what was there when how much time had passed. Tables; no clock.

Rows are named by their kind and a number that only grows. That all up to a number were there
before a moment is written down now and then, and that is how old they count: by the time that
the journal has seen pass, whatever the wall clock said.
"""

# ruff: noqa: S608 - the texts of queries are put together of the names of fields alone

from __future__ import annotations

from dataclasses import astuple, fields
from sqlite3 import Connection
from typing import Any, Final

from sysadmd.passage import Passage

SCHEMA: Final = (
    """
    CREATE TABLE passage (              -- the last look at the clocks that was kept
        id INTEGER PRIMARY KEY CHECK (id = 1),
        passed REAL NOT NULL,           -- these are the fields of Passage, in s
        boot TEXT NOT NULL,
        uptime REAL NOT NULL,
        wall REAL NOT NULL,
        strayed REAL NOT NULL,
        steady REAL NOT NULL,
        leap REAL NOT NULL,
        ahead REAL,
        owed INTEGER NOT NULL
    );
    CREATE TABLE ages (                 -- rows of a kind up to `upto` were there then
        kind TEXT NOT NULL,
        upto INTEGER NOT NULL,
        passed REAL NOT NULL,
        PRIMARY KEY (kind, upto)
    ) WITHOUT ROWID;
    """,
)

_FIELDS: Final = tuple(field.name for field in fields(Passage))


def last_look(db: Connection) -> Passage | None:
    """The last look at the clocks that was kept; None: there was none yet."""
    row = db.execute(f"SELECT {', '.join(_FIELDS)} FROM passage").fetchone()
    if row is None:
        return None
    told: dict[str, Any] = dict(zip(_FIELDS, row, strict=True))
    told["owed"] = bool(told["owed"])
    return Passage(**told)


def keep_look(db: Connection, look: Passage) -> None:
    """Keep this one."""
    db.execute(
        f"REPLACE INTO passage (id, {', '.join(_FIELDS)}) VALUES (1{', ?' * len(_FIELDS)})",
        astuple(look),
    )


def note(db: Connection, kind: str, upto: int, passed: float) -> None:
    """Write down that all rows up to this one are there by now; how old those are that are
    known already stays."""
    if upto > newest(db, kind):
        db.execute("INSERT INTO ages VALUES (?, ?, ?)", (kind, upto, passed))


def newest(db: Connection, kind: str) -> int:
    """The last row that is known to be there; 0: none is."""
    row = db.execute("SELECT max(upto) FROM ages WHERE kind = ?", (kind,)).fetchone()
    return row[0] or 0


def older(db: Connection, kind: str, passed: float) -> int:
    """Up to which row all were there when so much time had passed; 0: none is known."""
    row = db.execute(
        "SELECT max(upto) FROM ages WHERE kind = ? AND passed <= ?", (kind, passed)
    ).fetchone()
    return row[0] or 0


def prune(db: Connection, passed: float) -> None:
    """Forget what nobody asks for who asks for this moment or a later one."""
    db.execute(
        "DELETE FROM ages WHERE upto < (SELECT max(upto) FROM ages AS last"
        " WHERE last.kind = ages.kind AND last.passed <= ?)",
        (passed,),
    )
