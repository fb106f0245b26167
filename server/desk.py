"""What all sessions share, and where a request goes: login, rights, class. No socket.

Every request passes here once: who asks, may they, which class answers.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response

from server.delivery.frames import Form, Renderer
from server.delivery.hub import Hub
from server.delivery.round_robin import RoundRobin
from server.delivery.snapshot import Snapshots
from server.delivery.tail import Ledger, Pages, Tail
from server.login import tokens
from server.login.roles import Login, Role
from server.wire.protocol import Reply, Request
from sysadmd.journal import Place, Transaction
from sysadmd.settings import Settings
from sysadmd.store import Store

if TYPE_CHECKING:
    from server.session import Session

T = TypeVar("T")


class RequestClass(Protocol):
    """Answers the requests of one namespace/name."""

    def role(self, request: Request) -> Role | None:
        """The least role that may ask this; None: a stranger may."""
        ...

    async def answer(self, session: Session, request: Request) -> Reply | None: ...


class Desk:
    """The shared parts of the daemon that sessions use."""

    def __init__(
        self,
        *,
        settings: Settings,
        state_dir: Path,
        store: Store,
        hub: Hub,
        pages: Pages,
        renderer: Renderer,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.settings = settings
        self.state_dir = state_dir
        self.store = store
        self.hub = hub
        self.renderer = renderer
        self.turns = RoundRobin(self.loop, hub.telling)
        self.snapshots = Snapshots(store)
        self.classes: dict[str, RequestClass] = {}
        self.sessions: dict[Session, None] = {}
        # Classes of which an answer was too long, and that was logged.
        self.too_long: set[str] = set()
        self.next_number = itertools.count(1).__next__
        # Accounts of sessions that have ended.
        self.closed_ledger = Ledger()
        self.spawn = spawn
        self.http: Callable[[Session, HttpRequest, Callable[[], Response]], Response]
        # The login by a verified certificate's name.
        self.certificate_login: Callable[[Session, str], Awaitable[Login | None]]
        # The role of an account by the configuration; None: it may not log in. Raises: Busy,
        # UnknownAccount.
        self.role_of: Callable[[str], Awaitable[Role | None]]
        self.on_login: Callable[[Session], None] = lambda session: None
        self._pages = pages

    async def answer(self, session: Session, request: Request) -> Reply | None:
        """The reply to a request; None: it gets none. Raises: ProtocolError, SysadmdError."""
        handler = self.classes.get(request.key)
        if handler is None:
            session.require(request, Role.READ)
            raise request.refuse(404, f"there is no class {request.key}; rpc/query lists them")
        role = handler.role(request)
        if role is not None:
            session.require(request, role)
            session.renew()
        return await handler.answer(session, request)

    async def write(self, change: Callable[[Transaction], T]) -> T:
        return await self.store.write(change)

    async def end_token(self, number: int, why: str) -> None:
        """Revoke a token, and close the connections that logged in by it. Raises: StoreFull."""
        try:
            await self.write(lambda change: tokens.revoke(change, number))
        finally:
            for session, login in self.logins():
                if login.token == number:
                    # Behind the reply: it may be the one that asked.
                    self.loop.call_soon(session.connection.close, 4401, why)

    def tail(
        self, form: Form, start: Place, prev: str, opening: Iterator[bytes] | None = None
    ) -> Tail:
        """A subscription that goes on behind `start`; `opening`: frames before its events."""
        return Tail(
            self.store,
            self.hub,
            self._pages,
            self.renderer,
            form,
            start,
            prev,
            opening or iter(()),
        )

    def logged_in(self, session: Session) -> None:
        self.on_login(session)

    def session_lost(self, session: Session) -> None:
        """A connection has ended."""
        if session in self.sessions:
            del self.sessions[session]
            self.closed_ledger.add(session.ledger)

    @property
    def ledger(self) -> Ledger:
        """The account of all subscriptions since the start."""
        total = Ledger()
        total.add(self.closed_ledger)
        for session in self.sessions:
            total.add(session.ledger)
        return total

    def logins(self) -> list[tuple[Session, Login]]:
        """Who is connected and logged in."""
        return [(session, session.login) for session in self.sessions if session.login]
