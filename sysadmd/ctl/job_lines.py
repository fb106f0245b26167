"""What events of jobs say that was not said yet: a line where something changed, and output.

Events of a job repeat: each tells all its commands, and at their ends their whole logs. No
connection, no terminal. Source: docs/protocol.md, "dispatcher".
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sysadmd.ctl.bar import mapping
from sysadmd.ctl.event_text import entries, job_id, running

# Jobs that are remembered; of one that was forgotten what was told before is not known.
_REMEMBERED: Final = 4096
_MARKER: Final = re.compile(r"\[\.\.\. (\d{1,18}) bytes left out \.\.\.\]\n")
# Keys of process_details that are never a command's own.
_RESERVED: Final = frozenset(
    (
        *("state", "process_id", "time_started", "time_finished"),
        *("cmd_list", "current_cmd", "commands", "result"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobNews:
    """What is new in an event. is_line: more than output or progress. output: text in order.

    missing: there was output before that was not seen. ended: none follows of that command.
    """

    id: str
    is_line: bool
    output: str = ""
    missing: bool = False
    ended: bool = False


@dataclass(slots=True)
class _Known:
    """What was told of a job. shown: by command, bytes and characters of its log."""

    state: str = ""
    command: int | None = None
    shown: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])


class JobLines:
    """The jobs whose events came by."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, _Known] = OrderedDict()

    def take(self, args: Mapping[str, Any]) -> JobNews:
        """What is new in an event."""
        id, state = job_id(args), args.get("state")
        state = state if isinstance(state, str) else ""
        if state == "pending":
            # An id may be used again.
            self._jobs.pop(id, None)
        known = self._jobs.pop(id, None)
        number = running(args)
        joined = known is None and state != "pending"
        known = known or _Known()
        is_line = (state, number) != (known.state, known.command)
        moved = is_line and known.state == "running"
        known.state, known.command = state, number
        output, missing = _output(args, known, number, joined=joined)
        if state != "finished":
            self._jobs[id] = known
            if len(self._jobs) > _REMEMBERED:
                self._jobs.popitem(last=False)
        return JobNews(
            id=id,
            is_line=is_line,
            output=output,
            missing=missing,
            ended=moved or state == "finished",
        )


def _output(
    args: Mapping[str, Any], known: _Known, number: int | None, *, joined: bool
) -> tuple[str, bool]:
    """The text that was not shown yet, and whether there was some that nobody saw."""
    details, found = mapping(args.get("process_details")), ""
    missing = False
    for at, entry in enumerate(entries(args)):
        size, text = _size(entry), _log(details, entry)
        bytes_shown, characters = known.shown.get(at, (0, 0))
        if at == number:
            # What was written since the last event.
            missing = missing or (joined and size > len(text.encode("utf-8", "replace")))
            found += text
            known.shown[at] = (size, characters + len(text))
        elif entry.get("state") == "finished":
            missing = missing or (joined and size > 0)
            if not joined:
                found += unshown(text, size, bytes_shown, characters)
            known.shown[at] = (size, len(text))
    return found, missing


def unshown(text: str, size: int, bytes_shown: int, characters: int) -> str:
    """Of a whole log what was not shown yet, as an event tells it.

    size: bytes of the log, of which the first `bytes_shown` were shown, `characters` long. A
    log that is too long stands there with its middle left out, and a marker says how much.
    """
    needed = size - bytes_shown
    if needed <= 0:
        return ""
    data = text.encode("utf-8", "replace")
    if len(data) == size:
        return data[bytes_shown:].decode("utf-8", "replace")
    # The program may have written such a line itself: then the sum is another.
    for match in _MARKER.finditer(text):
        head, tail = text[: match.start()].encode(), text[match.end() :].encode()
        left_out = int(match[1])
        if len(head) - size + left_out + len(tail) not in (0, 1):
            continue
        if needed <= len(tail):
            return tail[-needed:].decode("utf-8", "replace")
        if bytes_shown >= len(head):
            left_out = needed - len(tail)
            return f"[... {left_out} bytes left out ...]\n" + tail.decode()
        return text.encode()[bytes_shown:].decode("utf-8", "replace")
    # Bytes that are no text were replaced: there are as many characters, not bytes.
    return text[characters:]


def _log(details: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """The text that an event has of a command's output."""
    own, key = entry.get("log"), entry.get("command")
    if own is None and isinstance(key, str):
        if key in _RESERVED or key.startswith("return_codes/"):
            return ""
        own = details.get(key)
    return own if isinstance(own, str) else ""


def _size(entry: Mapping[str, Any]) -> int:
    size = entry.get("log_size")
    return size if isinstance(size, int) and not isinstance(size, bool) else 0
