"""Roles and logins as values. No password, no database."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Role(IntEnum):
    """What an account may do; each role includes those before it."""

    READ = 1
    LIMITED = 2
    FULL = 3

    @property
    def word(self) -> str:
        return self.name.lower()


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
    lifetime: s by which use renews it, None: not renewed.
    """

    account: str
    role: Role
    token: int | None
    expires: int | None
    lifetime: int | None

    def is_still(self, now: Login | None) -> bool:
        """Is `now` this login, renewed perhaps?"""
        return now is not None and (now.account, now.role, now.token) == (
            self.account,
            self.role,
            self.token,
        )
