"""Login by a client's certificate that is verified already. No socket, no wire."""

from __future__ import annotations

from collections.abc import Callable

from server.login.accounts import Accounts
from server.login.audit import Audit
from server.login.roles import Login
from sysadmd.settings import AuthSettings


class Certificates:
    """Whom a certificate's name stands for."""

    def __init__(
        self, trail: Audit, accounts: Accounts, settings: Callable[[], AuthSettings]
    ) -> None:
        self._trail = trail
        self._accounts = accounts
        self._settings = settings

    async def login(self, name: str, address: str) -> Login | None:
        """The login if it names a listed account. Raises: Busy, UnknownAccount."""
        role = await self._accounts.role(name, self._settings())
        if role is None:
            return None
        await self._trail.login(name, address, f"logged in by certificate as {role.word}")
        return Login(name, role, None, None, None)
