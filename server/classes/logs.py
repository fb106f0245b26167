"""rpc/logs read_logs: what was told, and who did what, in a window of time.

Source: the original server's `read_logs`. Two entries of one moment both stay: the second has
more digits in its time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from sqlite3 import Connection
from typing import Any, Final, cast

import msgspec

from server.classes.log_window import FARTHEST, window
from server.classes.paging import MAX_ENTRIES, number_of
from server.delivery.frames import Renderer
from server.delivery.hub import Hub
from server.delivery.pages import PAGE_TIME
from server.dialects import Dialect
from server.dialects.values import rfc3339
from server.login import audit
from server.login.roles import Role
from server.session import Session
from server.wire.protocol import Reply, Request
from sysadmd import journal
from sysadmd.events import SYSTEMS
from sysadmd.journal import Event
from sysadmd.store import Store
from sysadmd.text import quoted

# Log -> the journal's system; hostinfo is the audit trail.
LOGS: Final = {
    "dispatcher": "dispatcher",
    "events-dispatcher": "dispatcher",
    "events-lifepreserver": "life-preserver",
    "events-state": "system-state",
    "hostinfo": None,
}
# Bytes of one reply's JSON: a frame has at most 512 KiB.
REPLY_SIZE: Final = 440 * 1024
# Rows read at a time.
_PAGE: Final = 50


@dataclass(frozen=True, slots=True)
class _Look:
    """What is looked for: in one log, between two moments, in events up to a seq."""

    name: str
    first: int
    last: int
    upto: int
    dialect: Dialect


@dataclass(frozen=True, slots=True)
class _Line:
    """An entry of a log: its position in it, its time, and its JSON value."""

    position: int
    time: int
    entry: str | msgspec.Raw


class Logs:
    """Answers rpc/logs."""

    def __init__(self, store: Store, hub: Hub, renderer: Renderer) -> None:
        """renderer: the reading thread's."""
        self._store = store
        self._hub = hub
        self._renderer = renderer

    def role(self, request: Request) -> Role | None:
        # Without a list all logs are meant; who may not read one of them is not given that one.
        names = request.fields().get("logs", [])
        return (
            Role.FULL
            if "hostinfo" in (names if isinstance(names, list) else [names])
            else Role.READ
        )

    async def answer(self, session: Session, request: Request) -> Reply | None:
        if request.action() != "read_logs":
            raise request.refuse(404, "rpc/logs knows the action read_logs")
        login = session.require(request, Role.READ)
        async with session.gathering:
            reply = await self._read(session, request, full=login.role >= Role.FULL)
        session.require_still(request, login)
        return reply

    async def _read(self, session: Session, request: Request, *, full: bool) -> Reply:
        args = request.fields()
        names = _names(request, args, full=full)
        first, last = _window(request, args)
        limit = number_of(request, args, "limit", MAX_ENTRIES, 1, MAX_ENTRIES)
        begin_log, begin_seq = _after(request, args)
        reply: dict[str, Any] = {}
        count = size = 0
        for name in names:
            if name < begin_log:
                continue
            after = seen = begin_seq if name == begin_log else 0
            entries: dict[str, Any] = {}
            look = _Look(name, first, last, self._hub.head.seq, session.dialect)
            found: list[_Line] = []
            while seen >= 0:
                # Others have their turn between two.
                found, seen = await session.portion(
                    partial(self._look, look, seen, REPLY_SIZE - size)
                )
                for line in found:
                    size += _size(line)
                    if count == limit or (count and size > REPLY_SIZE):
                        return Reply({**reply, "next": f"{name}:{after}"})
                    entries[_key(entries, line.time)] = line.entry
                    reply[name] = entries
                    after, count = line.position, count + 1
        return Reply(reply)

    def _look(
        self, look: _Look, after: int, room: int, db: Connection
    ) -> tuple[list[_Line], int]:
        """Some entries behind `after`, until they fill `room`; and where to go on, -1: nowhere.

        In the reading thread.
        """
        system = LOGS[look.name]
        if system is None:
            page = audit.entries(db, look.first, look.last, after, _PAGE)
            lines = [_Line(e.id, e.time, f"{e.account}@{e.address}: {e.action}") for e in page]
            return lines, page[-1].id if page else -1
        number = SYSTEMS.index(system)
        after = max(after, journal.seq_before(db, look.first))
        events: list[Event] = []
        while not events:
            until = journal.read_until(db, number, look.first, look.last, after)
            upto = min(look.upto, until)
            if upto <= after:
                return [], -1
            events = journal.read_after(db, frozenset((number,)), after, upto, _PAGE)
            after = after if events else upto
        told: list[_Line] = []
        done = time.thread_time() + PAGE_TIME
        for event in events:
            after = event.seq
            line = self._line(look, event)
            if line is not None:
                told.append(line)
                room -= _size(line)
            if room < 0 or time.thread_time() >= done:
                break
        return told, after

    def _line(self, look: _Look, event: Event) -> _Line | None:
        # Where the clock was set back, both count: when it was, and what the clock said.
        told = event.time if event.wall is None else event.wall
        if not any(look.first <= time <= look.last for time in (told, event.time)):
            return None
        renderer, ends = self._renderer, look.name == "dispatcher"
        if LOGS[look.name] == "dispatcher" and not renderer.notable(event, finished=ends):
            return None
        args = renderer.args(event, look.dialect, REPLY_SIZE)
        return _Line(event.seq, told, _details(args) if ends else msgspec.Raw(args))


