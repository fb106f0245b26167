"""How long a text is as JSON. Apart from `text`, which needs no JSON: that is slow to load."""

from __future__ import annotations

from typing import Final

import msgspec

_encode: Final = msgspec.json.Encoder().encode


def json_size(text: str) -> int:
    """Bytes of this text inside a JSON string, escapes included, quotes not."""
    return len(_encode(text)) - 2
