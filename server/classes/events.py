"""events/subscribe and events/unsubscribe. Source: events.rst; docs/protocol.md, "Resume"."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, cast

from collectors import system_state
from server.classes.paging import number_of
from server.delivery.frames import Form
from server.delivery.heard import catch_up
from server.delivery.hub import system_numbers
from server.delivery.snapshot import Snapshot, SnapshotOpening, Snapshots
from server.delivery.tail import Opening, Sources, Tail
from server.dialects.values import parse_rfc3339
from server.login.roles import Login, Role
from server.session import Session
from server.wire.protocol import Reply, Request
from sysadmd import journal
from sysadmd.events import SYSTEMS
from sysadmd.journal import Place
from sysadmd.store import Store
from sysadmd.text import quoted

# So long ago a subscription may begin, a century; s.
LONGEST_AGO: Final = 100 * 366 * 86400
# Events that `last` may ask for; of more one asks by a time.
MOST_LAST: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a subscription with the extension is asked to be. last: begin with so many events.

    since: an int is a time, in ms since 1970. caught_up: to be told when all that there is has
    been told.
    """

    names: list[str]
    since: str | int | None
    last: int | None
    snapshot: bool
    caught_up: bool


class Subscribe:
    """Hear events from here on or, with the extension, from a cursor on."""

    def __init__(self, sources: Sources, snapshots: Snapshots) -> None:
        self._sources = sources
        self._snapshots = snapshots
        # Where the hub was, and what `_prev` said there: most begin where it is.
        self._now: Place | None = None
        self._prevs: dict[frozenset[int], str] = {}

    def role(self, request: Request) -> Role | None:
        return Role.READ

    async def answer(self, session: Session, request: Request) -> Reply | None:
        if isinstance(request.args, dict):
            login = session.require(request, Role.READ)
            async with session.gathering:
                await session.connection.room()
                return await self._extended(session, request, login)
        return self._plain(session, request)

    def begin(self, session: Session, request: Request) -> Reply | None:
        """As `RequestClass` has it: without a snapshot there is nothing to wait for."""
        session.require(request, Role.READ)
        if session.gathering.locked():
            return None
        if not isinstance(request.args, dict):
            reply = self._plain(session, request)
        else:
            wish = _wish(request, request.fields())
            if wish.snapshot:
                return None
            reply = self._subscribe(session, wish, None)
        session.renew()
        return reply

    def _plain(self, session: Session, request: Request) -> Reply:
        names = _names(request, request.args)
        subscriber, hub = session.subscriber, self._sources.hub
        new = [name for name in names if name not in subscriber.systems]
        reply = {"subscribe": session.dialect.names(names)}
        if not new:
            return Reply(reply)
        tail = subscriber.tail
        extended = tail is not None and tail.form.extended
        form = Form(session.dialect, extended, system_numbers([*subscriber.systems, *new]))
        start = hub.head if tail is None else tail.place
        prev = self._prev(form, start)
        if tail is None:
            tail = Tail(self._sources, form, start, prev)
        else:
            tail = tail.widened(form, prev)
        if extended:
            subscriber.subscribe(tail)
            return Reply(reply)
        present = catch_up(self._sources, subscriber.heard, tail, new)
        subscriber.subscribe(tail)
        return Reply(reply, self._current(form, start.seq, present))

    async def _extended(self, session: Session, request: Request, login: Login) -> Reply:
        wish = _wish(request, request.fields())
        if wish.snapshot:
            await session.subscriber.room_for_snapshot()
        taken = await self._snapshots.take(session.asker) if wish.snapshot else None
        try:
            session.require_still(request, login)
            return self._subscribe(session, wish, taken)
        except Exception:
            if taken is not None:
                self._snapshots.drop(taken)
            raise

    def _subscribe(self, session: Session, wish: _Wish, taken: Snapshot | None) -> Reply:
        """Without a pause: what is subscribed gives out events meanwhile."""
        store, subscriber = self._sources.store, session.subscriber
        openings, names = deque[Opening](), wish.names
        known, until = True, None
        # It has cursors now: what it has missed it asks for.
        subscriber.heard = None
        if wish.since is None and wish.last is None and subscriber.tail is not None:
            # Subscribing again goes on where this subscription is.
            tail = subscriber.tail
            tail.drop(range(len(SYSTEMS)))
            start, openings, known, until = tail.place, tail.openings, tail.known, tail.until
            names = list(dict.fromkeys([*subscriber.systems, *names]))
        else:
            start, known = self._start(wish, taken)
        form = Form(session.dialect, True, system_numbers(names))
        prev = self._prev(form, start)
        if taken is not None:
            openings.append(
                SnapshotOpening(self._snapshots, taken, session.dialect.event_id, prev)
            )
        if wish.caught_up:
            # What is committed and not told yet is of what there is, too.
            until = journal.head(store.reader)
        cursor = journal.format_cursor(store.epoch, str(start))
        subscriber.subscribe(
            Tail(self._sources, form, start, prev, openings, known=known, until=until)
        )
        return Reply({"subscribe": names, "cursor": cursor, "prev": prev})

    def _prev(self, form: Form, start: Place) -> str:
        """As the function below, which finds the same at the newest event if it is pruned."""
        store, now = self._sources.store, self._sources.hub.head
        if start is not now:
            return _prev(store, form, start)
        if self._now is not now:
            self._now = now
            self._prevs.clear()
        if form.systems not in self._prevs:
            self._prevs[form.systems] = _prev(store, form, now)
        return self._prevs[form.systems]

    def _start(self, wish: _Wish, taken: Snapshot | None) -> tuple[Place, bool]:
        """Behind which place a subscription begins; is that known to be one of this history?

        Raises: BadRequest.
        """
        store, since = self._sources.store, wish.since
        now = taken.place if taken is not None else self._sources.hub.head
        if wish.last is not None:
            numbers = system_numbers(wish.names)
            return journal.place_before_last(store.reader, numbers, wish.last, now), True
        if since == "oldest":
            return journal.pruned(store.reader), True
        if since in (None, "now"):
            return now, True
        moment = since if isinstance(since, int) else parse_rfc3339(since)
        if moment is not None:
            return journal.place_before(store.reader, moment), True
        assert isinstance(since, str)
        start = journal.parse_cursor(store.reader, store.epoch, since)
        return start, journal.is_known(store.reader, start)

    def _current(self, form: Form, place: int, names: list[str]) -> tuple[bytes, ...]:
        """What a plain subscriber is told at once: system state, last Life Preserver event.

        place: where it is; what comes behind it in the journal is not told twice.
        """
        db, head = self._sources.store.reader, self._sources.hub.head.seq
        renderer = self._sources.renderer
        frames: list[bytes] = []
        if "system-state" in names:
            state = system_state.current(db)
            told = journal.last_event(db, "system-state", head)
            if state is not None and (told is None or told.seq <= place):
                frames.append(renderer.state(form, state))
        if "life-preserver" in names:
            last = journal.last_event(db, "life-preserver", head)
            if last is not None and last.seq <= place:
                frames.append(renderer.again(form, last))
        return tuple(frames)


