"""rpc/tokens: named tokens, for `sysadmd token`. An addition to the original's classes."""

from __future__ import annotations

from typing import Any

from server.classes.paging import first_page, paging
from server.dialects.values import rfc3339
from server.login import audit, tokens
from server.login.roles import Role, parse_role
from server.session import Session
from server.sessions import Sessions
from server.wire.protocol import Reply, Request
from sysadmd.settings import parse_duration
from sysadmd.store import Store


class Tokens:
    """`add`, `list`, `revoke`."""

    def __init__(self, store: Store, sessions: Sessions) -> None:
        self._store = store
        self._sessions = sessions

    def role(self, request: Request) -> Role | None:
        # Whoever has a token may end it: `answer` looks whose it is.
        return Role.READ if request.action() == "revoke" else Role.FULL

    async def answer(self, session: Session, request: Request) -> Reply | None:
        action, args = request.action(), request.fields()
        if action == "list":
            limit, after = paging(request, args)
            listed = tokens.listed(self._store.reader, limit + 1, after or 0)
            entries = ((token.id, token_value(token)) for token in listed)
            page, more = first_page(entries, limit)
            return Reply({"tokens": page, **more})
        if action not in ("add", "revoke"):
            raise request.refuse(404, "rpc/tokens knows the actions add, list, revoke")
        name = args.get("name")
        if (
            not isinstance(name, str)
            or len(name) > tokens.NAME_LENGTH
            or not name.isprintable()
        ):
            detail = (
                f"args.name must be a printable string of 1 to {tokens.NAME_LENGTH} characters"
            )
            raise request.refuse(400, detail)
        if action == "add":
            return await self._add(session, request, name, args)
        return await self._revoke(session, request, name)

    async def _revoke(self, session: Session, request: Request, name: str) -> Reply:
        login = session.require(request, Role.READ)
        if login.token is None or tokens.name_of(self._store.reader, login.token) != name:
            # Before anybody looks whether there is such a token.
            session.require(request, Role.FULL)
        number = tokens.named(self._store.reader, name)
        entry = audit.entry(login.account, session.address, f"token revoke {name}")
        await self._sessions.end_logins(
            session,
            lambda other: other.token == number,
            "the token was revoked; log in again",
            lambda change: tokens.revoke(change, number, entry),
        )
        return Reply({"revoked": name})

    async def _add(
        self, session: Session, request: Request, name: str, args: dict[str, Any]
    ) -> Reply:
        try:
            role, seconds = parse_new_token(name, args.get("role"), args.get("expires"))
        except ValueError as error:
            raise request.refuse(400, f"args: {error}") from error
        account = session.require(request, Role.FULL).account
        note = audit.entry(account, session.address, f"token add {name}")
        secret = await self._store.write(
            lambda change: tokens.add_named(change, name, role, seconds, note)
        )
        return Reply({"token": secret, "name": name, "role": role.word})


def parse_new_token(name: str, role: object, expires: object) -> tuple[Role, int | None]:
    """Role and seconds of a token to be made. Raises: ValueError saying what is allowed."""
    if not 1 <= len(name) <= tokens.NAME_LENGTH:
        raise ValueError(f"name must have 1 to {tokens.NAME_LENGTH} characters")
    if not isinstance(role, str):
        raise ValueError("role must be read, limited or full")  # noqa: TRY004 - bad input
    if expires is None:
        return parse_role(role), None
    try:
        return parse_role(role), int(parse_duration(str(expires)))
    except ValueError as error:
        raise ValueError(f"expires: {error}") from error


def token_value(token: tokens.Token) -> dict[str, Any]:
    """A token as `list` shows it."""
    return {
        "name": token.name,
        "account": token.account,
        "role": token.role.word,
        "created": rfc3339(token.created),
        "used": rfc3339(token.used),
        "expires": None if token.expires is None else rfc3339(token.expires),
    }
