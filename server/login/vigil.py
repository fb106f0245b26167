"""Asks again, all the time, about every account that is in: may it still? No wire.

Locking an account tells nobody: only who asks hears of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from server.login import keys, tokens
from server.login.accounts import Accounts
from server.login.logins import Logins
from sysadmd.errors import SysadmdError
from sysadmd.store import Store

# "At least hourly", with room for a round that takes long because PAM does; s.
INTERVAL: Final = 1800.0
# Questions of a round at once: fewer than calls, so that logins find one.
AT_ONCE: Final = 4
# Whose address is written down for what is done by nobody's request.
OURS: Final = "local"


class Vigil:
    """A round is one question for each account, however often it is in."""

    def __init__(
        self,
        store: Store,
        logins: Logins,
        accounts: Accounts,
        connected: Callable[[], set[str]],
        legacy: Callable[[], bool],
    ) -> None:
        """connected: the accounts that are logged in. legacy: auth.legacy_key_login."""
        self._legacy = legacy
        self._store = store
        self._logins = logins
        self._accounts = accounts
        self._connected = connected
        self._now = asyncio.Event()

    def look(self) -> None:
        """Begin a round now: the settings have changed."""
        self._now.set()

    async def run(self) -> None:
        """A round at each interval; until cancelled."""
        self._accounts.look_at_members()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await self._now.wait()
            if self._now.is_set():
                self._accounts.look_at_members()
            self._now.clear()
            await self._round()

    async def _round(self) -> None:
        places = asyncio.Semaphore(AT_ONCE)

        async def ask(account: str) -> None:
            # Who can't be asked about now is the next time; it has been said.
            with suppress(SysadmdError):
                async with places:
                    await self._logins.role(account, OURS)

        if not self._legacy():
            with suppress(SysadmdError):
                await self._logins.end_legacy()
        accounts = self._connected()
        # Of a damaged file, which has been said, who is connected is asked about all the same.
        with suppress(SysadmdError):
            accounts |= tokens.accounts(self._store.reader)
            accounts |= keys.accounts(self._store.reader)
        async with asyncio.TaskGroup() as group:
            for account in accounts:
                group.create_task(ask(account))
