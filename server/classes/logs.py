"""rpc/logs read_logs: what was told, and who did what, in a window of time.

Source: the original server's `read_logs`. Two entries of one moment both stay: the second has
more digits in its time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Final, cast

import msgspec

from server.classes.log_window import window
from server.classes.paging import MAX_ENTRIES, number_of
from server.delivery.frames import Renderer
from server.delivery.hub import Hub
from server.dialects.values import rfc3339
from server.login import audit
from server.login.roles import Role
from server.session import Session
from server.wire.protocol import Reply, Request
from sysadmd import journal
from sysadmd.events import SYSTEMS
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


class Logs:
    """Answers rpc/logs."""

    def __init__(self, store: Store, hub: Hub, renderer: Renderer) -> None:
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
            await session.connection.room()
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
            after = begin_seq if name == begin_log else 0
            entries: dict[str, Any] = {}
            async for seq, at, entry in self._entries(session, name, first, last, after):
                size += len(msgspec.json.encode(entry)) + 48
                if count == limit or (count and size > REPLY_SIZE):
                    return Reply({**reply, "next": f"{name}:{after}"})
                entries[_key(entries, at)] = entry
                reply[name] = entries
                after, count = seq, count + 1
        return Reply(reply)

    async def _entries(
        self, session: Session, name: str, first: int, last: int, after: int
    ) -> AsyncIterator[tuple[int, int, Any]]:
        """(position, time, entry) in order. Others have their turn between two pages."""
        db = self._store.reader
        system = LOGS[name]
        if system is None:
            while found := audit.entries(db, first, last, after, _PAGE):
                await asyncio.sleep(0)
                for entry in found:
                    after = entry.id
                    yield (
                        entry.id,
                        entry.time,
                        f"{entry.account}@{entry.address}: {entry.action}",
                    )
            return
        numbers = frozenset((SYSTEMS.index(system),))
        upto = self._hub.head.seq
        after = max(after, journal.seq_before(db, first))
        while events := journal.read_after(db, numbers, after, upto, _PAGE):
            await asyncio.sleep(0)
            for event in events:
                after = event.seq
                if not first <= event.time <= last:
                    continue
                renderer, ends = self._renderer, name == "dispatcher"
                if system == "dispatcher" and not renderer.notable(event, finished=ends):
                    continue
                args = msgspec.Raw(renderer.args(event, session.dialect, REPLY_SIZE))
                if ends:
                    yield event.seq, event.time, _details(bytes(args))
                else:
                    yield event.seq, event.time, args


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
    try:
        return window(time_format or "time_t_seconds", start, end, round(time.time() * 1000))
    except ValueError as error:
        raise request.refuse(400, f"args.{error}") from error


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
