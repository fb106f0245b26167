"""Logins without a password: by token, by certificate, renewed; and the end of those that are
no longer right. No wire.

Whenever an account is asked about, what it may no longer do ends there and then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from server.login import audit, keys, tokens
from server.login.accounts import Accounts
from server.login.audit import Audit
from server.login.roles import NO_ROLE, Login, Role
from server.login.standing import Busy, UnknownAccount
from sysadmd.errors import SysadmdError
from sysadmd.journal import Note, Transaction
from sysadmd.store import Store

log = logging.getLogger(__name__)

# The same for all of it: why, only the machine's administrators need to know.
REFUSED: Final = "the account is expired or locked, or has lost its role"
NO_LEGACY: Final = "auth.legacy_key_login is off"
AWAY: Final = "the account is not known now; log in again later"

# Ends all logins of an account above a role, and says why; were there any?
End = Callable[[str, int, str], bool]


class Logins:
    """Asks for the role first: an account may have lost it."""

    def __init__(
        self,
        store: Store,
        accounts: Accounts,
        trail: Audit,
        end: End,
        end_key: Callable[[str, str], object],
    ) -> None:
        """end_key: ends all logins that have come by a key, and says why."""
        self._store = store
        self._end_key = end_key
        self._accounts = accounts
        self._trail = trail
        self._end = end

    async def role(self, account: str, address: str) -> Role | None:
        """What an account may do now; connections and tokens of what it may not have ended.

        Raises: Busy; UnknownAccount: then its connections have ended, and its tokens have not:
        its directory may be there again before they run out.
        """
        try:
            role = await self._accounts.role(account)
        except UnknownAccount as error:
            if self._end(account, NO_ROLE, AWAY):
                log.warning("the connections of %s were ended: %s", account, error)
                entry = audit.entry(account, address, f"access ended: {AWAY}")
                await self._write(account, entry)
            raise
        most = NO_ROLE if role is None else int(role)
        # First of all: no request of these begins any more.
        ended = self._end(account, most, REFUSED)
        lost = keys.lost(self._store.reader, account)
        if lost and role is not None:
            await self._write(account, lambda change: keys.regain(change, account))
        losing = role is None and lost is False
        if ended or losing or tokens.any_above(self._store.reader, account, most):
            log.warning("access of %s was ended: %s", account, REFUSED)

            def change(change: Transaction) -> None:
                # Who asked at the same time may have written it down.
                revoked = tokens.revoke_above(change, account, most)
                # Keys follow the role, and let nobody in without one.
                revoked |= role is None and keys.lose(change, account)
                if revoked or ended:
                    audit.write(change, account, address, f"access ended: {REFUSED}")

            await self._write(account, change)
            # And who has come by one of those tokens meanwhile.
            self._store.soundly(self._end, account, most, REFUSED)
        return role

    async def by_certificate(self, name: str, address: str) -> Login | None:
        """The login of a verified certificate's name; None: the account may not log in.

        Raises: Busy, UnknownAccount.
        """
        role = await self.role(name, address)
        if role is None:
            await self._trail.login(name, address, "login by certificate refused")
            return None
        return Login(name, role, None, None, None, system=True)

    async def note(self, login: Login, address: str, how: str) -> None:
        """Write down that it is logged in: not before, or its end would not find it.

        how: `by certificate`, `locally`.
        """
        await self._trail.login(login.account, address, f"logged in {how} as {login.role.word}")

    async def end_legacy(self) -> None:
        """End what has come by the original client's form of key login: it is not allowed any
        more."""
        gone = keys.fingerprints(self._store.reader, "rsa")
        for fingerprint in gone & tokens.by_keys(self._store.reader):
            key = keys.found(self._store.reader, fingerprint)
            self._end_key(fingerprint, NO_LEGACY)
            log.warning("logins by the key %s were ended: %s", key.name, NO_LEGACY)

            def change(change: Transaction, key: keys.Key = key) -> None:
                tokens.revoke_by_key(change, key.fingerprint)
                audit.write(change, key.account, "local", f"logins by key {key.name} ended")

            await self._write(key.account, change)
            self._store.soundly(self._end_key, fingerprint, NO_LEGACY)

    async def by_token(self, secret: str, address: str) -> Login | None:
        """The login that a token stands for, renewed if that is due; None: it is not valid.

        Raises: UnknownAccount.
        """
        login = tokens.find(self._store.reader, secret)
        if login is None or not login.system:
            return login
        try:
            if not await self._is_right(login, address):
                return None
        except Busy:
            # Who makes PAM hang, or closes logins for a time, locks nobody out who is in: it is
            # valid until it runs out.
            pass
        else:
            if tokens.renewal_due(login):
                return await self._kept(login)
        # It may have been revoked meanwhile.
        return tokens.find(self._store.reader, secret)

    async def renew(self, login: Login, address: str) -> Login | None:
        """The login with its token renewed; None: it has ended.

        Raises: Busy, UnknownAccount.
        """
        return await self._kept(login) if await self._is_right(login, address) else None

    async def _is_right(self, login: Login, address: str) -> bool:
        role = await self.role(login.account, address)
        return role is not None and role >= login.role

    async def _kept(self, login: Login) -> Login | None:
        """The renewed login; None: the token was revoked meanwhile."""
        renewed = tokens.renewed(login)
        try:
            there = await self._store.write(lambda change: tokens.renew(change, renewed))
        except SysadmdError as error:
            # A full disk ends nobody's login: the next renewal may be written down again.
            log.warning("the renewal of a token of %s was not kept: %s", login.account, error)
            return renewed
        return renewed if there else None

    async def _write(self, account: str, change: Note) -> None:
        try:
            await self._store.write(change)
        except SysadmdError as error:
            # Its connections have ended; its tokens are refused whenever they are shown.
            log.error("the end of the access of %s was not written down: %s", account, error)
