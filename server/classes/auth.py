"""rpc/auth, rpc/auth_token, rpc/auth_clear: logging in and out. Who gets in, login says."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from server.login import audit, auth_lines, tokens
from server.login.accounts import Accounts
from server.login.audit import Audit
from server.login.guesses import Guesses
from server.login.logins import Logins
from server.login.roles import Login, Role
from server.login.standing import TEXT_LENGTH
from server.session import Session
from server.wire.protocol import Reply, Request
from sysadmd.journal import Transaction
from sysadmd.settings import AuthSettings
from sysadmd.store import Store

log = logging.getLogger(__name__)


# Characters of what is taken for a token; ours have 43.
SECRET_LENGTH: Final = 256
# What an unlimited token's reply says for "seconds left": a century.
FOR_EVER: Final = 100 * 366 * 86400


def token_reply(secret: str, login: Login) -> Reply:
    """`["<token>", <seconds left>]`."""
    if login.expires is None:
        return Reply([secret, FOR_EVER])
    return Reply([secret, max(0, round(login.expires / 1000 - time.time()))])


class Auth:
    """Exchanges a password for a token. Only failed passwords count against an address."""

    def __init__(
        self,
        store: Store,
        trail: Audit,
        accounts: Accounts,
        guesses: Guesses,
        settings: Callable[[], AuthSettings],
    ) -> None:
        self._store = store
        self._trail = trail
        self._accounts = accounts
        self._guesses = guesses
        self._settings = settings
        self._clock = asyncio.get_running_loop().time

    def role(self, request: Request) -> Role | None:
        return None

    async def answer(self, session: Session, request: Request) -> Reply | None:
        session.log_out()
        args = request.fields()
        name, password = _name(request, args, "username"), _text(request, args, "password")
        lifetime = args.get("lifetime", "session")
        if lifetime not in ("session", "client"):
            raise request.refuse(400, 'args.lifetime must be "session" or "client"')
        label = _name(request, args, "name") if lifetime == "client" else None
        settings = self._settings()
        if not settings.password_login:
            raise request.refuse(
                401,
                "passwords are not accepted here (auth.password_login); log in with a token",
            )
        group = session.connection.group
        wait = self._guesses.blocked_for(group, self._clock())
        if wait:
            raise request.refuse(
                429, f"too many failed logins from this address; try again in {wait:.0f} s"
            )
        if not self._guesses.begin(group, self._clock(), settings):
            raise request.refuse(
                429, "too many logins from this address are being checked; try again later"
            )
        try:
            role = await self._check(session, name, password)
        finally:
            self._guesses.end(group)
        if role is None:
            raise request.refuse(
                401, "user or password is wrong, or the account may not log in"
            )
        return await self._accept(session, name, role, label)

    async def _check(self, session: Session, name: str, password: str) -> Role | None:
        """The account's role if this is its password; the outcome counts. Raises: Busy."""
        settings, group = self._settings(), session.connection.group
        host = session.address if session.connection.local is None else None
        role = await self._accounts.check(name, password, host)
        where = session.address, session.connection.port
        failed = auth_lines.failed(name, *where)
        if role is not None:
            self._guesses.succeeded(group, name)
        elif self._guesses.failed(group, name, self._clock(), settings):
            log.warning(
                "%s: too many failed logins; passwords are refused for %d s",
                session.address,
                settings.block_time,
            )
            said = failed, auth_lines.blocked(*where)
            await self._trail.note(name, session.address, "blocked after failed logins", *said)
        else:
            await self._trail.note(name, session.address, "login refused", failed)
        return role

    async def _accept(
        self, session: Session, name: str, role: Role, label: str | None
    ) -> Reply:
        secret = tokens.make_secret()
        settings = self._settings()
        seconds = settings.token_lifetime if label is None else settings.client_token_lifetime

        def change(change: Transaction) -> Login:
            said = auth_lines.accepted(name, session.address, session.connection.port)
            action = f"logged in by password as {role.word}"
            audit.write(change, name, session.address, action, said)
            return tokens.add(
                change,
                secret,
                account=name,
                role=role,
                name=label,
                seconds=seconds,
                renewed=True,
            )

        # Nothing between the commit and the login: a token that is revoked at once is found.
        login: Login = await self._store.write(change)
        session.log_in(login)
        return token_reply(secret, login)


class AuthToken:
    """Login by a token; always served, whatever the address has done before."""

    def __init__(self, logins: Logins, trail: Audit, admin_token: str) -> None:
        self._logins = logins
        self._trail = trail
        self._admin_token = admin_token

    def role(self, request: Request) -> Role | None:
        return None

    async def answer(self, session: Session, request: Request) -> Reply | None:
        session.log_out()
        secret = request.fields().get("token")
        if not isinstance(secret, str) or len(secret) > SECRET_LENGTH:
            raise request.refuse(
                400, f"args.token must be a string of at most {SECRET_LENGTH} characters"
            )
        if tokens.is_admin(secret, self._admin_token):
            login: Login | None = Login("root", Role.FULL, None, None, None)
        else:
            login = await self._logins.by_token(secret, session.address)
        if login is None:
            raise request.refuse(401, "the token is unknown or has expired; log in again")
        session.log_in(login)
        how = f"logged in by token as {login.role.word}"
        session.spawn(self._trail.login(login.account, session.address, how), "the login")
        return token_reply(secret, login)


class AuthClear:
    """Logged out; there is no reply."""

    def role(self, request: Request) -> Role | None:
        return None

    async def answer(self, session: Session, request: Request) -> Reply | None:
        session.log_out()
        return None


def _name(request: Request, args: dict[str, Any], key: str) -> str:
    """It is shown in tables and in the trail."""
    value = _text(request, args, key)
    if not value.isprintable():
        raise request.refuse(400, f"args.{key} must be printable")
    return value


def _text(request: Request, args: dict[str, Any], key: str) -> str:
    value = args.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_LENGTH:
        raise request.refuse(
            400, f"args.{key} must be a string of 1 to {TEXT_LENGTH} characters"
        )
    return value
