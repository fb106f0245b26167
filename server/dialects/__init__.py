"""What is said as JSON: in the document's words, and in those of the original client.

All that a dialect decides is decided here; the rest of the server calls it and asks no further.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from server.dialects.documented import Documented
from server.dialects.original import CLIENT_ID, Original

Dialect = Documented

DIALECTS: Final[Mapping[str, Dialect]] = {
    "documented": Documented(),
    "sysadm-client": Original(),
}


def spoken_by(first_request_id: str, otherwise: Dialect) -> Dialect:
    """The dialect of a client, known by the id of its first request."""
    return DIALECTS["sysadm-client"] if first_request_id == CLIENT_ID else otherwise
