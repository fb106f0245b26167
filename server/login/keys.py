"""Registered public keys, and how far who logs in by one has heard: their tables. No wire.

A key is bound to an account of the machine: it logs in with the role that this has then, and
with none lets nobody in; some days later it is forgotten. The number of the account is kept,
too: another one of the same name is not it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Final

from server.login import tokens
from sysadmd import keys
from sysadmd.errors import Conflict, NotFound, SysadmdError
from sysadmd.journal import Place, Transaction, parse_place
from sysadmd.keys import PublicKey
from sysadmd.passage import DAY
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
        used INTEGER,                   -- NULL: never
        lost INTEGER                    -- since when its account may not log in; NULL: it may
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
TEXT_LENGTH: Final = 64
# So long it is kept, and lets nobody in, when its account may not log in any more: a mistake in
# the configuration, or an account that was locked for a day, costs nobody his key; s.
KEPT: Final = 7 * DAY

_COLUMNS: Final = (
    "id, fingerprint, kind, pem, account, uid, nickname, email, created, used, lost"
)


class KeyRevoked(SysadmdError):
    """It is not registered any more."""

    code = "key-revoked"


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
    lost: int | None

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.kind, self.pem, self.fingerprint)

    @property
    def name(self) -> str:
        """For the trail and the log."""
        return f"{self.fingerprint} {self.nickname!r}"


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
    """Write down that it logs in now. Raises: KeyRevoked."""
    done = change.db.execute(
        "UPDATE keys SET used = ? WHERE id = ?", (round(time.time() * 1000), key.id)
    )
    if not done.rowcount:
        raise KeyRevoked("the key was revoked meanwhile")


def revoke(change: Transaction, fingerprint: str) -> None:
    """Forget a key, and the tokens of who logged in by it."""
    change.db.execute("DELETE FROM keys WHERE fingerprint = ?", (fingerprint,))
    tokens.revoke_by_key(change, fingerprint)
    change.db.execute("DELETE FROM heard WHERE key = ?", (fingerprint,))


def lose(change: Transaction, account: str) -> bool:
    """Its account may not log in any more; is that news of any key?"""
    done = change.db.execute(
        "UPDATE keys SET lost = ? WHERE account = ? AND lost IS NULL",
        (round(time.time() * 1000), account),
    )
    return done.rowcount > 0


def regain(change: Transaction, account: str) -> None:
    """It may again."""
    change.db.execute("UPDATE keys SET lost = NULL WHERE account = ?", (account,))


def lost(db: Connection, account: str) -> bool | None:
    """Are the account's keys known to let nobody in? None: it has none."""
    row = db.execute(
        "SELECT max(lost) IS NOT NULL FROM keys WHERE account = ? HAVING count(*) > 0",
        (account,),
    ).fetchone()
    return None if row is None else bool(row[0])


def tidy(change: Transaction, wall: float) -> list[Key]:
    """Forget, and return, keys whose accounts may not log in since long.

    wall: a clock that is believed, s since 1970. What another one has said counts from now on.
    """
    now, gone = round(wall * 1000), round((wall - KEPT) * 1000)
    change.db.execute(
        "UPDATE keys SET lost = ?1 WHERE lost < created OR lost > ?1 + ?2",
        (now, tokens.ASTRAY),
    )
    found = [key for key in listed(change.db) if key.lost is not None and key.lost < gone]
    for key in found:
        revoke(change, key.fingerprint)
    return found


def callers(db: Connection) -> frozenset[str]:
    """The fingerprints of the keys that may call us over a bridge."""
    rows = db.execute("SELECT fingerprint FROM keys WHERE kind = 'ed25519' AND lost IS NULL")
    return frozenset(row[0] for row in rows)


def fingerprints(db: Connection, kind: keys.Kind) -> set[str]:
    """Those of all keys of a kind."""
    return {
        row[0] for row in db.execute("SELECT fingerprint FROM keys WHERE kind = ?", (kind,))
    }


def signed_by(registered: Iterable[Key], signature: bytes, text: str) -> Key | None:
    """Who of them has signed the text as the original client does: its RSA keys are tried one
    after the other, since it does not say which one it has."""
    return next(
        (key for key in registered if keys.is_proved_raw(key.public, signature, text)), None
    )


class KeyDiary:
    """How far who holds a key has heard, by system; as long as that is registered."""

    def __init__(self, store: Store, fingerprint: str) -> None:
        self._store = store
        self._key = fingerprint

    def read(self) -> dict[int, Place]:
        """The place of each system."""
        return self._places(self._store.reader)

    def _places(self, db: Connection) -> dict[int, Place]:
        rows = db.execute("SELECT system, place FROM heard WHERE key = ?", (self._key,))
        return {system: parse_place(place) for system, place in rows}

    async def write(self, places: Mapping[int, Place]) -> None:
        """These systems were heard up to here; never less far. Raises: StoreFull."""

        def change(change: Transaction) -> None:
            if find(change.db, self._key) is None:
                return
            known = self._places(change.db)
            for system, place in places.items():
                # Another connection by the same key may be further.
                if system not in known or place.seq > known[system].seq:
                    row = (self._key, system, str(place))
                    change.db.execute("INSERT OR REPLACE INTO heard VALUES (?, ?, ?)", row)

        await self._store.write(change)

    async def forget(self, systems: Collection[int]) -> None:
        """They are not wanted any more. Raises: StoreFull."""
        rows = [(self._key, system) for system in systems]
        delete = "DELETE FROM heard WHERE key = ? AND system = ?"
        await self._store.write(lambda change: change.db.executemany(delete, rows))
