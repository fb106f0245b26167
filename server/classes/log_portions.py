"""Portions of a command's log, as `log` answers them. No request, no table."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from dispatcher import logs
from dispatcher.records import Command
from server.delivery.clipping import marker
from server.dialects.values import rfc3339
from sysadmd.text import whole_characters

# Bytes of a log in one reply: as JSON they may grow sixfold, and must fit into a frame.
MAX_LOG: Final = 80 * 1024
DEFAULT_LOG: Final = 64 * 1024
# Lines that may be asked for: one reply holds no more.
MAX_LINES: Final = MAX_LOG
# Why bytes of a log are missing, in front of what is there and behind it.
_NOT_KEPT: Final = "are not kept: it is longer than command_log_limit, or the disk was full"
_GONE: Final = "are gone: its file was cut or deleted"


def portion(path: Path, command: Command, offset: int, limit: int) -> dict[str, Any]:
    """At most `limit` bytes of a log from `offset` on, and what is to be said of them."""
    ended = command.state in ("finished", "skipped")
    size, written = _present(path, command)
    if command.reason is None:
        start, data = logs.read(path, offset, max(0, min(limit, size - offset)))
    else:
        # Its log could not be written.
        start, data = offset, command.reason.encode()[offset : offset + limit]
    if not data and ended:
        # Whoever reads on would never come to an end.
        start = max(offset, size)
    reply: dict[str, Any] = {"offset": offset, "size": size}
    if start > offset:
        why = _NOT_KEPT if data else _GONE
        reply["text"] = marker(start - offset)
        reply["detail"] = f"{start - offset} bytes of this log {why}"
        following = start
    else:
        more = offset + len(data) < size
        if more or not ended:
            # The rest of a character comes with the next portion, unless none would fit.
            data = whole_characters(data) or (data if more else b"")
        reply["text"] = data.decode("utf-8", "replace")
        following = offset + len(data)
    complete = ended and following >= size
    time = None if written is None else rfc3339(written)
    return {**reply, "next": following, "complete": complete, "time": time}


def last_lines(path: Path, command: Command, lines: int, limit: int) -> int:
    """From which byte on a log is its last so many lines, and at most `limit` bytes."""
    size, _ = _present(path, command)
    # And one more, which says whether a line begins behind it.
    start = max(0, size - limit - 1)
    if command.reason is None:
        start, data = _end(path, start, size)
    else:
        data = command.reason.encode()[start:]
    over = max(0, len(data) - limit)
    whole = data[:over] == b"\n" if over else start == 0
    return start + over + tail_start(data[over:], lines, whole=whole)


def tail_start(data: bytes, lines: int, *, whole: bool) -> int:
    """Where in the end of a log its last so many lines begin; all that are there, if it has
    fewer.

    whole: a line begins with it. If none does, and none begins within, then with a character.
    """
    at = len(data) - data.endswith(b"\n")
    for _ in range(lines):
        before = data.rfind(b"\n", 0, at)
        if before < 0:
            break
        at = before
    else:
        return at + 1 if lines else len(data)
    if whole:
        return 0
    first = data.find(b"\n") + 1
    if 0 < first < len(data):
        return first
    return len(data) - len(whole_characters(data, from_end=True))


def _present(path: Path, command: Command) -> tuple[int, int | None]:
    """Bytes that a log has, and when the last of them came (ms since 1970; None: none did)."""
    size, written = logs.present(path)
    # What it has left behind may have written more.
    ended = command.state in ("finished", "skipped")
    return max(command.log_size or 0 if ended else 0, size), written


def _end(path: Path, start: int, size: int) -> tuple[int, bytes]:
    """Of start..size the last bytes that are there without a hole between them; and their
    place."""
    at, data = start, b""
    while True:
        found, more = logs.read(path, at + len(data), size - at - len(data))
        if not more:
            return at, data
        at, data = found, more
