"""Everybody who is connected, and what the connections of one account share. No socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from server.delivery.tail import Ledger
from server.login.places import Places
from server.login.roles import Login, Role
from server.wire.share import SHARE, Share
from sysadmd.journal import Note
from sysadmd.store import Store

if TYPE_CHECKING:
    from server.session import Session

# Portions of long replies that are read for one account at once, over all its connections: more
# would only wait in memory for their clients.
PORTIONS: Final = 4
# What the values of an account's requests that are under way may take, over all its
# connections; bytes.
REQUESTS: Final = 8 * 1024 * 1024


class Sessions:
    """Everybody who is connected, in the order in which they came."""

    def __init__(self, store: Store, places: Places) -> None:
        self.places = places
        # That of strangers, and of those who may take what they like.
        self.boundless = Share(None)
        # Held by whose long request is read and answered: its values take many times its bytes.
        self._long_ones: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()
        # Classes of which an answer was too long, and that was logged.
        self.too_long: set[str] = set()
        # Tokens that are being renewed: once, however many connections use them.
        self.renewing: set[int | None] = set()
        self._store = store
        self._turns: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()
        self._shares: WeakValueDictionary[tuple[str, int], Share] = WeakValueDictionary()
        self._there: dict[Session, None] = {}
        self._entered = 0
        # Accounts of sessions that have ended.
        self._closed_ledger = Ledger()

    def __len__(self) -> int:
        return len(self._there)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._there)

    def long_one(self, asker: Hashable) -> asyncio.Lock:
        """What whose long request is read and answered holds, over all his connections."""
        return self._long_ones.setdefault(asker, asyncio.Lock())

    def turn(self, asker: Hashable) -> asyncio.Semaphore:
        """What is held for each portion that is read for one who asks."""
        return self._turns.setdefault(asker, asyncio.Semaphore(PORTIONS))

    def shares(self, login: Login) -> tuple[Share, Share, Share]:
        """What all connections of an account may hold in memory, what the values of their
        requests that are under way may take, and the texts of long ones that wait to be read.
        Who may start commands as root needs no other way to take memory."""
        if login.role is Role.FULL:
            return self.boundless, self.boundless, self.boundless
        # Whoever waits for one must not be who fills it: so they are three.
        held, values, texts = (
            self._shares.setdefault((login.account, kind), Share(most))
            for kind, most in enumerate((SHARE, REQUESTS, SHARE))
        )
        return held, values, texts

    def enter(self, session: Session) -> int:
        """A client has connected; returns its number, higher than any before."""
        self._there[session] = None
        self._entered += 1
        return self._entered

    def leave(self, session: Session) -> None:
        """Its connection has ended."""
        del self._there[session]
        self._closed_ledger.add(session.subscriber.ledger)

    @property
    def ledger(self) -> Ledger:
        """The account of all subscriptions since the start."""
        total = Ledger()
        total.add(self._closed_ledger)
        for session in self._there:
            total.add(session.subscriber.ledger)
        return total

    def logins(self) -> list[tuple[Session, Login]]:
        """Who is connected and logged in."""
        return [(session, session.login) for session in self._there if session.login]

    def accounts(self) -> set[str]:
        """The accounts of the machine that are logged in, or can be by what they have shown."""
        return {login.account for session in self for login in session.held if login.system}

    def end_account(self, account: str, most: int, why: str) -> bool:
        """End all logins of an account of the machine above this role; were there any?"""
        return sum(session.end_account(account, most, why) for session in self) > 0

    def end_key(self, fingerprint: str, why: str) -> None:
        """End all logins that have come by a key."""
        self.end(lambda _, login: login.key == fingerprint, why)

    def end(self, which: Callable[[Session, Login], bool], why: str) -> None:
        """End these logins, and close their connections."""
        for session, login in self.logins():
            if which(session, login):
                session.end_login(why)

    def by_token(self, number: int | None) -> list[Session]:
        """Who has logged in by this token."""
        return [session for session, login in self.logins() if login.token == number]

    async def end_logins(
        self, asker: Session, of: Callable[[Login], bool], why: str, change: Note
    ) -> None:
        """Close the connections that logged in by what `change` revokes.

        asker: hears of it before its own ends. Raises: StoreFull.
        """
        # First of all: no request of these begins any more.
        self.end(lambda session, login: session is not asker and of(login), why)
        try:
            await self._store.write(change)
        finally:
            # And of those that have come meanwhile: by then it lets nobody in any more.
            self._store.soundly(lambda: self.end(lambda _, login: of(login), why))
