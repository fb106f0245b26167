"""How far clients have heard that can't say it themselves, and what they have missed.

The original client asks for no cursor: it subscribes anew after each cut, a minute later. One
that is known by a key is told what came meanwhile. How far it has heard, for certain, is known
by pings behind what it was given: a pong says that all before it was read (RFC 6455, 5.5.3).
That is written down by key and system, so that it outlives connection and daemon; what was on
its way at the cut is told again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from sqlite3 import Connection
from typing import Protocol

from server.delivery.frames import Form
from server.delivery.pages import Gone, Page
from server.delivery.tail import Sources, Tail
from sysadmd import journal
from sysadmd.errors import SysadmdError
from sysadmd.events import SYSTEMS
from sysadmd.journal import Place

log = logging.getLogger(__name__)


class Diary(Protocol):
    """Where it is written down."""

    def read(self) -> dict[int, Place]: ...
    async def write(self, systems: Collection[int], place: Place | None) -> None: ...


class Heard:
    """Of one connection of who holds a key."""

    def __init__(self, diary: Diary, ping: Callable[[bytes], None]) -> None:
        """ping: sends one behind all that was given out."""
        self._diary = diary
        self._ping = ping
        # As it is written down, by system.
        self._kept = diary.read()
        # A ping that was not answered yet: what is in it, and how far that reaches.
        self._asked: tuple[bytes, Place, frozenset[int]] | None = None

    def missed(self, db: Connection, system: str, upto: Place) -> tuple[Place | None, bool]:
        """Up to where it has heard a system, None: it never did; and has it missed something of
        it, up to `upto`, that is still kept?"""
        place = self._kept.get(SYSTEMS.index(system))
        last = journal.last_event(db, system, upto.seq)
        return place, place is not None and last is not None and last.seq > place.seq

    def tick(self, tail: Tail) -> None:
        """Ask whether what was given out has arrived, if something was."""
        place, systems = tail.place, tail.form.systems
        if self._asked is not None or tail.openings or not self._news(place, systems):
            return
        self._asked = str(place.seq).encode(), place, systems
        self._ping(self._asked[0])

    async def reached(self, said: bytes) -> None:
        """A pong has come with this in it."""
        if self._asked is None or said != self._asked[0]:
            return
        (_, place, systems), self._asked = self._asked, None
        news = self._news(place, systems)
        self._kept.update(dict.fromkeys(news, place))
        await self._write(news, place)

    async def forget(self, systems: Collection[int]) -> None:
        """It does not want to hear them any more, nor what it misses."""
        self._asked = None
        for system in systems:
            self._kept.pop(system, None)
        await self._write(systems, None)

    async def _write(self, systems: Collection[int], place: Place | None) -> None:
        try:
            await self._diary.write(systems, place)
        except SysadmdError as error:
            # Then more is told again than need be, after the next cut.
            log.debug("how far a client has heard was not written down: %s", error)

    def _news(self, place: Place, systems: Collection[int]) -> list[int]:
        """Of which systems more was given out by this place than is written down."""
        return [n for n in systems if self._is_further(place, n)]

    def _is_further(self, place: Place, system: int) -> bool:
        kept = self._kept.get(system)
        return kept is None or place.count((system,)) > kept.count((system,))


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
