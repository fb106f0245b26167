"""Roles and logins as values. No password, no database."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final


class Role(IntEnum):
    """What an account may do; each role includes those before it."""

    READ = 1
    LIMITED = 2
    FULL = 3

    @property
    def word(self) -> str:
        return self.name.lower()


# Below every role.
NO_ROLE: Final = 0


def parse_role(word: str) -> Role:
    """Raises: ValueError naming the roles."""
    try:
        return Role[word.upper()]
    except KeyError:
        raise ValueError(f"{word!r} is not a role; allowed: read, limited, full") from None


@dataclass(frozen=True, slots=True)
class Login:
    """Who is logged in on a connection, by which token.

    token: its row, None for the admin token. expires: ms since 1970, None: never.
    lifetime: s by which use renews it, None: not renewed. system: of an account of the machine,
    which is asked about again and again; other names are only names. key: the fingerprint of
    the key by which it has logged in.
    """

    account: str
    role: Role
    token: int | None
    expires: int | None
    lifetime: int | None
    system: bool = False
    key: str | None = None

    def is_still(self, now: Login | None) -> bool:
        """Is `now` this login, renewed perhaps?"""
        return now is not None and replace(now, expires=self.expires) == self

    def is_above(self, account: str, most: int) -> bool:
        """Is it of this account of the machine, with a higher role than this?"""
        return self.system and self.account == account and self.role > most
