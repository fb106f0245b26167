"""One peer of a bridge: its login, what it says of itself, its messages. No socket.

What comes is a request or a reply, in JSON, or a message to another peer, which begins with his
id. A peer is asked who it is, and when it has logged in, whose keys it accepts; from then on
those with one of these keys see it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response

from server.bridge.legacy import Proof
from server.bridge.outbox import Outbox
from server.bridge.registry import BridgeKey
from server.bridge.switchboard import GATHER, Switchboard
from server.login.challenge import Challenge
from server.request_reading import as_value
from server.wire.connection import Connection
from server.wire.edge import outer_edge
from server.wire.envelope import error_args, frame
from server.wire.http import Gate
from server.wire.protocol import (
    FRAME_LIMIT,
    ProtocolError,
    Request,
    parse_request,
    text_frame,
)
from sysadmd.bridge_link import CHECKSUMS_ID, IDENT
from sysadmd.keys import Side, decode, from_text, is_proved
from sysadmd.settings import BridgeSettings

log = logging.getLogger(__name__)

# Characters of a request or a reply: a thousand checksums.
API_TEXT: Final = 64 * 1024
# Checksums of the keys that a peer accepts, and characters of each (MD5 in base64).
CHECKSUMS: Final = 1024
CHECKSUM_LENGTH: Final = 24
# Bytes of messages that are handed to the socket at once: what is handed out keeps its order,
# whoever's turn it would be. And of those in one turn of the loop: half a millisecond of TLS.
PORTION: Final = 64 * 1024
TURN: Final = 256 * 1024
# Wrong proofs on one connection: who holds a key has no need of a second attempt.
PROOFS: Final = 3
# Characters of an id, at most.
ID_LENGTH: Final = 64
# Characters of a proof, or a key.
TEXT_LENGTH: Final = 4096
# What a login is answered with: there is no token, and no end of it.
NO_TOKEN: Final = ["", 900]


class BridgePeer:
    """A peer from its connection to its end; the connection's peer."""

    def __init__(
        self,
        connection: Connection,
        board: Switchboard,
        settings: Callable[[], BridgeSettings],
        gate: Gate,
    ) -> None:
        self.connection = connection
        self.address = connection.address
        self.id = ""
        # The key by which it has logged in.
        self.key: BridgeKey | None = None
        self._board = board
        self._settings = settings
        self._gate = gate
        self._side: Side | None = None
        self._challenge: Challenge | None = None
        self._wrong = 0
        # What it accepts, as it is on the roster with, and as it has said last; None: it has
        # said nothing. For a while after each change another one waits.
        self._accepts: frozenset[str] | None = None
        self._newest: frozenset[str] | None = None
        self._is_resting = False
        # Until when that is to be.
        self._until = connection.clock() + settings().login_timeout
        # Messages that wait for it as frames, and bytes that it was handed in this turn of the
        # loop. It is to be told whom it sees, if that is news.
        self._outbox = Outbox()
        self._handed = 0
        self._is_due = False
        self._writing = False

    # The connection's side.

    @property
    def member(self) -> bool:
        return self.key is not None

    def http(self, request: HttpRequest, accept: Callable[[], Response]) -> Response:
        response = self._gate(self.address, request, accept)
        if response.status_code == 101:
            # Behind the response.
            ask = frame("rpc", "identify", IDENT, {})
            asyncio.get_running_loop().call_soon(self.connection.send, ask)
        return response

    def text(self, text: str) -> None:
        try:
            if text.startswith("{"):
                self._take(text)
            else:
                self._pass_on(text)
        except ProtocolError as error:
            self._refuse(error)

    def _refuse(self, error: ProtocolError) -> None:
        self.connection.send(frame(error.namespace, "error", error.id, error_args(error)))
        if isinstance(error, _Last):
            self._board.send_away(self, error.close, error.detail)

    def fail(self) -> None:
        """As `outer_edge` has it."""
        self.connection.fail()

    def _pass_on(self, text: str) -> None:
        """Raises: ProtocolError."""
        if self.key is None:
            raise ProtocolError(401, "log in first, with rpc/auth_ssl")
        destination, _, payload = text.partition("\n")
        self._board.relay(self, destination[:ID_LENGTH], payload)

    def output(self, *, live: bool = False) -> bytes | None:
        """A portion of what waits for it."""
        if not self._is_due and not self._outbox:
            return None
        if self._handed >= TURN:
            self._write_soon()
            return None
        told = self._board.news(self) if self._is_due else None
        self._is_due = False
        parts = [] if told is None else [text_frame(told)]
        parts += self._outbox.take(PORTION)
        self.connection.reserve(self._outbox.size)
        data = b"".join(parts)
        self._handed += len(data)
        return data or None

    def tick(self, now: float) -> None:
        if self._accepts is None and now >= self._until:
            timeout = self._settings().login_timeout
            what = "not logged in" if self.key is None else "no answer to what was asked"
            self._board.send_away(self, 4401, f"{what} within {timeout:g} s")

    def pong(self, said: bytes) -> None:
        """It has answered a ping."""

    def lost(self) -> None:
        if self.key is not None:
            log.info("%s: the %s %r is gone", self.address, self.key.side, self.key.name)
        self._board.leave(self)

    # The board's side.

    def tell(self) -> None:
        """Tell it whom it sees, as soon as it takes that: as it is then."""
        self._is_due = True
        self.connection.write()

    def take(self, sender: str, message: bytes) -> int:
        """Hand it a message; returns its size. Raises: ProtocolError."""
        if len(message) > FRAME_LIMIT:
            raise ProtocolError(400, f"a message has at most {FRAME_LIMIT} bytes; send parts")
        if not self._outbox.put(sender, text_frame(message)):
            raise ProtocolError(429, "the destination does not read what is sent to it")
        self.connection.reserve(self._outbox.size)
        self._write_soon()
        return len(message)

    def _write_soon(self) -> None:
        """In one write all that comes in this turn of the loop."""
        if not self._writing:
            self._writing = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._writing = False
        self._handed = 0
        self.connection.write()

    # What it says.

    def _take(self, text: str) -> None:
        """Raises: ProtocolError."""
        if len(text) > API_TEXT:
            raise ProtocolError(400, f"to the bridge itself a text has at most {API_TEXT}")
        request = as_value(lambda: parse_request(text))
        if isinstance(request, ProtocolError):
            raise request
        if request.name == "error":
            if request.id in (IDENT, CHECKSUMS_ID):
                why = f"{request.id} was refused, and can't be missed"
                self._board.send_away(self, 4403, why)
        elif request.name == "response":
            self._answered(request)
        elif request.key == "rpc/identify":
            self._reply(request, {"type": "bridge"})
        elif request.key == "rpc/auth_ssl":
            self._log_in(request)
        elif self.key is None:
            raise request.refuse(401, "log in first, with rpc/auth_ssl")
        elif request.key == "events/bridge":
            ids = self._board.roster.seen_by(self.id)
            self._reply(request, {"available_connections": ids})
        else:
            raise request.refuse(
                404, "a bridge answers rpc/identify, rpc/auth_ssl and events/bridge"
            )

    def _reply(self, request: Request, args: Any) -> None:
        self.connection.send(frame(request.namespace, "response", request.id, args))

    def _answered(self, reply: Request) -> None:
        """What it was asked. Raises: ProtocolError."""
        if reply.id == IDENT:
            side = reply.fields().get("type")
            if side not in ("server", "client"):
                raise reply.refuse(400, 'args.type must be "server" or "client"')
            self._side = side
            if self.key is not None:
                self._see_side(reply, self.key)
        elif reply.id == CHECKSUMS_ID and self.key is not None:
            self._newest = self._checksums(reply, self.key)
            if not self._is_resting:
                self._accept()

    @outer_edge
    def _accept(self) -> None:
        """Put in force what it has said last; the next of it no sooner than it is told."""
        self._is_resting = False
        key, newest = self.key, self._newest
        if key is None or newest is None or newest == self._accepts:
            return
        if self.connection.is_open:
            self._accepts, self._is_resting = newest, True
            self._board.accept(self, key, newest)
            asyncio.get_running_loop().call_later(GATHER, self._accept)

    def _see_side(self, request: Request, key: BridgeKey) -> None:
        """Is it what its key is registered for? Raises: ProtocolError."""
        if self._side not in (None, key.side):
            raise _Last(request, 403, 4403, f"the key is registered for a {key.side}")

    def _checksums(self, reply: Request, key: BridgeKey) -> frozenset[str]:
        """Raises: ProtocolError."""
        sums: object = reply.fields().get("md5_keys")
        if not isinstance(sums, list) or len(sums := cast("list[object]", sums)) > CHECKSUMS:
            raise reply.refuse(400, f"args.md5_keys must be a list of at most {CHECKSUMS}")
        texts = [one for one in sums if isinstance(one, str) and len(one) == CHECKSUM_LENGTH]
        if len(texts) < len(sums):
            raise reply.refuse(400, "args.md5_keys must be MD5 checksums in base64")
        claimed = frozenset(texts)
        if key.side == "client" and not self._board.may_claim(key, claimed):
            raise _Last(reply, 403, 4403, "a client has its own key, and no other's")
        return claimed

    def _log_in(self, request: Request) -> None:
        """Raises: ProtocolError."""
        args = {} if request.args == "" else request.fields()
        challenge, self._challenge = self._challenge, None
        now = self.connection.clock()
        if self.key is not None:
            raise request.refuse(409, "this connection is logged in")
        if not args.keys() & {"signature", "encrypted_string"}:
            self._challenge = Challenge.new(now)
            self._reply(request, {"test_string": self._challenge.text})
            return
        if challenge is None or challenge.until < now:
            raise request.refuse(
                401,
                "ask for a test_string first, and sign it within 30 s; each is good for one"
                " attempt",
            )
        try:
            if "signature" not in args:
                self._try_legacy(request, decode(_text(args, "encrypted_string")), challenge)
                return
            key = self._proved(args, challenge.text)
        except ValueError as error:
            raise request.refuse(400, f"args: {error}") from error
        self._tried(request, key)

    def _tried(self, request: Request, key: BridgeKey | None) -> None:
        """key: that it has proved. Raises: ProtocolError."""
        if key is None:
            self._wrong += 1
            refused = "the key is not registered here, or was not proved"
            if self._wrong >= PROOFS:
                log.info("%s: sent away: %d times %s", self.address, PROOFS, refused)
                raise _Last(request, 401, 4401, refused)
            raise request.refuse(401, refused)
        if not self._board.has_room(key):
            raise request.refuse(429, "there are too many connections by this key")
        self._begin(request, key)

    def _begin(self, request: Request, key: BridgeKey) -> None:
        """It is logged in."""
        self._see_side(request, key)
        self.key = key
        self.id = self._board.name(key)
        self._board.log_in(self, key)
        self.connection.admit(self._board.share(key))
        self.connection.relays = True
        who = key.side, key.name, key.fingerprint
        log.info("%s: the %s %r is here, by the key %s", self.address, *who)
        self._reply(request, NO_TOKEN)
        ask = frame("rpc", "settings", CHECKSUMS_ID, {"action": "list_ssl_checksums"})
        self.connection.send(ask)

    def _proved(self, args: dict[str, Any], text: str) -> BridgeKey | None:
        """The registered key that was proved. Raises: ValueError."""
        signature, given = decode(_text(args, "signature")), _text(args, "public_key")
        keys = self._board.keys
        key = keys.by_text.get(given)
        if key is None:
            # Written in another way than ours.
            key = keys.by_fingerprint.get(from_text(given).fingerprint)
        if key is None:
            return None
        pin = self.connection.pin
        return key if is_proved(key.public, signature, key.side, pin, text) else None

    def _try_legacy(self, request: Request, signature: bytes, challenge: Challenge) -> None:
        """Go on when the proof was tried. Raises: ProtocolError."""
        keys = self._board.keys.legacy
        if not self._settings().legacy_key_login or not keys:
            self._tried(request, None)
            return
        then = partial(self._tried_apart, request)
        self.connection.hold(True)
        self._board.proofs.add(
            Proof(keys, signature, challenge.text, lambda: self.connection.is_open, then)
        )

    @outer_edge
    def _tried_apart(self, request: Request, key: BridgeKey | None) -> None:
        try:
            # It may have been revoked meanwhile.
            here = key is not None and key.fingerprint in self._board.keys.by_fingerprint
            self._tried(request, key if here else None)
        except ProtocolError as error:
            self._refuse(error)
        self.connection.hold(False)


class _Last(ProtocolError):
    """Refuses a request, and ends the connection. close: the code of that."""

    def __init__(self, request: Request, code: int, close: int, detail: str) -> None:
        super().__init__(code, detail, namespace=request.namespace, id=request.id)
        self.close = close


def _text(args: dict[str, Any], key: str) -> str:
    value: object = args.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_LENGTH:
        raise ValueError(f"{key} must be a string in base64")
    return value
