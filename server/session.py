"""One client as the daemon knows it: login, dialect, subscription, requests. No socket."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response

from server.delivery.tail import EventsLost, Ledger, Tail
from server.dialects import DIALECTS, Dialect, spoken_by
from server.login import tokens
from server.login.accounts import UnknownAccount
from server.login.roles import Login, Role
from server.wire.connection import Connection, Phase
from server.wire.protocol import FRAME_LIMIT, ProtocolError, Reply, Request, parse_request
from sysadmd.errors import SysadmdError
from sysadmd.events import SYSTEMS
from sysadmd.journal import format_cursor

if TYPE_CHECKING:
    from server.desk import Desk

log = logging.getLogger(__name__)

# Sent when there was no event for this long, so that a client can tell silence from a dead
# connection; s.
HEARTBEAT_AFTER: Final = 20.0


class Session:
    """A client from its connection to its end; the connection's peer."""

    def __init__(self, desk: Desk, address: str) -> None:
        self.desk = desk
        # In the order in which clients came.
        self.number = desk.next_number()
        self.address = address
        self.login: Login | None = None
        self.certificate_login: Login | None = None
        self.dialect: Dialect = DIALECTS[desk.settings.server.dialect]
        self.tail: Tail | None = None
        self.since = time.time()
        self._connection: Connection | None = None
        self._opened = desk.loop.time()
        # Taken by requests whose long replies are gathered over several turns of the loop: what
        # waits for a client stays bounded, however many it sends at once.
        self.gathering = asyncio.Lock()
        self._first = True
        self._in_flight = 0
        # Of them, those that decide who the client is.
        self._logins = 0
        self._last_event = desk.loop.time()
        # Accounts of subscriptions that were replaced.
        self._closed_ledger = Ledger()

    # The connection's side.

    @property
    def member(self) -> bool:
        return self.login is not None

    def connected(self, connection: Connection) -> None:
        self._connection = connection

    def http(self, request: HttpRequest, accept: Callable[[], Response]) -> Response:
        name = self.connection.certificate_subject()
        if name is not None:
            self._logins += 1
            self._hold_or_release()
            self.desk.spawn(self._log_in_by_certificate(name))
        return self.desk.http(self, request, accept)

    def text(self, text: str) -> None:
        """One request; it is answered in a task of its own, logins in the order they came."""
        try:
            request = parse_request(text, args_by_default=self.dialect.args_by_default)
        except ProtocolError as error:
            self.connection.send(self.dialect.error(error))
            return
        if self._first:
            self._first = False
            self.dialect = spoken_by(request.id, self.dialect)
        self._in_flight += 1
        self._logins += request.key.startswith("rpc/auth")
        self._hold_or_release()
        self.desk.spawn(self._answer(request))

    def output(self) -> bytes | None:
        """Live events for the socket; a reader that is behind queues for its turn instead."""
        tail = self.tail
        if tail is None:
            return None
        if tail.behind:
            self.desk.turns.add(self)
            return None
        data = tail.live()
        if data is not None:
            self._last_event = self.desk.loop.time()
        return data

    def feed(self) -> bool:
        """Give one page of the journal to the socket; True: there is more and room for it."""
        tail, connection = self.tail, self.connection
        if tail is None or connection.waiting or not tail.behind:
            return False
        try:
            page = tail.page()
        except EventsLost as error:
            connection.close(4410, str(error))
            return False
        except Exception:  # the outer edge: what can't be read for one stops no other
            log.exception("%s: what it has missed can't be read", self.address)
            connection.close(1011, "the journal can't be read on; see the server's log")
            return False
        if page is None:
            tail.follow(self.told)
            return False
        self._last_event = self.desk.loop.time()
        if page:
            connection.offer(page)
        return not connection.waiting

    def told(self) -> None:
        """There are new events."""
        if not self.connection.waiting:
            self.connection.write()

    def tick(self, now: float) -> None:
        """Every second: login in time, token still valid, heartbeat."""
        server = self.desk.settings.server
        if self.login is None:
            if now - self._opened >= server.login_timeout:
                self.connection.close(4401, f"not logged in within {server.login_timeout:g} s")
            return
        self._check_token()
        tail = self.tail
        if (
            tail is not None
            and tail.form.extended
            and not tail.behind
            and tail.current
            and not self.connection.waiting
            and now - self._last_event >= HEARTBEAT_AFTER
        ):
            self._last_event = now
            cursor = format_cursor(self.desk.store.epoch, str(self.desk.hub.head))
            self.connection.send(self.desk.renderer.heartbeat(tail.form, cursor, tail.prev))

    def lost(self) -> None:
        """The connection is gone."""
        self._end_tail()
        self.desk.session_lost(self)

    # What request classes use.

    @property
    def connection(self) -> Connection:
        assert self._connection is not None
        return self._connection

    @property
    def systems(self) -> list[str]:
        """The systems that are subscribed, in the journal's order."""
        numbers = self.tail.form.systems if self.tail else frozenset[int]()
        return [name for number, name in enumerate(SYSTEMS) if number in numbers]

    @property
    def ledger(self) -> Ledger:
        """What became of the events of all subscriptions of this session."""
        total = Ledger()
        total.add(self._closed_ledger)
        if self.tail is not None:
            total.add(self.tail.ledger)
        return total

    def log_in(self, login: Login) -> None:
        """From here on requests are answered by this login's role."""
        self.login = login
        self.desk.logged_in(self)

    def log_out(self) -> None:
        """Back to a stranger, who has its time to log in again; the subscription ends."""
        self.login = self.certificate_login
        self._opened = self.desk.loop.time()
        if self.login is None:
            self._end_tail()

    def subscribe(self, tail: Tail | None) -> None:
        """Read events from here on; None: no more. Who has left meanwhile hears nothing."""
        self._end_tail()
        if self.connection.phase is not Phase.OPEN:
            return
        self.tail = tail
        self._last_event = self.desk.loop.time()
        if tail is not None:
            self.desk.turns.add(self)

    def require(self, request: Request, role: Role) -> Login:
        """The login, if it may. Raises: ProtocolError 401 or 403 naming the needed role."""
        if self.login is None:
            raise request.refuse(401, "log in first, with rpc/auth or rpc/auth_token")
        if self.login.role < role:
            raise request.refuse(
                403,
                f"this needs the role {role.word}; {self.login.account!r} has "
                f"{self.login.role.word}",
            )
        return self.login

    def require_still(self, request: Request, login: Login) -> None:
        """Raises: ProtocolError 401 if who asked has logged out, or another in, meanwhile."""
        if not login.is_still(self.login):
            raise request.refuse(401, "the login ended while this was answered; log in first")

    def _end_tail(self) -> None:
        if self.tail is not None:
            self.tail.leave()
            self._closed_ledger.add(self.tail.ledger)
            self.tail = None

    def _check_token(self) -> None:
        """A live subscription renews its token; one that has run out ends the login."""
        login = self.login
        if login is None or login.expires is None:
            return
        if self.tail is not None and tokens.renewal_due(login):
            self.renew()
        elif login.expires <= time.time() * 1000:
            self.login = None
            self.connection.close(4401, "the token has expired; log in again")

    def renew(self) -> None:
        """Use renews the token."""
        login = self.login
        if login is not None and tokens.renewal_due(login):
            self.login = tokens.renewed(login)
            self.desk.spawn(self._keep_renewal(self.login))

    async def _keep_renewal(self, renewed: Login) -> None:
        try:
            role = await self.desk.role_of(renewed.account)
            if role is None or role < renewed.role:
                log.warning("%s: %s has lost its role", self.address, renewed.account)
                assert renewed.token is not None
                await self.desk.end_token(renewed.token, "the account has lost its role")
                return
            await self.desk.write(lambda change: tokens.renew(change, renewed))
        except UnknownAccount as error:
            # The token stays until it runs out: its directory may be there again by then.
            log.warning("%s: the token is not renewed: %s", self.address, error)
            self.connection.close(4401, "the account is not known now; log in again")
        except SysadmdError as error:
            # A full disk ends nobody's login: the next renewal may be written down again.
            log.warning("%s: the token's renewal was not kept: %s", self.address, error)

    async def _answer(self, request: Request) -> None:
        try:
            await self.connection.room()
            reply = await self.desk.answer(self, request)
        except ProtocolError as error:
            self.connection.send(self.dialect.error(error))
        except SysadmdError as error:
            self.connection.send(self.dialect.error(request.refuse_for(error)))
        except Exception:  # the outer edge: a stranger's request must not end the daemon
            log.exception("%s: a request of %s failed", request.key, self.address)
            self.connection.close(1011, "the request met a defect of the server; see its log")
        else:
            if reply is not None:
                for text in self._texts(request, reply):
                    self.connection.send(text)
        finally:
            self._in_flight -= 1
            self._logins -= request.key.startswith("rpc/auth")
            self._hold_or_release()

    async def _log_in_by_certificate(self, name: str) -> None:
        """Before anything that the client asks."""
        try:
            self.certificate_login = await self.desk.certificate_login(self, name)
            if self.certificate_login is not None:
                self.log_in(self.certificate_login)
        except SysadmdError as error:
            log.debug("%s: no login by certificate: %s", self.address, error)
        finally:
            self._logins -= 1
            self._hold_or_release()

    def _texts(self, request: Request, reply: Reply) -> tuple[bytes, ...]:
        """The reply and what follows it. The last guard: no answer is longer than a frame."""
        text = self.dialect.reply(request, reply.args)
        if len(text) <= FRAME_LIMIT:
            return text, *reply.then
        if request.key not in self.desk.too_long:
            self.desk.too_long.add(request.key)
            log.warning("an answer of %s was longer than a frame; refused", request.key)
        detail = f"the answer has more than {FRAME_LIMIT} bytes; ask with a smaller limit"
        return (self.dialect.error(request.refuse(400, detail)),)

    def _hold_or_release(self) -> None:
        """No further request while a login is decided, or while too many are under way."""
        most = self.desk.settings.server.requests_in_flight
        self.connection.hold(self._logins > 0 or self._in_flight >= most)
