"""How far clients have heard that can't say it themselves, and what they have missed.

The original client asks for no cursor: it subscribes anew after each cut, a minute later. One
that is known by a key is told what came meanwhile. How far it has heard, for certain, is known
by pings behind what it was given: a pong says that all before it was read (RFC 6455, 5.5.3).
That is written down by key and system, so that it outlives connection and daemon; what was on
its way at the cut is told again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Any, Final, Protocol

from server.delivery.frames import Form
from server.delivery.pages import Gone, Page
from server.delivery.tail import Sources, Tail
from sysadmd import journal
from sysadmd.errors import SysadmdError
from sysadmd.events import SYSTEMS
from sysadmd.journal import Place

log = logging.getLogger(__name__)

# Pings that wait for their pongs: of more the oldest is given up, since a later pong says the
# same of it and more.
ASKED: Final = 8
# It is asked again after so long, s: a peer may answer none but the last of several pings.
AGAIN: Final = 10.0


class Diary(Protocol):
    """Where it is written down."""

    def read(self) -> dict[int, Place]: ...
    async def write(self, places: Mapping[int, Place]) -> None: ...
    async def forget(self, systems: Collection[int]) -> None: ...


@dataclass(frozen=True, slots=True)
class _Ping:
    """One that was sent behind what was given out up to these places, of each system."""

    number: int
    at: float
    places: Mapping[int, Place]


class Heard:
    """Of one connection of who holds a key."""

    def __init__(self, diary: Diary, ping: Callable[[bytes], None]) -> None:
        """ping: sends one behind all that was given out."""
        self._diary = diary
        self._ping = ping
        # As it is written down, by system.
        self._kept = diary.read()
        self._asked: deque[_Ping] = deque(maxlen=ASKED)
        self._number = 0

    def place(self, system: int) -> Place | None:
        """Up to where it has heard a system; None: it never did."""
        return self._kept.get(system)

    def tick(self, tail: Tail, now: float) -> None:
        """Ask whether what was given out has arrived, if something was."""
        known = dict(self._kept)
        for asked in self._asked:
            if now - asked.at < AGAIN:
                known.update(asked.places)
        news = _further(tail.given, known)
        if news:
            self._number += 1
            self._asked.append(_Ping(self._number, now, news))
            self._ping(b"%d" % self._number)

    async def reached(self, said: bytes) -> None:
        """A pong has come with this in it."""
        if said not in [b"%d" % asked.number for asked in self._asked]:
            return
        places: dict[int, Place] = {}
        while self._asked and b"%d" % self._asked[0].number != said:
            places.update(self._asked.popleft().places)
        places.update(self._asked.popleft().places)
        news = _further(places, self._kept)
        self._kept.update(news)
        await self._write(self._diary.write, news)

    async def forget(self, systems: Collection[int]) -> None:
        """It does not want to hear them any more, nor what it misses."""
        self._asked.clear()
        for system in systems:
            self._kept.pop(system, None)
        await self._write(self._diary.forget, systems)

    async def _write(self, write: Callable[..., Any], what: object) -> None:
        try:
            await write(what)
        except SysadmdError as error:
            # Then more is told again than need be, after the next cut.
            log.debug("how far a client has heard was not written down: %s", error)


def _further(places: Mapping[int, Place], known: Mapping[int, Place]) -> dict[int, Place]:
    """Those that are behind what is known of their system."""

    def count(place: Place | None, system: int) -> int:
        return -1 if place is None else place.count((system,))

    return {n: at for n, at in places.items() if count(at, n) > count(known.get(n), n)}


def catch_up(
    sources: Sources, heard: Heard | None, tail: Tail, names: Collection[str]
) -> list[str]:
    """Put what a client has missed of these systems before the events of its tail.

    Returns the systems of which it is to be told the present instead: those of which nothing is
    known, and the state, if it has missed none.
    """
    present: list[str] = []
    for name in names:
        number = SYSTEMS.index(name)
        place = None if heard is None else heard.place(number)
        last = journal.last_event(sources.store.reader, name, tail.place.seq)
        if place is not None and last is not None and last.seq > place.seq:
            form = Form(tail.form.dialect, False, frozenset((number,)))
            tail.openings.append(CatchUp(sources, form, place, tail.place))
        elif place is None or name == "system-state":
            # The last event of others it has heard already: again, it would look new.
            present.append(name)
    return present


class CatchUp:
    """The frames of one system that a client has missed, before it hears on. An opening."""

    # Nothing waits for it to be taken, but its client.
    hurries = False
    cut = False

    def __init__(self, sources: Sources, form: Form, start: Place, upto: Place) -> None:
        """What came behind `start`, up to `upto`; form: plain, of the one system."""
        self._sources = sources
        self._form = form
        self._place = start
        self._upto = upto
        # Read and not taken yet: a read may be for a subscription that is replaced meanwhile.
        self._page: Page | None = None

    @property
    def given(self) -> Mapping[int, Place]:
        """As `Tail.given`."""
        return dict.fromkeys(self._form.systems, self._place)

    def frame(self, db: Connection) -> bytes:
        """The next frames, as they are sent. In the reading thread."""
        while self._page is None:
            found = self._sources.pages.read(db, self._form, self._place, "", self._upto)
            if isinstance(found, Gone):
                # There is no word for that in its protocol.
                self._place = found.place
            else:
                self._page = found
        return self._page.data

    def taken(self) -> bool:
        """The client has them; were they the last ones?"""
        assert self._page is not None
        page, self._page = self._page, None
        self._place = page.end
        return page.last

    def close(self) -> None:
        """Nobody wants it any more."""
