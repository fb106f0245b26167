"""Tokens: made, found, renewed, revoked. Only their hashes are kept; no password, no wire.

A token is 256 random bits. It is looked up by its SHA-256, so neither the time of a look-up nor
a stolen database says anything about a token that someone holds.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass, replace
from sqlite3 import Connection
from typing import Final

from server.login.roles import Login, Role
from sysadmd.errors import Conflict, NotFound
from sysadmd.journal import Note, Transaction, no_note
from sysadmd.passage import DAY

SCHEMA: Final = (
    """
    CREATE TABLE tokens (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        hash BLOB NOT NULL UNIQUE,
        name TEXT UNIQUE,               -- NULL: of one login, ended by time
        account TEXT NOT NULL,
        role INTEGER NOT NULL,
        created INTEGER NOT NULL,       -- ms since 1970
        used INTEGER NOT NULL,
        expires INTEGER,                -- NULL: never
        lifetime INTEGER                -- s; NULL: use does not renew it
    );
    CREATE INDEX tokens_by_expiry ON tokens (expires);
    """,
    # Of a login by key: the token ends with the key.
    """
    ALTER TABLE tokens ADD COLUMN key TEXT;     -- its fingerprint
    CREATE INDEX tokens_by_key ON tokens (key) WHERE key NOT NULL;
    """,
)

# Use renews a token at most this often; a write for each request would be one disk sync each.
RENEW_AFTER: Final = 0.1
# So far off may a clock be that is believed (sysadmd/passage.py); ms.
ASTRAY: Final = round(DAY * 1000)
# Names are shown in tables and logs.
NAME_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class Token:
    """A kept token as `token list` shows it; times in ms since 1970."""

    id: int
    name: str | None
    account: str
    role: Role
    created: int
    used: int
    expires: int | None
    lifetime: int | None


def make_secret() -> str:
    """A new token's text."""
    return secrets.token_urlsafe(32)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def add(
    change: Transaction,
    secret: str,
    *,
    account: str,
    role: Role,
    name: str | None = None,
    seconds: int | None,
    renewed: bool,
    key: str | None = None,
) -> Login:
    """Keep a token. seconds: how long it lives; None: for ever. key: the fingerprint of the
    key by which it was come by.

    Raises: Conflict if the name is taken.
    """
    now = _now()
    expires = None if seconds is None else now + seconds * 1000
    # Who takes the name of one that has run out wants another one in its place.
    change.db.execute("DELETE FROM tokens WHERE name = ? AND expires <= ?", (name, now))
    if name is not None and _number(change.db, name) is not None:
        raise Conflict(
            f"a token named {name!r} exists; end it first, by `sysadmctl logout` where it is"
            " kept or `sysadmd token revoke`, or take another name"
        )
    lifetime = seconds if renewed else None
    row = change.db.execute(
        "INSERT INTO tokens (hash, name, account, role, created, used, expires, lifetime, key)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (_digest(secret), name, account, int(role), now, now, expires, lifetime, key),
    ).fetchone()
    return _login(account, role, row[0], expires, lifetime, key)


def add_named(
    change: Transaction, name: str, role: Role, seconds: int | None, note: Note
) -> str:
    """Keep a new token that is an account of its own; returns its text. Raises: Conflict."""
    note(change)
    secret = make_secret()
    add(change, secret, account=name, role=role, name=name, seconds=seconds, renewed=False)
    return secret


def find(db: Connection, secret: str) -> Login | None:
    """The login that a token stands for; None: unknown, revoked or expired."""
    row = db.execute(
        "SELECT account, role, id, expires, lifetime, key FROM tokens"
        " WHERE hash = ? AND (expires IS NULL OR expires > ?)",
        (_digest(secret), _now()),
    ).fetchone()
    return _login(row[0], Role(row[1]), *row[2:]) if row else None


def is_admin(secret: str, admin: str) -> bool:
    """Is this the admin token? In constant time."""
    return hmac.compare_digest(_digest(secret), _digest(admin))


def renewal_due(login: Login) -> bool:
    """Has so much of the token's lifetime passed that use should renew it?"""
    if login.lifetime is None or login.expires is None:
        return False
    left = (login.expires - _now()) / 1000
    return left < login.lifetime * (1 - RENEW_AFTER)


