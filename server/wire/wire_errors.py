"""The one table from an error's word to its code on the wire."""

from __future__ import annotations

from typing import Final

from server.wire.protocol import ProtocolError, Request
from sysadmd.errors import SysadmdError

CODES: Final = {
    "bad-request": 400,
    "not-found": 404,
    "conflict": 409,
    "busy": 429,
    "stopping": 503,
    "no-space": 507,
}


def as_protocol_error(error: SysadmdError, request: Request) -> ProtocolError:
    """The error reply for an error of a lower room."""
    return request.refuse(CODES.get(error.code, 503), str(error))
