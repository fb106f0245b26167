"""Logins without a password, as far as the role goes: by certificate, and renewed ones."""

from __future__ import annotations

from server.login import tokens
from server.login.accounts import Accounts
from server.login.audit import Audit
from server.login.roles import Login, Role
from sysadmd.store import Store


class Logins:
    """Asks for the role first: an account may have lost it."""

    def __init__(self, store: Store, accounts: Accounts, trail: Audit) -> None:
        self._store = store
        self._accounts = accounts
        self._trail = trail

    async def by_certificate(self, name: str, address: str) -> Login | None:
        """The login of a verified certificate's name; None: the account is not listed.

        Raises: Busy, UnknownAccount.
        """
        role = await self._accounts.role(name)
        if role is None:
            return None
        await self._trail.login(name, address, f"logged in by certificate as {role.word}")
        return Login(name, role, None, None, None)

    async def note_local(self, account: str, address: str) -> None:
        """A program of this machine has come in by the local socket."""
        await self._trail.login(account, address, f"logged in locally as {Role.FULL.word}")

    async def renew(self, renewed: Login) -> bool:
        """Write a renewed token's new end down. False: the account has lost its role.

        Raises: UnknownAccount, Busy, StoreFull.
        """
        role = await self._accounts.role(renewed.account)
        if role is None or role < renewed.role:
            return False
        await self._store.write(lambda change: tokens.renew(change, renewed))
        return True
