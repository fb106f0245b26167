"""The envelope of replies, errors and events: values in, JSON out.

Source: events.rst; docs/protocol.md for errors.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import msgspec

from server.wire.protocol import ProtocolError

# Characters of an error's detail: it may quote what was asked for.
DETAIL: Final = 1024

_encode: Final = msgspec.json.Encoder().encode


def frame(namespace: str, name: str, id: str, args: Any) -> bytes:
    """The JSON text of a frame with no more than the four keys."""
    return _encode({"namespace": namespace, "name": name, "id": id, "args": args})


def error_args(error: ProtocolError) -> dict[str, Any]:
    """`args` of an error."""
    phrase = HTTPStatus(error.code).phrase
    return {"code": error.code, "message": phrase, "detail": error.detail[:DETAIL]}