def _size(line: _Line) -> int:
    return len(msgspec.json.encode(line.entry)) + 48


def _details(args: bytes) -> str:
    """The details object of a finished event, as JSON text."""
    value: dict[str, Any] = msgspec.json.decode(args)
    details: dict[str, Any] = value.get("process_details", value)
    text = msgspec.json.encode(details).decode()
    if len(msgspec.json.encode(text)) > REPLY_SIZE:
        # JSON within JSON: escapes double. `show` and `log` have what is left out.
        kept = {"state", "process_id", "time_started", "time_finished", "cmd_list", "result"}
        codes = {key for key in details if key.startswith("return_codes/")}
        few = {key: details[key] for key in details if key in kept | codes}
        text = msgspec.json.encode(few).decode()
    return text


def _names(request: Request, args: dict[str, Any], *, full: bool) -> list[str]:
    names = args.get("logs", [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list):
        raise request.refuse(400, "args.logs must be a log's name or a list of them")
    for name in cast("list[object]", names):
        if not isinstance(name, str) or name not in LOGS:
            raise request.refuse(
                400, f"unknown log {quoted(name)}; known are {', '.join(LOGS)}"
            )
    wanted = cast("list[str]", names) or [name for name in LOGS if full or name != "hostinfo"]
    return sorted(set(wanted))


def _window(request: Request, args: dict[str, Any]) -> tuple[int, int]:
    texts = [args.get(key, "") for key in ("time_format", "start_time", "end_time")]
    if not all(isinstance(text, str) for text in texts):
        raise request.refuse(400, "args.time_format, start_time and end_time must be strings")
    time_format, start, end = texts
    now = round(time.time() * 1000)
    try:
        first, last = window(time_format or "time_t_seconds", start, end, now)
    except ValueError as error:
        raise request.refuse(400, f"args.{error}") from error
    # Without an end, what was told while the clock was ahead is in it.
    return first, last if end else FARTHEST


def _after(request: Request, args: dict[str, Any]) -> tuple[str, int]:
    after = args.get("after", "")
    if after == "":
        return "", 0
    name, _, seq = after.partition(":") if isinstance(after, str) else ("", "", "")
    if name not in LOGS or not (seq.isascii() and seq.isdigit() and len(seq) < 19):
        raise request.refuse(400, "args.after must be the next of an earlier reply")
    return name, int(seq)


def _key(entries: dict[str, Any], at: int) -> str:
    """The time as a key that is not taken yet."""
    key = stem = rfc3339(at)
    number = 0
    while key in entries:
        number += 1
        key = f"{stem[:-1]}{number:06d}Z"
    return key
