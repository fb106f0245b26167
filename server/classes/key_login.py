"""rpc/auth_ssl: login by a registered key, in two steps. Who gets in, login says.

Source: docs/protocol.md, "Login by key".
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from server.classes.auth import token_reply
from server.login import auth_lines, keys
from server.login.accounts import in_thread
from server.login.attempts import Attempts
from server.login.challenge import Challenge
from server.login.keys import Key
from server.login.logins import NO_LEGACY, Logins
from server.login.roles import Role
from server.login.standing import uid_of
from server.session import Session
from server.wire.protocol import Reply, Request
from sysadmd.journal import Transaction
from sysadmd.keys import PublicKey, decode, from_text, is_proved
from sysadmd.settings import AuthSettings
from sysadmd.store import Store

log = logging.getLogger(__name__)

# Characters of a proof, or a key: that of 4096 bits has 1,068.
TEXT_LENGTH: Final = 4096
# The same for all of it.
REFUSED: Final = "the key is not registered, or its account may not log in"
# Whose name a failure has that is no account's; no account has a slash in it.
NOBODY: Final = "key/"
# What keeps the original client from staying is logged again after so long; s.
AGAIN: Final = 3600.0


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
        # Held while a proof is checked: of strangers' attempts there is one at a time.
        self._checking = asyncio.Lock()
        # When it was logged last that the original's keys are not accepted.
        self._said = -AGAIN

    def role(self, request: Request) -> Role | None:
        return None

    async def answer(self, session: Session, request: Request) -> Reply | None:
        session.log_out()
        # The original's client asks with an empty text for its arguments.
        args = {} if request.args == "" else request.fields()
        challenge, session.challenge = session.challenge, None
        self._attempts.check(session.where)
        now = session.connection.clock()
        if not args.keys() & {"signature", "encrypted_string"}:
            session.challenge = Challenge.new(now)
            return Reply({"test_string": session.challenge.text})
        if challenge is None or challenge.until < now:
            raise request.refuse(
                401,
                "ask for a test_string first, and sign it within 30 s; each is good for one"
                " attempt",
            )
        ours = "signature" in args
        if not ours and session.connection.relayed:
            # It signs whatever the other side sends, and whoever relays could be that.
            raise request.refuse(401, "over a bridge only keys of our own form log in")
        if not ours and not self._settings().legacy_key_login:
            self._say(session.address)
            raise request.refuse(
                401,
                "keys of the original client are not accepted here: set"
                " auth.legacy_key_login (docs/original-client.md has what that costs)",
            )
        if ours and not session.connection.pin:
            raise request.refuse(
                401,
                "a key can't be proved here: this is no TLS connection, or the server's"
                " certificate can't be read; log in otherwise",
            )
        check = partial(self._ours if ours else self._legacy, session, args, challenge.text)
        return await self._exchange(session, request, check)

    async def _exchange(
        self, session: Session, request: Request, check: Callable[[], Awaitable[_Outcome]]
    ) -> Reply:
        """A token for who has given a proof. Raises: ProtocolError 400, 401; Blocked, Busy."""
        where = session.where
        try:
            async with self._checking:
                with self._attempts.attempt(where):
                    outcome = await check()
        except ValueError as error:
            raise request.refuse(400, f"args: {error}") from error
        key = outcome.proved
        if key is None:
            await self._attempts.failed(where, outcome.name, auth_lines.KEY)
            raise request.refuse(401, REFUSED)
        # This may take PAM its time, and is no guess: the proof was right.
        uid = await in_thread(partial(uid_of, key.account), "whose key")
        role = await self._logins.role(key.account, session.address)
        if role is None or uid != key.uid:
            raise request.refuse(401, REFUSED)
        self._attempts.succeeded(where, key.account)
        secret, login = await self._attempts.accept(
            *(where, key.account, role, auth_lines.KEY),
            said=f"{'legacy ' if key.kind == 'rsa' else ''}key {key.name}",
            key=key.fingerprint,
            note=partial(self._use, key),
        )
        # Nothing between the commit and the login: a key that is revoked at once is found.
        session.log_in(login)
        return token_reply(secret, login)

    def _use(self, key: Key, change: Transaction) -> None:
        """Raises: KeyRevoked, also if its form of login is not allowed any more."""
        if key.kind == "rsa" and not self._settings().legacy_key_login:
            raise keys.KeyRevoked(NO_LEGACY)
        keys.use(change, key)

    async def _ours(self, session: Session, args: dict[str, Any], text: str) -> _Outcome:
        """Raises: ValueError saying what is wrong with the arguments."""
        signature, given = decode(_text(args, "signature")), _text(args, "public_key")
        pin = session.connection.pin

        def check() -> tuple[PublicKey, bool]:
            public = from_text(given)
            return public, is_proved(public, signature, "client", pin, text)

        public, proved = await in_thread(check, "a proof")
        relayed = session.connection.relayed
        if relayed is not None and public.fingerprint != relayed.key:
            # Else who has stolen this server's key could hand on the proof of another.
            raise ValueError(
                "public_key: over a bridge the key that calls logs in, and no other"
            )
        key = keys.find(self._store.reader, public.fingerprint)
        name = key.account if key is not None else NOBODY + public.fingerprint
        return _Outcome(key if proved else None, name)

    async def _legacy(self, session: Session, args: dict[str, Any], text: str) -> _Outcome:
        """Raises: ValueError saying what is wrong with the arguments."""
        signature = decode(_text(args, "encrypted_string"))
        rsa = [key for key in keys.listed(self._store.reader) if key.kind == "rsa"]
        proved = await in_thread(partial(keys.signed_by, rsa, signature, text), "a proof")
        return _Outcome(proved, NOBODY)

    def _say(self, address: str) -> None:
        now = time.monotonic()
        if now - self._said >= AGAIN:
            self._said = now
            log.warning(
                "%s: an original client was refused: it asks its user for a password after each"
                " cut unless auth.legacy_key_login is true (docs/original-client.md has what"
                " that costs)",
                address,
            )


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Whose proof it was, if it was right; and in whose name it counts if not."""

    proved: Key | None
    name: str


def _text(args: dict[str, Any], key: str) -> str:
    value: object = args.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_LENGTH:
        raise ValueError(f"{key} must be a string in base64")
    return value
