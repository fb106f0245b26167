"""rpc/settings: the registry of keys. Its actions are the original's, but for `list_keys`."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from server.classes.paging import first_page, paging
from server.dialects.values import rfc3339
from server.login import audit, keys
from server.login.accounts import in_thread
from server.login.keys import Key
from server.login.logins import Logins
from server.login.roles import Login, Role
from server.login.standing import uid_of
from server.session import Session
from server.sessions import Sessions
from server.wire.protocol import Reply, Request
from sysadmd.errors import Conflict, NotFound
from sysadmd.journal import Transaction
from sysadmd.keys import PublicKey, as_text, from_text
from sysadmd.store import Store
from sysadmd.text import quoted

ACTIONS: Final = (
    *("register_ssl_cert", "list_ssl_certs", "list_ssl_checksums", "revoke_ssl_cert"),
    "list_keys",
)


class KeyRegistry:
    """An account's keys are its own; those of others need the role full."""

    def __init__(self, store: Store, sessions: Sessions, logins: Logins) -> None:
        self._store = store
        self._sessions = sessions
        self._logins = logins

    def role(self, request: Request) -> Role | None:
        return Role.READ

    async def answer(self, session: Session, request: Request) -> Reply | None:
        action = request.action()
        if action not in ACTIONS:
            raise request.refuse(404, f"rpc/settings knows the actions {', '.join(ACTIONS)}")
        login = session.require(request, Role.READ)
        if action == "register_ssl_cert":
            return await self._register(session, request, login)
        if action == "revoke_ssl_cert":
            return await self._revoke(session, request, login)
        if action == "list_keys":
            limit, after = paging(request, request.fields())
            found = ((key.id, key_value(key)) for key in self._listed(login, after or 0))
            page, more = first_page(found, limit)
            return Reply({"keys": page, **more})
        if action == "list_ssl_checksums":
            return Reply({"md5_keys": [key.public.checksum for key in self._listed(login)]})
        users: dict[str, dict[str, str]] = {}
        for key in self._listed(login):
            users.setdefault(key.account, {})[as_text(key.pem)] = _details(key)
        return Reply(users)

    def _listed(self, login: Login, after: int = 0) -> list[Key]:
        """The keys that a login may see."""
        if login.role is Role.FULL:
            return keys.listed(self._store.reader, None, after)
        # A token's name is no account, though one may be called so.
        return keys.listed(self._store.reader, login.account, after) if login.system else []

    async def _register(self, session: Session, request: Request, login: Login) -> Reply:
        key = _public_key(request)
        nickname, email = _label(request, "nickname"), _label(request, "email")
        account = _label(request, "user") or login.account
        if account != login.account or not login.system:
            session.require(request, Role.FULL)
        uid = await in_thread(partial(uid_of, account), "whose key")
        if uid is None:
            raise NotFound(
                f"this machine has no account {quoted(account)} for the key, or its directory"
                " is away; name one with args.user (sysadmctl key register --user)"
            )
        if await self._logins.role(account, session.address) is None:
            raise Conflict(
                f"{quoted(account)} may not log in here, so its key could not either"
            )
        session.require_still(request, login)
        entry = audit.entry(
            login.account,
            session.address,
            f"key register {key.fingerprint} {nickname!r} for {account}",
        )

        def change(change: Transaction) -> None:
            keys.register(change, key, account, uid, nickname, email)
            entry(change)

        await self._store.write(change)
        if account == login.account:
            session.known_by(key.fingerprint)
        return Reply({})

    async def _revoke(self, session: Session, request: Request, login: Login) -> Reply:
        named = _label(request, "fingerprint")
        fingerprint = named or _public_key(request).fingerprint
        key = keys.find(self._store.reader, fingerprint)
        if key is None or key.account != login.account or not login.system:
            # Before anybody looks whether there is such a key.
            session.require(request, Role.FULL)
        key = keys.found(self._store.reader, fingerprint)
        if (user := _label(request, "user")) and user != key.account:
            raise NotFound(f"{quoted(user)} has no such key; it is registered for another one")
        entry = audit.entry(
            login.account, session.address, f"key revoke {key.name} of {key.account}"
        )

        def change(change: Transaction) -> None:
            keys.revoke(change, fingerprint)
            entry(change)

        await self._sessions.end_logins(
            session, lambda other: other.key == fingerprint, "the key was revoked", change
        )
        return Reply({})


def key_value(key: Key) -> dict[str, Any]:
    """A key as `list_keys` shows it."""
    return {
        "fingerprint": key.fingerprint,
        "kind": key.kind,
        "account": key.account,
        "nickname": key.nickname,
        "email": key.email,
        "created": rfc3339(key.created),
        "used": None if key.used is None else rfc3339(key.used),
        "lost": None if key.lost is None else rfc3339(key.lost),
    }


def _details(key: Key) -> str:
    """In the lines of the original, which its client shows one by one."""
    lines = {
        "Nickname": key.nickname,
        "Email": key.email,
        "Date Registered": rfc3339(key.created),
        "Fingerprint": key.fingerprint,
    }
    return "\n".join(f"{name}: {value}" for name, value in lines.items())


def _public_key(request: Request) -> PublicKey:
    """Raises: ProtocolError 400."""
    value: object = request.fields().get("pub_key")
    if not isinstance(value, str):
        raise request.refuse(400, "args.pub_key must be the base64 of a public key in PEM")
    try:
        return from_text(value)
    except ValueError as error:
        raise request.refuse(400, f"args.pub_key: {error}") from error


def _label(request: Request, key: str) -> str:
    """A short text that may be missing. Raises: ProtocolError 400."""
    value: object = request.fields().get(key, "")
    if not isinstance(value, str) or len(value) > keys.TEXT_LENGTH or not value.isprintable():
        raise request.refuse(
            400,
            f"args.{key} must be a printable string of at most {keys.TEXT_LENGTH} characters",
        )
    return value
