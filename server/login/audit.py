"""The audit trail: who came from where, who ran, killed, paused or changed what. No wire.

Kept in the state file beside the journal; read by `sysadmctl audit` and rpc/logs `hostinfo`.
Each entry is also told to the system's log, once it is on disk.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Final

from server.login import auth_lines
from sysadmd.errors import SysadmdError
from sysadmd.journal import Note, Transaction
from sysadmd.store import Store
from sysadmd.text import printable

SCHEMA: Final = (
    """
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time INTEGER NOT NULL,          -- ms since 1970
        account TEXT NOT NULL,
        address TEXT NOT NULL,
        action TEXT NOT NULL
    );
    CREATE INDEX audit_by_time ON audit (time);
    """,
    # From here on `time` never goes below that of the entry before.
    """
    ALTER TABLE audit ADD COLUMN wall INTEGER;  -- the wall clock; NULL: the same as `time`
    UPDATE audit SET wall = time, time = raised.high
    FROM (SELECT id, max(time) OVER (ORDER BY id) AS high FROM audit) AS raised
    WHERE raised.id = audit.id AND raised.high > time;
    """,
)
# What its entries are called where ages are told (`ages`).
KIND: Final = "audit"

# Of one entry: a job may have 64 KiB of commands, the trail needs to say which job.
TEXT_LENGTH: Final = 1024
# The same login by token or certificate is written down so seldom; s.
LOGIN_PAUSE: Final = 3600.0
# Logins that are remembered for that; whose is forgotten is written down again.
LOGINS_KEPT: Final = 4096

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the trail; time in ms since 1970, by the wall clock."""

    id: int
    time: int
    account: str
    address: str
    action: str


class Audit:
    """Writes the trail."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # When a login was last written down, by account, address and action.
        self._logins: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    async def note(self, account: str, address: str, action: str, *said: str) -> None:
        """Write an entry down; returns when it is on disk. said: as in `write`."""
        await self._store.write(lambda change: write(change, account, address, action, *said))

    def is_known(self, account: str, address: str, action: str) -> bool:
        """Was such a login written down within the hour?"""
        known = self._logins.get((account, address, action), -LOGIN_PAUSE)
        return time.monotonic() - known < LOGIN_PAUSE

    async def login(self, account: str, address: str, action: str) -> None:
        """A login without a password. Programs connect often: the same is told once an hour."""
        if self.is_known(account, address, action):
            return
        key = (account, address, action)
        self._logins[key] = time.monotonic()
        self._logins.move_to_end(key)
        if len(self._logins) > LOGINS_KEPT:
            self._logins.popitem(last=False)
        try:
            await self.note(account, address, action)
        except SysadmdError as error:
            # A full disk keeps nobody out who may have come to make room.
            self._logins.pop(key, None)
            log.error("a login of %s from %s was not written down: %s", account, address, error)


def write(change: Transaction, account: str, address: str, action: str, *said: str) -> None:
    """Add an entry to the trail, together with what it is about.

    said: what the system's log is told instead of it.
    """
    # A job's id may hold what does not print.
    row = (printable(account), address, printable(action)[:TEXT_LENGTH])
    change.said += said or (auth_lines.entry(*row),)
    change.db.execute(
        "INSERT INTO audit (time, wall, account, address, action)"
        " SELECT max(?1, last), CASE WHEN last > ?1 THEN ?1 END, ?2, ?3, ?4 FROM ("
        "SELECT coalesce((SELECT time FROM audit ORDER BY id DESC LIMIT 1), 0) AS last)",
        (round(time.time() * 1000), *row),
    )


def entry(account: str, address: str, action: str) -> Note:
    """What adds the entry to the change that it is about."""
    return lambda change: write(change, account, address, action)


def entries(db: Connection, start: int, end: int, after: int, limit: int) -> list[Entry]:
    """At most `limit` entries between start and end (ms) with id > after, oldest first.

    Between them by the wall clock, or by its place among the others.
    """
    # No wall clock is above its entry's time: what is below `start` need not be looked at.
    first = db.execute(
        "SELECT id FROM audit WHERE time >= ? ORDER BY time, id LIMIT 1", (start,)
    ).fetchone()
    if first is None:
        return []
    rows = db.execute(
        "SELECT id, coalesce(wall, time), account, address, action FROM audit NOT INDEXED"
        " WHERE id >= ? AND (time BETWEEN ? AND ? OR wall BETWEEN ? AND ?)"
        " ORDER BY id LIMIT ?",
        (max(after + 1, first[0]), start, end, start, end, limit),
    )
    return [Entry(*row) for row in rows]


def newest(db: Connection) -> int:
    """The id of the newest entry; 0: there is none."""
    return int(db.execute("SELECT max(id) FROM audit").fetchone()[0] or 0)


def prune(change: Transaction, upto: int) -> None:
    """Take the entries up to this id."""
    change.db.execute("DELETE FROM audit WHERE id <= ?", (upto,))
