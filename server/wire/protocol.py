"""Requests, replies and frames: text in, values out, and back. No socket, no await, no state.

Source: contract of the wire (docs/protocol.md), events.rst "Event Request Parameters".
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict, cast

import msgspec

from sysadmd.errors import SysadmdError

# No frame from the server is longer. Clients' libraries refuse messages above 1 MiB by default;
# half of it leaves room for all that counts differently.
FRAME_LIMIT: Final = 512 * 1024
# Given to TLS at once: it takes all of it or says nothing, and a client that takes so much in a
# minute is alive, however slow.
SEND_SIZE: Final = 32 * 1024
# A request nested deeper is no request of ours; each level costs stack in the decoder.
MAX_DEPTH: Final = 64
# Objects and lists of a request; brackets within its strings count, of which the text of a job
# has at most half as many. A mebibyte can hold half a million, which the decoder makes, and
# frees, in one go: 30 ms each time for everybody.
MAX_CONTAINERS: Final = 131_072
# Digits of a number. No field needs more than 19; without a bound, 4,300 digits of an integer
# cost quadratic time and more raise in Python itself.
MAX_DIGITS: Final = 32

# Characters of id, namespace and name: they are echoed, and a frame is bounded.
MAX_NAME: Final = 1024

# Half of a character, and an escape that may be one: two of them are a character.
_HALF: Final = re.compile(r"[\ud800-\udfff]")
_HALF_WRITTEN: Final = re.compile(r"\\u[dD][89a-fA-F]")
_TOO_DEEP: Final = f"nested deeper than {MAX_DEPTH} levels; send a flatter object"

# From an error's word to its code on the wire; any other is a 503.
CODES: Final = {
    "nothing-found": 204,
    "bad-request": 400,
    "key-revoked": 401,
    "not-found": 404,
    "conflict": 409,
    "busy": 429,
    "blocked": 429,
    "crowded": 429,
    "stopping": 503,
    "no-space": 507,
    "store-lost": 507,
    "damaged": 507,
}


class ProtocolError(Exception):
    """A request that gets an error reply. `detail` says what to do."""

    def __init__(
        self, code: int, detail: str, *, namespace: str = "error", id: str = ""
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.namespace = namespace
        self.id = id


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `key` is namespace/name in lower case; `namespace` as the client wrote it.

    numbered: the client gave an `id` that is a string.
    """

    namespace: str
    name: str
    id: str
    args: Any
    numbered: bool = True
    key: str = field(init=False)

    def __post_init__(self) -> None:
        # Asked for again and again.
        object.__setattr__(self, "key", f"{self.namespace}/{self.name}".lower())

    @property
    def decides(self) -> bool:
        """Does its answer decide who the client is?"""
        return self.key.startswith("rpc/auth")

    def fields(self) -> dict[str, Any]:
        """`args` as an object. Raises: ProtocolError 400 when it is something else."""
        args: object = self.args
        if not isinstance(args, dict):
            raise self.refuse(400, "args must be an object")
        return cast("dict[str, Any]", args)

    def action(self) -> str:
        """The `action` among the arguments, in lower case. Raises: ProtocolError 400."""
        action = self.fields().get("action")
        if not isinstance(action, str):
            raise self.refuse(400, "args.action is missing; name the action as a string")
        return action.lower()

    def refuse(self, code: int, detail: str) -> ProtocolError:
        """The error that answers this request."""
        return ProtocolError(code, detail, namespace=self.namespace, id=self.id)

    def refuse_for(self, error: SysadmdError) -> ProtocolError:
        """The error that answers this request when a lower room could not do it."""
        return self.refuse(CODES.get(error.code, 503), str(error))


@dataclass(frozen=True, slots=True)
class Reply:
    """What answers a request: the reply's `args`, and JSON texts of frames to follow it."""

    args: Any
    then: tuple[bytes, ...] = ()