def renewed(login: Login) -> Login:
    """The login as it will be once `renew` is committed."""
    assert login.lifetime is not None
    return replace(login, expires=_now() + login.lifetime * 1000)


def renew(change: Transaction, login: Login) -> bool:
    """Write down a renewed login's new end; False: its token is not there any more."""
    done = change.db.execute(
        "UPDATE tokens SET expires = ?, used = ? WHERE id = ?",
        (login.expires, _now(), login.token),
    )
    return done.rowcount > 0


def listed(db: Connection, limit: int = -1, after: int = 0) -> list[Token]:
    """The named tokens that are valid, oldest first; `after`: the id of the last one seen."""
    rows = db.execute(
        "SELECT id, name, account, role, created, used, expires, lifetime FROM tokens"
        " WHERE name IS NOT NULL AND (expires IS NULL OR expires > ?) AND id > ?"
        " ORDER BY id LIMIT ?",
        (_now(), after, limit),
    )
    return [Token(row[0], row[1], row[2], Role(row[3]), *row[4:]) for row in rows]


def named(db: Connection, name: str) -> int:
    """The id of a named token. Raises: NotFound."""
    found = _number(db, name)
    if found is None:
        raise NotFound(f"there is no token named {name!r}; `sysadmd token list` shows them")
    return found


def name_of(db: Connection, number: int) -> str | None:
    """What a token is called; None: it has no name, or is gone."""
    row = db.execute("SELECT name FROM tokens WHERE id = ?", (number,)).fetchone()
    return row[0] if row else None


def revoke(change: Transaction, number: int, note: Note = no_note) -> None:
    """Forget a token."""
    note(change)
    change.db.execute("DELETE FROM tokens WHERE id = ?", (number,))


def tidy(change: Transaction, wall: float) -> None:
    """Forget tokens that have run out for certain; those that were used in the future, since
    the clock was ahead, live from now on for as long as they would have.

    wall: a clock that is believed, s since 1970.
    """
    now = round(wall * 1000)
    change.db.execute("DELETE FROM tokens WHERE expires < ?", (now - ASTRAY,))
    change.db.execute(
        "UPDATE tokens SET expires = expires - used + ?1, used = ?1, created = min(created, ?1)"
        " WHERE used > ?2",
        (now, now + ASTRAY),
    )


def accounts(db: Connection) -> set[str]:
    """The accounts of the machine that have a token: use renews theirs, and no others."""
    rows = db.execute(
        "SELECT account FROM tokens WHERE lifetime NOT NULL AND expires > ?", (_now(),)
    )
    return {row[0] for row in rows}


def any_above(db: Connection, account: str, most: int) -> bool:
    """Has an account of the machine a token of a higher role than this?"""
    found = db.execute(
        "SELECT 1 FROM tokens"
        " WHERE lifetime NOT NULL AND expires > ? AND account = ? AND role > ?",
        (_now(), account, most),
    )
    return found.fetchone() is not None


def revoke_above(change: Transaction, account: str, most: int) -> bool:
    """Forget these; were there any?"""
    done = change.db.execute(
        "DELETE FROM tokens WHERE lifetime NOT NULL AND account = ? AND role > ?",
        (account, most),
    )
    return done.rowcount > 0


def by_keys(db: Connection) -> set[str]:
    """The keys by which tokens were come by that are valid."""
    rows = db.execute("SELECT key FROM tokens WHERE key NOT NULL AND expires > ?", (_now(),))
    return {row[0] for row in rows}


def revoke_by_key(change: Transaction, key: str) -> None:
    """Forget those of one key."""
    change.db.execute("DELETE FROM tokens WHERE key = ?", (key,))


def _login(
    account: str,
    role: Role,
    token: int,
    expires: int | None,
    lifetime: int | None,
    key: str | None,
) -> Login:
    return Login(account, role, token, expires, lifetime, lifetime is not None, key)


def _number(db: Connection, name: str) -> int | None:
    row = db.execute("SELECT id FROM tokens WHERE name = ?", (name,)).fetchone()
    return row[0] if row else None


def _now() -> int:
    return round(time.time() * 1000)
