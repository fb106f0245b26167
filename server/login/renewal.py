"""Renewing the token of a login that is used, while its account keeps the role. No wire."""

from __future__ import annotations

from collections.abc import Callable

from server.login import tokens
from server.login.accounts import Accounts
from server.login.roles import Login
from sysadmd.settings import AuthSettings
from sysadmd.store import Store


class Renewal:
    """Asks for the account's role, then writes the token's new end down."""

    def __init__(
        self, store: Store, accounts: Accounts, settings: Callable[[], AuthSettings]
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._settings = settings

    async def keep(self, renewed: Login) -> bool:
        """False: the account has lost its role. Raises: UnknownAccount, Busy, StoreFull."""
        role = await self._accounts.role(renewed.account, self._settings())
        if role is None or role < renewed.role:
            return False
        await self._store.write(lambda change: tokens.renew(change, renewed))
        return True