def text_frame(payload: bytes) -> bytes:
    """An unmasked, final text frame (RFC 6455, 5.2); one serves any number of clients."""
    size = len(payload)
    if size < 126:
        return b"\x81" + size.to_bytes(1, "big") + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def parse_request(text: str, *, args_by_default: bool = False) -> Request:
    """A request from a text frame. Takes time in proportion to the text, whatever is in it.

    args_by_default: without `args` the whole object is taken for them, as originally.
    Raises: ProtocolError 400.
    """
    containers = text.count("[") + text.count("{")
    if containers > MAX_CONTAINERS:
        raise ProtocolError(400, f"more than {MAX_CONTAINERS} objects and lists; ask in parts")
    try:
        body = _decode(text)
    except _Flaw as flaw:
        raise ProtocolError(400, str(flaw), **_flawed_echoes(text)) from flaw
    except RecursionError as error:
        raise ProtocolError(400, _TOO_DEEP) from error
    except ValueError as error:
        raise ProtocolError(400, f"not a JSON object: {error}") from error
    if not isinstance(body, dict):
        raise ProtocolError(400, "send one JSON object with namespace, name, id and args")
    fields = cast("dict[str, Any]", body)
    if containers > MAX_DEPTH and _is_deep(fields):
        raise ProtocolError(400, _TOO_DEEP, **_echoes(fields))
    identity = fields.get("id")
    id = identity if isinstance(identity, str) else ""
    missing = [
        key
        for key in ("namespace", "name")
        if not isinstance(fields.get(key), str) or not fields[key]
    ]
    if missing:
        detail = f"{' and '.join(missing)} must be a non-empty string"
        raise ProtocolError(400, detail, id=_echo(identity))
    namespace = cast("str", fields["namespace"])
    if max(len(id), len(namespace), len(fields["name"])) > MAX_NAME:
        detail = f"id, namespace and name have at most {MAX_NAME} characters each"
        raise ProtocolError(400, detail, **_echoes(fields))
    args = fields.get("args", fields if args_by_default else {})
    return Request(namespace, fields["name"], id, args, isinstance(identity, str))


class _Flaw(Exception):
    """It is JSON, and can't be meant so."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # Taken as it is, one of two jobs would be gone unseen.
        keys = [key for key, _ in pairs]
        doubled = next(key for key, count in Counter(keys).items() if count > 1)
        raise _Flaw(
            f"the key {doubled[:MAX_NAME]!r} stands twice in one object; only one can be meant"
        )
    return found


def _whole(digits: str) -> int:
    _check_digits(digits)
    return int(digits)


def _real(digits: str) -> float:
    _check_digits(digits)
    number = float(digits)
    if math.isinf(number):
        raise _Flaw(f"the number {digits} is out of range")
    return number


def _check_digits(digits: str) -> None:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise _Flaw(f"a number has more than {MAX_DIGITS} digits")


def _constant(word: str) -> float:
    raise _Flaw(f"{word} is no JSON; a number is written in digits")


_decode_strictly: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_whole, parse_float=_real, parse_constant=_constant
).decode
# What has a flaw, only to see who asked: of numbers anything will do that is no text.
_decode_anyway: Final = json.JSONDecoder(parse_int=len, parse_float=len).decode


def _decode(text: str) -> object:
    """Raises: _Flaw, ValueError if it is no JSON, RecursionError."""
    body: object = _decode_strictly(text)
    if _HALF_WRITTEN.search(text):
        try:
            msgspec.json.encode(body)
        except UnicodeEncodeError as error:
            raise _Flaw(
                "a string has half of a character (\\ud800 to \\udfff) in it"
            ) from error
    return body


def _is_deep(body: dict[str, Any]) -> bool:
    containers: list[dict[str, Any] | list[Any]] = [body]
    for _ in range(MAX_DEPTH):
        containers = [
            inner
            for each in containers
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not containers:
            return False
    return True


class _Echoes(TypedDict):
    namespace: str
    id: str


def _echoes(fields: Mapping[str, object]) -> _Echoes:
    """What an error gives back of a request."""
    return _Echoes(
        namespace=_echo(fields.get("namespace")) or "error", id=_echo(fields.get("id"))
    )


def _echo(value: object) -> str:
    """Of what is too long, or no text, nothing."""
    if not isinstance(value, str) or len(value) > MAX_NAME or _HALF.search(value):
        return ""
    return value


def _flawed_echoes(text: str) -> _Echoes:
    """The same, of a text in which something is wrong."""
    try:
        body: object = _decode_anyway(text)
    except (ValueError, RecursionError):
        body = None
    return _echoes(cast("dict[str, object]", body) if isinstance(body, dict) else {})
