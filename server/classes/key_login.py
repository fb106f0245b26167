"""rpc/auth_ssl: login by a registered key, in two steps. Who gets in, login says.

Source: docs/protocol.md, "Login by key".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from server.classes.auth import token_reply
from server.login import auth_lines, keys
from server.login.attempts import Attempts
from server.login.challenge import Challenge, signer
from server.login.keys import Key
from server.login.logins import Logins
from server.login.roles import Role
from server.login.standing import uid_of
from server.session import Session
from server.wire.protocol import Reply, Request
from sysadmd.apart import apart
from sysadmd.keys import PublicKey, decode, from_text, is_proved
from sysadmd.settings import AuthSettings
from sysadmd.store import Store

# Characters of a proof, or a key: that of 4096 bits has 1,068.
TEXT_LENGTH: Final = 4096
# The same for all of it.
REFUSED: Final = "the key is not registered, or its account may not log in"


@dataclass(frozen=True, slots=True)
class _Proof:
    """What the second step has brought. key: what it was made with, if that is said."""

    signature: bytes
    key: PublicKey | None


class AuthSsl:
    """Gives a text to be signed; then exchanges the proof for a token."""

    def __init__(
        self,
        store: Store,
        attempts: Attempts,
        logins: Logins,
        settings: Callable[[], AuthSettings],
    ) -> None:
        self._store = store
        self._attempts = attempts
        self._logins = logins
        self._settings = settings
        # Held while all of the original's keys are tried: strangers have no more than one
        # processor's time of it.
        self._trying = asyncio.Lock()

    def role(self, request: Request) -> Role | None:
        return None

    async def answer(self, session: Session, request: Request) -> Reply | None:
        session.log_out()
        # The original's client asks with an empty text for its arguments.
        args = {} if request.args == "" else request.fields()
        challenge, session.challenge = session.challenge, None
        if not args.keys() & {"signature", "encrypted_string"}:
            self._attempts.check(session.where)
            session.challenge = Challenge.new(session.connection.clock())
            return Reply({"test_string": session.challenge.text})
        proof = _proof(request, args)
        if challenge is None or challenge.until < session.connection.clock():
            raise request.refuse(
                401,
                "ask for a test_string first, and sign it within 30 s; each is good for one"
                " attempt",
            )
        if proof.key is None and not self._settings().legacy_key_login:
            raise request.refuse(
                401,
                "keys of the original client are not accepted here: set"
                " auth.legacy_key_login (docs/original-client.md has what that costs)",
            )
        return await self._exchange(session, request, proof, challenge.text)

    async def _exchange(
        self, session: Session, request: Request, proof: _Proof, text: str
    ) -> Reply:
        where = session.where
        with self._attempts.attempt(where):
            key = await self._key(session, proof, text)
            if key is None:
                name = proof.key.fingerprint if proof.key is not None else "key"
                await self._attempts.failed(where, name, auth_lines.KEY)
                raise request.refuse(401, REFUSED)
            role = await self._logins.role(key.account, session.address)
            is_same = await apart(partial(uid_of, key.account), "whose key") == key.uid
            if role is None or not is_same:
                await self._attempts.failed(where, key.account, auth_lines.KEY)
                raise request.refuse(401, REFUSED)
            self._attempts.succeeded(where, key.account)
        said = f"{'legacy ' if proof.key is None else ''}key {key.name}"
        secret, login = await self._attempts.accept(
            *(where, key.account, role, auth_lines.KEY),
            said=said,
            key=key.fingerprint,
            note=lambda change: keys.use(change, key),
        )
        # Nothing between the commit and the login: a key that is revoked at once is found.
        session.log_in(login)
        return token_reply(secret, login)

    async def _key(self, session: Session, proof: _Proof, text: str) -> Key | None:
        """The registered key whose holder has given the proof."""
        public = proof.key
        if public is None:
            rsa = [key for key in keys.listed(self._store.reader) if key.kind == "rsa"]
            async with self._trying:
                return await apart(partial(signer, rsa, proof.signature, text), "a proof")
        pin = session.connection.pin
        prove = partial(is_proved, public, proof.signature, "client", pin, text)
        return (
            keys.find(self._store.reader, public.fingerprint)
            if await apart(prove, "a proof")
            else None
        )


def _proof(request: Request, args: dict[str, Any]) -> _Proof:
    """Raises: ProtocolError 400."""
    ours = "signature" in args
    name = "signature" if ours else "encrypted_string"
    try:
        signature = decode(_text(args, name))
        return _Proof(signature, from_text(_text(args, "public_key")) if ours else None)
    except ValueError as error:
        raise request.refuse(400, f"args: {error}") from error


def _text(args: dict[str, Any], key: str) -> str:
    value: object = args.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_LENGTH:
        raise ValueError(f"{key} must be a string in base64")
    return value
