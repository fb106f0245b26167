"""rpc/auth, rpc/auth_token, rpc/auth_clear: logging in and out. Who gets in, login says."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from server.login import auth_lines, tokens
from server.login.accounts import Accounts
from server.login.attempts import Attempts
from server.login.audit import Audit
from server.login.logins import Logins
from server.login.roles import Login, Role
from server.login.standing import TEXT_LENGTH
from server.session import Session
from server.wire.protocol import Reply, Request
from sysadmd.settings import AuthSettings

# Characters of what is taken for a token; ours have 43.
SECRET_LENGTH: Final = 256
# What an unlimited token's reply says for "seconds left": a century.
FOR_EVER: Final = 100 * 366 * 86400
# What PAM is told of who comes over a bridge: a name without a dot is one of this machine's
# network (pam_access). Source: RFC 2606, 2: nobody is called so.
RELAYED: Final = "bridge.invalid"


def token_reply(secret: str, login: Login) -> Reply:
    """`["<token>", <seconds left>]`."""
    if login.expires is None:
        return Reply([secret, FOR_EVER])
    return Reply([secret, max(0, round(login.expires / 1000 - time.time()))])


def _host(session: Session) -> str | None:
    """What PAM is told of where somebody is; None: on this machine."""
    if session.connection.relayed:
        return RELAYED
    return session.address if session.connection.local is None else None


class Auth:
    """Exchanges a password for a token."""

    def __init__(
        self, attempts: Attempts, accounts: Accounts, settings: Callable[[], AuthSettings]
    ) -> None:
        self._attempts = attempts
        self._accounts = accounts
        self._settings = settings

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
        if not self._settings().password_login:
            raise request.refuse(
                401,
                "passwords are not accepted here (auth.password_login); log in with a token or"
                " a key",
            )
        where = session.where
        with self._attempts.attempt(where):
            role = await self._accounts.check(name, password, _host(session))
            if role is None:
                await self._attempts.failed(where, name, auth_lines.PASSWORD)
                raise request.refuse(
                    401, "user or password is wrong, or the account may not log in"
                )
            self._attempts.succeeded(where, name)
        # Nothing between the commit and the login: a token that is revoked at once is found.
        how = auth_lines.PASSWORD
        secret, login = await self._attempts.accept(where, name, role, how, label=label)
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
            login: Login | None = self._admin()
        else:
            login = await self._logins.by_token(secret, session.address)
        if login is None:
            raise request.refuse(401, "the token is unknown or has expired; log in again")
        return self._let_in(session, secret, login)

    def begin(self, session: Session, request: Request) -> Reply | None:
        """As `RequestClass` has it: of the admin token nothing needs to be asked."""
        secret = request.fields().get("token")
        if not isinstance(secret, str) or not tokens.is_admin(secret, self._admin_token):
            return None
        session.log_out()
        return self._let_in(session, secret, self._admin())

    def _admin(self) -> Login:
        return Login("root", Role.FULL, None, None, None)

    def _let_in(self, session: Session, secret: str, login: Login) -> Reply:
        session.log_in(login)
        said = login.account, session.address, f"logged in by token as {login.role.word}"
        if not self._trail.is_known(*said):
            session.spawn(self._trail.login(*said), "the login")
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
