"""Times as the wire writes them: RFC 3339, UTC, `Z`. Source: contract of the wire."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


# Events of one commit share their moment, those of one job its times.
@lru_cache(maxsize=4096)
def rfc3339(ms: int) -> str:
    """Milliseconds since 1970 as `2026-11-24T18:00:02.123Z`."""
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local_time(ms: int) -> str:
    """As the original wrote times: local, whole seconds, no offset."""
    moment = datetime.fromtimestamp(ms / 1000, UTC).astimezone()
    return moment.replace(tzinfo=None).isoformat(timespec="seconds")