class Unsubscribe:
    """Hear no more of some systems."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def role(self, request: Request) -> Role | None:
        return Role.READ

    async def answer(self, session: Session, request: Request) -> Reply | None:
        args = request.args
        value = cast("dict[str, Any]", args).get("systems") if isinstance(args, dict) else args
        names = _names(request, value)
        subscriber, tail = session.subscriber, session.subscriber.tail
        left = [name for name in subscriber.systems if name not in names]
        if tail is not None and len(left) < len(subscriber.systems):
            tail.drop(system_numbers(names))
            if left:
                form = Form(session.dialect, tail.form.extended, system_numbers(left))
                prev = _prev(self._store, form, tail.place)
                subscriber.subscribe(tail.widened(form, prev))
            else:
                subscriber.subscribe(None)
        if subscriber.heard is not None:
            await subscriber.heard.forget(system_numbers(names))
        return Reply({"unsubscribe": session.dialect.names(names)})


def _wish(request: Request, args: dict[str, Any]) -> _Wish:
    """The arguments in the form of an object. Raises: ProtocolError 400."""
    names = _names(request, args.get("systems"))
    since, last = _since(request, args.get("since")), None
    if "last" in args:
        last = number_of(request, args, "last", 0, 1, MOST_LAST)
        if since is not None:
            raise request.refuse(
                400, "args.last says where to begin, as args.since does; name one of them"
            )
    snapshot, caught_up = (args.get(key, False) for key in ("snapshot", "caught_up"))
    for key, value in (("snapshot", snapshot), ("caught_up", caught_up)):
        if not isinstance(value, bool):
            raise request.refuse(400, f"args.{key} must be true or false")
    return _Wish(names, since, last, snapshot, caught_up)


def _since(request: Request, value: object) -> str | int | None:
    """Where to begin: in words, or in ms since 1970. Raises: ProtocolError 400."""
    if value is None or isinstance(value, str):
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= cast("float", value) <= LONGEST_AGO:
        raise request.refuse(400, f"args.since must be {journal.SINCE}")
    # Who asks need not know what our clock says.
    return round((time.time() - cast("float", value)) * 1000)


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
            raise request.refuse(400, f"unknown system {quoted(name)}; known are {known}")
    return list(dict.fromkeys(cast("list[str]", names)))


def _prev(store: Store, form: Form, start: Place) -> str:
    """The cursor of the last event of these systems at or before `start`, or ""."""
    last = journal.last_before(store.reader, form.systems, start.seq)
    if last is not None and last.count(form.systems) == start.count(form.systems):
        return journal.format_cursor(store.epoch, str(last))
    # Gone with retention, unless there never was one: then the position itself stands for it.
    if start.count(form.systems) == 0:
        return ""
    return journal.format_cursor(store.epoch, str(start))
