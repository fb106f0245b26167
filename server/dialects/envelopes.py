"""The envelopes of replies and errors in the two dialects. Values in, JSON text out.

Source: docs/protocol.md (`documented`); the original server as its Qt client knows it
(`sysadm-client`), its defects excepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

from server.delivery.forms import Dialect
from server.wire.protocol import ProtocolError, Request

# Characters of an error's detail: it may quote what was asked for.
DETAIL: Final = 1024

_encode: Final = msgspec.json.Encoder().encode


class Envelope:
    """How a dialect wraps what is said."""

    # Without `args` the request's whole object is taken for them.
    args_by_default = False
    # The `id` of events.
    event_id = "none"

    def names(self, names: list[str]) -> list[str] | str:
        """The systems in the reply to a subscription."""
        return names

    def reply(self, request: Request, args: Any) -> bytes:
        return _encode(
            {"namespace": request.namespace, "name": "response", "id": request.id, "args": args}
        )

    def error(self, error: ProtocolError) -> bytes:
        args = {
            "code": error.code,
            "message": phrase(error.code),
            "detail": error.detail[:DETAIL],
        }
        return _encode(
            {"namespace": error.namespace, "name": "error", "id": error.id, "args": args}
        )


class _Original(Envelope):
    args_by_default = True
    event_id = ""

    def names(self, names: list[str]) -> list[str] | str:
        # It named the last one only; all are named, and a single one in its form.
        return names[0] if len(names) == 1 else names

    def reply(self, request: Request, args: Any) -> bytes:
        # A request without a string id was answered under its own name.
        name = "response" if request.numbered else request.name
        return _encode(
            {"namespace": request.namespace, "name": name, "id": request.id, "args": args}
        )

    def error(self, error: ProtocolError) -> bytes:
        args = {
            "code": str(error.code),
            "message": phrase(error.code),
            "detail": error.detail[:DETAIL],
        }
        return _encode({"namespace": "error", "name": "error", "id": error.id, "args": args})


_ENVELOPES: Final[Mapping[Dialect, Envelope]] = {
    "documented": Envelope(),
    "sysadm-client": _Original(),
}


def envelope(dialect: Dialect) -> Envelope:
    """The envelope of a dialect."""
    return _ENVELOPES[dialect]


def phrase(code: int) -> str:
    """`400` -> `Bad Request`."""
    return HTTPStatus(code).phrase
