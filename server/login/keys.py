"""Registered public keys, and how far who logs in by one has heard: their tables. No wire.

A key is bound to an account of the machine: it logs in with the role that this has then, and
ends with it. The number of the account is kept, too: another one of the same name is not it.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Final

from sysadmd import keys
from sysadmd.errors import BadRequest, Conflict, NotFound
from sysadmd.journal import Place, Transaction, parse_place
from sysadmd.keys import PublicKey
from sysadmd.store import Store
from sysadmd.text import quoted

SCHEMA: Final = (
    """
    CREATE TABLE keys (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        fingerprint TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        pem BLOB NOT NULL,
        account TEXT NOT NULL,
        uid INTEGER NOT NULL,           -- of the account, when it was registered
        nickname TEXT NOT NULL,
        email TEXT NOT NULL,
        created INTEGER NOT NULL,       -- ms since 1970
        used INTEGER                    -- NULL: never
    );
    CREATE INDEX keys_by_account ON keys (account);
    CREATE TABLE heard (                -- how far who has the key has heard, for certain
        key TEXT NOT NULL,              -- its fingerprint
        system INTEGER NOT NULL,
        place TEXT NOT NULL,
        PRIMARY KEY (key, system)
    ) WITHOUT ROWID;
    """,
)

# Of one account, and of all: each one of the original's is tried at each login of its kind, and
# all are listed in one frame.
OF_ACCOUNT: Final = 32
OF_ALL: Final = 256
# Characters of a nickname, and of an address of mail.
TEXT_LENGTH: Final = 128

_COLUMNS: Final = "id, fingerprint, kind, pem, account, uid, nickname, email, created, used"


@dataclass(frozen=True, slots=True)
class Key:
    """A registered key; times in ms since 1970."""

    id: int
    fingerprint: str
    kind: keys.Kind
    pem: bytes
    account: str
    uid: int
    nickname: str
    email: str
    created: int
    used: int | None

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.kind, self.pem, self.fingerprint)

    @property
    def name(self) -> str:
        """For the trail and the log."""
        return f"{self.nickname or 'key'} ({self.fingerprint})"


def register(
    change: Transaction, key: PublicKey, account: str, uid: int, nickname: str, email: str
) -> None:
    """Let a key log in as an account; again: with another nickname. Raises: Conflict."""
    there = find(change.db, key.fingerprint)
    if there is not None:
        if (there.account, there.uid) != (account, uid):
            raise Conflict("the key is registered for another account; make one for each")
        change.db.execute(
            "UPDATE keys SET nickname = ?, email = ?, pem = ? WHERE id = ?",
            (nickname, email, key.pem, there.id),
        )
        return
    count = "SELECT count(*), count(*) FILTER (WHERE account = ?) FROM keys"
    all_keys, own = change.db.execute(count, (account,)).fetchone()
    if own >= OF_ACCOUNT or all_keys >= OF_ALL:
        raise Conflict(
            f"there are {own} keys of the account, {all_keys} in all, and no more than"
            f" {OF_ACCOUNT} and {OF_ALL} can be; revoke some that are not in use"
        )
    change.db.execute(
        "INSERT INTO keys (fingerprint, kind, pem, account, uid, nickname, email, created)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(key.fingerprint, key.kind, key.pem, account, uid, nickname, email),
            round(time.time() * 1000),
        ),
    )


def find(db: Connection, fingerprint: str) -> Key | None:
    """A registered key."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM keys WHERE fingerprint = ?",  # noqa: S608 - constants alone
        (fingerprint,),
    ).fetchone()
    return Key(*row) if row else None


def found(db: Connection, fingerprint: str) -> Key:
    """The same. Raises: NotFound."""
    key = find(db, fingerprint)
    if key is None:
        raise NotFound(
            f"no key {quoted(fingerprint)} is registered; `sysadmctl key list` shows those"
            " that are"
        )
    return key


def listed(db: Connection, account: str | None = None, after: int = 0) -> list[Key]:
    """The keys of an account, or all, oldest first; after: the id of the last one seen."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM keys"  # noqa: S608 - constants alone
        " WHERE (?1 IS NULL OR account = ?1) AND id > ?2 ORDER BY id",
        (account, after),
    )
    return [Key(*row) for row in rows]


def accounts(db: Connection) -> set[str]:
    """The accounts that have keys."""
    return {row[0] for row in db.execute("SELECT DISTINCT account FROM keys")}


def use(change: Transaction, key: Key) -> None:
    """Write down that it logs in now. Raises: BadRequest if it was revoked meanwhile."""
    done = change.db.execute(
        "UPDATE keys SET used = ? WHERE id = ?", (round(time.time() * 1000), key.id)
    )
    if not done.rowcount:
        raise BadRequest("the key was revoked meanwhile")


def revoke(change: Transaction, fingerprint: str) -> None:
    """Forget a key, and the tokens of who logged in by it."""
    change.db.execute("DELETE FROM keys WHERE fingerprint = ?", (fingerprint,))
    change.db.execute("DELETE FROM tokens WHERE key = ?", (fingerprint,))
    change.db.execute("DELETE FROM heard WHERE key = ?", (fingerprint,))


def revoke_all(change: Transaction, account: str) -> bool:
    """Forget all of an account's keys; were there any?"""
    of_account = "SELECT fingerprint FROM keys WHERE account = ?"
    for (fingerprint,) in (gone := change.db.execute(of_account, (account,)).fetchall()):
        revoke(change, fingerprint)
    return bool(gone)


class KeyDiary:
    """How far who holds a key has heard, by system; as long as that is registered."""

    def __init__(self, store: Store, fingerprint: str) -> None:
        self._store = store
        self.key = fingerprint

    def read(self) -> dict[int, Place]:
        """The place of each system."""
        query = "SELECT system, place FROM heard WHERE key = ?"
        rows = self._store.reader.execute(query, (self.key,))
        return {system: parse_place(place) for system, place in rows}

    async def write(self, systems: Collection[int], place: Place | None) -> None:
        """These systems were heard up to a place; None: they are not wanted any more.

        Raises: StoreFull.
        """

        def change(change: Transaction) -> None:
            change.db.executemany(
                "DELETE FROM heard WHERE key = ? AND system = ?",
                [(self.key, system) for system in systems],
            )
            if place is not None and find(change.db, self.key) is not None:
                change.db.executemany(
                    "INSERT INTO heard VALUES (?, ?, ?)",
                    [(self.key, system, str(place)) for system in systems],
                )

        await self._store.write(change)
