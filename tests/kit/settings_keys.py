"""The keys of settings, and of a table that is to be settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec


def leaves(settings: object, path: str = "") -> Iterator[str]:
    """The path of each value, such as `server.tls.key`."""
    table = settings
    if isinstance(settings, msgspec.Struct):
        table = {name: getattr(settings, name) for name in settings.__struct_fields__}
    if not isinstance(table, Mapping):
        yield path
        return
    for name, value in cast("Mapping[str, Any]", table).items():
        yield from leaves(value, f"{path}.{name}" if path else name)
