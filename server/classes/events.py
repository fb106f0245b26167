"""events/subscribe and events/unsubscribe. Source: events.rst; docs/protocol.md, "Resume"."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, cast

from collectors import system_state
from server.delivery.frames import Form
from server.delivery.hub import system_numbers
from server.login.roles import Login, Role
from server.session import Session
from server.wire.protocol import Reply, Request
from sysadmd import journal
from sysadmd.events import SYSTEMS
from sysadmd.journal import Place


class Subscribe:
    """Hear events from here on or, with the extension, from a cursor on."""

    def role(self, request: Request) -> Role | None:
        return Role.READ

    async def answer(self, session: Session, request: Request) -> Reply | None:
        if isinstance(request.args, dict):
            login = session.require(request, Role.READ)
            async with session.gathering:
                await session.connection.room()
                return await self._extended(session, request, login)
        return self._plain(session, request)

    def _plain(self, session: Session, request: Request) -> Reply:
        names = _names(request, request.args)
        new = [name for name in names if name not in session.systems]
        reply = {"subscribe": session.dialect.names(names)}
        if not new:
            return Reply(reply)
        tail, desk = session.tail, session.desk
        extended = tail is not None and tail.form.extended
        form = Form(session.dialect, extended, system_numbers([*session.systems, *new]))
        if tail is None:
            session.subscribe(
                desk.tail(form, desk.hub.head, _prev(session, form, desk.hub.head))
            )
        else:
            session.subscribe(tail.widened(form, _prev(session, form, tail.place)))
        return Reply(reply, () if extended else _current(session, form, new))

    async def _extended(self, session: Session, request: Request, login: Login) -> Reply:
        args = request.fields()
        names = _names(request, args.get("systems"))
        since, snapshot = args.get("since"), args.get("snapshot", False)
        if not isinstance(snapshot, bool):
            raise request.refuse(400, "args.snapshot must be true or false")
        if not (since is None or isinstance(since, str)):
            raise request.refuse(400, 'args.since must be a cursor, "oldest" or "now"')
        desk = session.desk
        taken = await desk.snapshots.take() if snapshot else None
        # From here on without a pause: what is subscribed gives out events meanwhile.
        opening: Iterator[bytes] = iter(())
        if since is None and session.tail is not None:
            # Subscribing again goes on where this subscription is.
            start, opening = session.tail.place, session.tail.opening
            names = list(dict.fromkeys([*session.systems, *names]))
        elif since == "oldest":
            start = journal.pruned(desk.store.reader)
        elif since in (None, "now"):
            start = taken.place if taken is not None else desk.hub.head
        else:
            start = journal.parse_cursor(desk.store.reader, desk.store.epoch, str(since))
        form = Form(session.dialect, True, system_numbers(names))
        prev = _prev(session, form, start)
        if taken is not None:
            opening = chain(opening, taken.frames(session.dialect.event_id, prev))
        cursor = journal.format_cursor(desk.store.epoch, str(start))
        session.require_still(request, login)
        session.subscribe(desk.tail(form, start, prev, opening))
        return Reply({"subscribe": names, "cursor": cursor, "prev": prev})


class Unsubscribe:
    """Hear no more of some systems."""

    def role(self, request: Request) -> Role | None:
        return Role.READ

    async def answer(self, session: Session, request: Request) -> Reply | None:
        args = request.args
        value = cast("dict[str, Any]", args).get("systems") if isinstance(args, dict) else args
        names = _names(request, value)
        tail = session.tail
        left = [name for name in session.systems if name not in names]
        if tail is not None and len(left) < len(session.systems):
            if left:
                form = Form(session.dialect, tail.form.extended, system_numbers(left))
                session.subscribe(tail.widened(form, _prev(session, form, tail.place)))
            else:
                session.subscribe(None)
        return Reply({"unsubscribe": session.dialect.names(names)})


def _names(request: Request, value: object) -> list[str]:
    """System names in the order asked for, once each. Raises: ProtocolError 400."""
    known = ", ".join(SYSTEMS)
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names:
        raise request.refuse(
            400, f"name one or more of the systems {known}, as a string or list"
        )
    for name in cast("list[object]", names):
        if name not in SYSTEMS:
            raise request.refuse(400, f"unknown system {name!r}; known are {known}")
    return list(dict.fromkeys(cast("list[str]", names)))


def _prev(session: Session, form: Form, start: Place) -> str:
    """The cursor of the last event of these systems at or before `start`, or ""."""
    store = session.desk.store
    last = journal.last_before(store.reader, form.systems, start.seq)
    if last is not None and last.count(form.systems) == start.count(form.systems):
        return journal.format_cursor(store.epoch, str(last))
    # Gone with retention, unless there never was one: then the position itself stands for it.
    if start.count(form.systems) == 0:
        return ""
    return journal.format_cursor(store.epoch, str(start))


def _current(session: Session, form: Form, names: list[str]) -> tuple[bytes, ...]:
    """What a plain subscriber is told at once: system state, last Life Preserver event."""
    desk = session.desk
    frames: list[bytes] = []
    # A reader that is behind gets what is behind from the journal, and nothing twice.
    place = session.tail.place.seq if session.tail is not None else desk.hub.head.seq
    if "system-state" in names:
        state = system_state.current(desk.store.reader)
        told = journal.last_event(desk.store.reader, "system-state", desk.hub.head.seq)
        if state is not None and (told is None or told.seq <= place):
            frames.append(desk.renderer.current(form, "system-state", state))
    if "life-preserver" in names:
        last = journal.last_event(desk.store.reader, "life-preserver", desk.hub.head.seq)
        if last is not None and last.seq <= place:
            frames.append(desk.renderer.current(form, "life-preserver", last.body))
    return tuple(frames)
