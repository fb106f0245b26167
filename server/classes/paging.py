"""Long replies in pages: limit, after, next. No class of requests, no database."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec

from server.wire.protocol import Request

T = TypeVar("T")

# Entries of one reply, and bytes of their JSON: the frame limit less the envelope.
MAX_ENTRIES: Final = 1000
REPLY_SIZE: Final = 480 * 1024
# What may be added to an entry behind its page: separators, a place in a queue.
BESIDE: Final = 40


def paging(request: Request, args: dict[str, Any]) -> tuple[int, int | None]:
    """`limit` and `after` of a request. Raises: ProtocolError 400."""
    limit = number_of(request, args, "limit", MAX_ENTRIES, 1, MAX_ENTRIES)
    after = args.get("after")
    if after is None:
        return limit, None
    if not (isinstance(after, str) and after.isascii() and after.isdigit() and len(after) < 19):
        raise request.refuse(400, "args.after must be the next of an earlier reply")
    return limit, int(after)


def number_of(
    request: Request, args: dict[str, Any], key: str, default: int, least: int, most: int
) -> int:
    """A whole number among the arguments. Raises: ProtocolError 400."""
    value = args.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise request.refuse(400, f"args.{key} must be a whole number from {least} to {most}")
    return value


def first_page(entries: Iterable[tuple[int, T]], limit: int) -> tuple[list[T], dict[str, str]]:
    """As many (position, value) as one reply takes; and its `next` where there are more.

    No more of the entries are taken than that, and one.
    """
    values: list[T] = []
    size = last = 0
    for position, value in entries:
        size += len(msgspec.json.encode(value)) + BESIDE
        if len(values) == limit or (values and size > REPLY_SIZE):
            return values, {"next": str(last)}
        values.append(value)
        last = position
    return values, {}
