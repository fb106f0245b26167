"""The audit trail: who came from where, who ran, killed, paused or changed what. No wire.

Kept in the state file beside the journal; read by `sysadmctl audit` and rpc/logs `hostinfo`.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Final

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
)

# Of one entry: a job may have 64 KiB of commands, the trail needs to say which job.
TEXT_LENGTH: Final = 1024
# The same login by token or certificate is written down so seldom; s.
LOGIN_PAUSE: Final = 3600.0
# Logins that are remembered for that; whose is forgotten is written down again.
LOGINS_KEPT: Final = 4096

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the trail; time in ms since 1970."""

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

    async def note(self, account: str, address: str, action: str) -> None:
        """Write an entry down; returns when it is on disk."""
        await self._store.write(lambda change: write(change, account, address, action))

    async def login(self, account: str, address: str, action: str) -> None:
        """A login without a password. Programs connect often: the same is told once an hour."""
        now, key = time.monotonic(), (account, address, action)
        if now - self._logins.get(key, -LOGIN_PAUSE) < LOGIN_PAUSE:
            return
        self._logins[key] = now
        self._logins.move_to_end(key)
        if len(self._logins) > LOGINS_KEPT:
            self._logins.popitem(last=False)
        try:
            await self.note(account, address, action)
        except SysadmdError as error:
            # A full disk keeps nobody out who may have come to make room.
            self._logins.pop(key, None)
            log.error("a login of %s from %s was not written down: %s", account, address, error)


def write(change: Transaction, account: str, address: str, action: str) -> None:
    """Add an entry to the trail, together with what it is about."""
    now = round(time.time() * 1000)
    # A job's id may hold what does not print.
    row = (now, printable(account), address, printable(action)[:TEXT_LENGTH])
    change.db.execute(
        "INSERT INTO audit (time, account, address, action) VALUES (?, ?, ?, ?)", row
    )


def entry(account: str, address: str, action: str) -> Note:
    """What adds the entry to the change that it is about."""
    return lambda change: write(change, account, address, action)


def entries(db: Connection, start: int, end: int, after: int, limit: int) -> list[Entry]:
    """At most `limit` entries with start <= time <= end (ms) and id > after, oldest first."""
    rows = db.execute(
        "SELECT id, time, account, address, action FROM audit"
        " WHERE time >= ? AND time <= ? AND id > ? ORDER BY id LIMIT ?",
        (start, end, after, limit),
    )
    return [Entry(*row) for row in rows]


def prune(change: Transaction, before: int) -> None:
    """Take the entries that are older than `before` (ms since 1970)."""
    change.db.execute("DELETE FROM audit WHERE time < ?", (before,))
