"""rpc/identify, rpc/auth_token, rpc/auth_clear, rpc/query: who asks, and for what."""

from __future__ import annotations

import socket
import time
from typing import Final

from server.login import tokens
from server.login.audit import Audit
from server.login.roles import Login, Role
from server.session import Session
from server.wire.protocol import Reply, Request
from sysadmd import __version__

# What an unlimited token's reply says for "seconds left": a century.
FOR_EVER: Final = 100 * 366 * 86400


def token_reply(secret: str, login: Login) -> Reply:
    """`["<token>", <seconds left>]`."""
    if login.expires is None:
        return Reply([secret, FOR_EVER])
    return Reply([secret, max(0, round(login.expires / 1000 - time.time()))])


class Identify:
    """Anyone may ask what speaks here."""

    def role(self, request: Request) -> Role | None:
        return None

    async def answer(self, session: Session, request: Request) -> Reply | None:
        return Reply(
            {"type": "server", "hostname": socket.gethostname(), "version": __version__}
        )


class AuthToken:
    """Login by a token; always served, whatever the address has done before."""

    def __init__(self, admin_token: str, trail: Audit) -> None:
        self._admin_token = admin_token
        self._trail = trail

    def role(self, request: Request) -> Role | None:
        return None

    async def answer(self, session: Session, request: Request) -> Reply | None:
        session.log_out()
        secret = request.fields().get("token")
        if not isinstance(secret, str):
            raise request.refuse(400, "args.token must be a string")
        if tokens.is_admin(secret, self._admin_token):
            login: Login | None = Login("root", Role.FULL, None, None, None)
        else:
            login = tokens.find(session.desk.store.reader, secret)
        if login is None:
            raise request.refuse(401, "the token is unknown or has expired; log in again")
        session.log_in(login)
        how = f"logged in by token as {login.role.word}"
        session.desk.spawn(self._trail.login(login.account, session.address, how))
        session.renew()
        assert session.login is not None
        return token_reply(secret, session.login)


class AuthClear:
    """Logged out; there is no reply."""

    def role(self, request: Request) -> Role | None:
        return None

    async def answer(self, session: Session, request: Request) -> Reply | None:
        session.log_out()
        return None


class Query:
    """The classes that this account can use here, and how."""

    def role(self, request: Request) -> Role | None:
        return Role.READ

    async def answer(self, session: Session, request: Request) -> Reply | None:
        full = session.require(request, Role.READ).role >= Role.FULL
        level = "read/write" if full else "read"
        classes = {"rpc/dispatcher": level, "rpc/logs": "read"}
        if full:
            classes["rpc/clients"] = "read"
            classes["rpc/tokens"] = "read/write"
        return Reply(classes)
