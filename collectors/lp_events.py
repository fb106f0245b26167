"""What the journal keeps of a Life Preserver event: pure bytes to value."""

from __future__ import annotations

from typing import Final

import msgspec


class LifePreserverTold(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of an event: the document's three keys, and the line's date as it stands there.

    date: "" where the line has none, where there is no line (progress), and of events that were
    told before it was kept.
    """

    message: str = ""
    priority: str = ""
    kind: str = msgspec.field(name="class", default="")
    date: str = ""


encode: Final = msgspec.json.Encoder().encode
decode: Final = msgspec.json.Decoder(LifePreserverTold).decode


def documented(body: bytes) -> bytes:
    """The document's keys alone."""
    told = decode(body)
    return encode(msgspec.structs.replace(told, date="")) if told.date else body
