"""Requests, replies and frames: text in, values out, and back. No socket, no await, no state.

Source: contract of the wire (docs/protocol.md), events.rst "Event Request Parameters".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec

from sysadmd.errors import SysadmdError

# No frame from the server is longer. Clients' libraries refuse messages above 1 MiB by default;
# half of it leaves room for all that counts differently.
FRAME_LIMIT: Final = 512 * 1024
# A request nested deeper is no request of ours; each level costs stack in the decoder.
MAX_DEPTH: Final = 64
# Digits of a number. No field needs more than 19; without a bound, 4,300 digits of an integer
# cost quadratic time and more raise in Python itself.
MAX_DIGITS: Final = 32

# Characters of id, namespace and name: they are echoed, and a frame is bounded.
MAX_NAME: Final = 1024

_LONG_NUMBER = re.compile(rf"[0-9.]{{{MAX_DIGITS + 1}}}")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKETS = re.compile(r"[\[\]{}]")


# From an error's word to its code on the wire; any other is a 503.
CODES: Final = {
    "bad-request": 400,
    "not-found": 404,
    "conflict": 409,
    "busy": 429,
    "stopping": 503,
    "no-space": 507,
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

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}".lower()

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
    """A request from a text frame.

    args_by_default: without `args` the whole object is taken for them, as originally.
    Raises: ProtocolError 400.
    """
    if _too_deep(text):
        raise ProtocolError(
            400, f"nested deeper than {MAX_DEPTH} levels; send a flatter object"
        )
    try:
        body: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise ProtocolError(400, f"not a JSON object: {error}") from error
    if not isinstance(body, dict):
        raise ProtocolError(400, "send one JSON object with namespace, name, id and args")
    fields = cast("dict[str, Any]", body)
    identity = fields.get("id")
    id = identity if isinstance(identity, str) else ""
    missing = [
        key
        for key in ("namespace", "name")
        if not isinstance(fields.get(key), str) or not fields[key]
    ]
    if missing:
        raise ProtocolError(400, f"{' and '.join(missing)} must be a non-empty string", id=id)
    namespace = cast("str", fields["namespace"])
    if max(len(id), len(namespace), len(fields["name"])) > MAX_NAME:
        raise ProtocolError(
            400,
            f"id, namespace and name have at most {MAX_NAME} characters each",
            namespace=namespace if len(namespace) <= MAX_NAME else "error",
            id=id if len(id) <= MAX_NAME else "",
        )
    if _LONG_NUMBER.search(text) and _has_long_number(text):
        raise ProtocolError(
            400, f"a number has more than {MAX_DIGITS} digits", namespace=namespace, id=id
        )
    doubled = _doubled_key(text)
    if doubled is not None:
        detail = (
            f"the key {doubled[:MAX_NAME]!r} stands twice in one object; only one can be meant"
        )
        raise ProtocolError(400, detail, namespace=namespace, id=id)
    args = fields.get("args", fields if args_by_default else {})
    return Request(namespace, fields["name"], id, args, isinstance(identity, str))


def _too_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _BRACKETS.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


class _Doubled(Exception):
    """A key stands twice in one object."""


def _pairs(pairs: list[tuple[str, object]]) -> None:
    keys = {key for key, _ in pairs}
    for key, _ in pairs if len(keys) < len(pairs) else ():
        if key not in keys:
            raise _Doubled(key)
        keys.remove(key)


_look_for_doubles: Final = json.JSONDecoder(object_pairs_hook=_pairs, strict=False).decode


def _doubled_key(text: str) -> str | None:
    """A key that some object has twice: decoded, one of two jobs would be gone unseen."""
    try:
        _look_for_doubles(text)
    except _Doubled as error:
        return str(error)
    return None


def _has_long_number(text: str) -> bool:
    return _LONG_NUMBER.search(_STRING.sub('""', text)) is not None
