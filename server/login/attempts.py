"""Attempts to log in by a password or a key: who may try, and what the outcome counts. No wire.

Only these count against an address: tokens are served whatever it has done before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from server.login import audit, auth_lines, tokens
from server.login.audit import Audit
from server.login.guesses import Guesses
from server.login.roles import Login, Role
from sysadmd.errors import SysadmdError
from sysadmd.journal import Note, Transaction, no_note
from sysadmd.settings import AuthSettings
from sysadmd.store import Store

log = logging.getLogger(__name__)


class Blocked(SysadmdError):
    """The address has failed too often, or tries too much at once."""

    code = "blocked"


@dataclass(frozen=True, slots=True)
class Where:
    """From where somebody tries. group: what limits by address count by."""

    address: str
    port: int | None
    group: str


class Attempts:
    """One bookkeeping for all ways that can be guessed at."""

    def __init__(
        self, store: Store, trail: Audit, guesses: Guesses, settings: Callable[[], AuthSettings]
    ) -> None:
        self._store = store
        self._trail = trail
        self._guesses = guesses
        self._settings = settings
        self._clock = asyncio.get_running_loop().time

    def check(self, where: Where) -> None:
        """Raises: Blocked."""
        wait = self._guesses.blocked_for(where.group, self._clock())
        if wait:
            raise Blocked(
                f"too many failed logins from this address; try again in {wait:.0f} s"
            )

    @contextmanager
    def attempt(self, where: Where) -> Generator[None]:
        """While it is being checked it counts as failed. Raises: Blocked."""
        self.check(where)
        if not self._guesses.begin(where.group, self._clock(), self._settings()):
            raise Blocked(
                "too many logins from this address are being checked; try again later"
            )
        try:
            yield
        finally:
            self._guesses.end(where.group)

    def succeeded(self, where: Where, name: str) -> None:
        """It was right; that forgives the failures of this account."""
        self._guesses.succeeded(where.group, name)

    async def failed(self, where: Where, name: str, how: str) -> None:
        """It was wrong; may block the address. how: as `auth_lines` has it."""
        settings = self._settings()
        place = where.address, where.port
        failed = auth_lines.failed(name, *place, how)
        if not self._guesses.failed(where.group, name, self._clock(), settings):
            await self._trail.note(name, where.address, f"login by {how} refused", failed)
            return
        log.warning(
            "%s: too many failed logins; passwords and keys are refused for %d s",
            where.address,
            settings.block_time,
        )
        said = failed, auth_lines.blocked(*place)
        await self._trail.note(name, where.address, "blocked after failed logins", *said)

    async def accept(
        self,
        where: Where,
        name: str,
        role: Role,
        how: str,
        *,
        said: str = "",
        label: str | None = None,
        key: str | None = None,
        note: Note = no_note,
    ) -> tuple[str, Login]:
        """A new token's text, and its login.

        said: what the trail has for `how`. label: the token's name, if it is a client's. key:
        the fingerprint of the key. note: committed with it.
        """
        secret = tokens.make_secret()
        settings = self._settings()
        seconds = settings.token_lifetime if label is None else settings.client_token_lifetime

        def change(change: Transaction) -> Login:
            note(change)
            line = auth_lines.accepted(name, where.address, where.port, how)
            action = f"logged in by {said or how} as {role.word}"
            audit.write(change, name, where.address, action, line)
            return tokens.add(
                change,
                secret,
                account=name,
                role=role,
                name=label,
                seconds=seconds,
                renewed=True,
                key=key,
            )

        return secret, await self._store.write(change)
