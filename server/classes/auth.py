"""rpc/auth: login by user and password; and login by a client certificate. PAM decides."""

from __future__ import annotations

import logging
from typing import Any

from server.classes.identity import token_reply
from server.login import audit, tokens
from server.login.accounts import TEXT_LENGTH, Accounts
from server.login.audit import Audit
from server.login.guesses import Guesses
from server.login.roles import Login, Role
from server.session import Session
from server.wire.protocol import Reply, Request
from sysadmd.journal import Transaction

log = logging.getLogger(__name__)


class Auth:
    """Exchanges a password for a token. Only failed passwords count against an address."""

    def __init__(self, trail: Audit, accounts: Accounts, guesses: Guesses) -> None:
        self._trail = trail
        self._accounts = accounts
        self._guesses = guesses

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
        settings = session.desk.settings.auth
        if not settings.password_login:
            raise request.refuse(
                401,
                "passwords are not accepted here (auth.password_login); log in with a token",
            )
        group, loop = session.connection.group, session.desk.loop
        wait = self._guesses.blocked_for(group, loop.time())
        if wait:
            raise request.refuse(
                429, f"too many failed logins from this address; try again in {wait:.0f} s"
            )
        if not self._guesses.begin(group, loop.time(), settings):
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
        settings, group = session.desk.settings.auth, session.connection.group
        role = await self._accounts.check(name, password, settings)
        if role is not None:
            self._guesses.succeeded(group, name)
        elif self._guesses.failed(group, name, session.desk.loop.time(), settings):
            log.warning(
                "%s: too many failed logins; passwords are refused for %d s",
                session.address,
                settings.block_time,
            )
            await self._trail.note(name, session.address, "blocked after failed logins")
        else:
            await self._trail.note(name, session.address, "login refused")
        return role

    async def _accept(
        self, session: Session, name: str, role: Role, label: str | None
    ) -> Reply:
        secret = tokens.make_secret()
        settings = session.desk.settings.auth
        seconds = settings.token_lifetime if label is None else settings.client_token_lifetime

        def change(change: Transaction) -> Login:
            audit.write(change, name, session.address, f"logged in by password as {role.word}")
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
        login: Login = await session.desk.write(change)
        session.log_in(login)
        return token_reply(secret, login)


class Certificates:
    """Login by a client's certificate that is verified already."""

    def __init__(self, trail: Audit, accounts: Accounts) -> None:
        self._trail = trail
        self._accounts = accounts

    async def login(self, session: Session, name: str) -> Login | None:
        """The login if it names a listed account. Raises: Busy, UnknownAccount."""
        role = await self._accounts.role(name, session.desk.settings.auth)
        if role is None:
            return None
        how = f"logged in by certificate as {role.word}"
        await self._trail.login(name, session.address, how)
        return Login(name, role, None, None, None)


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
