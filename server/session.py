"""One client as the daemon knows it: who it is, what it asks, in whose words. No socket.

Every request passes here once: who asks, may they, which class answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Hashable, Mapping
from functools import partial
from sqlite3 import Connection as Database
from typing import Any, Final, TypeVar

from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response

from server.delivery.heard import Heard
from server.delivery.subscriber import Subscriber
from server.dialects import DIALECTS, spoken_by
from server.flow import IN_FLIGHT_SIZE, Flow
from server.login import tokens
from server.login.attempts import Where
from server.login.challenge import Challenge
from server.login.keys import KeyDiary
from server.login.logins import Logins
from server.login.roles import Login, Role
from server.login.standing import Busy, UnknownAccount
from server.request_class import HasLeft, RequestClass, begin
from server.request_reading import as_value, as_value_of_long
from server.sessions import Sessions
from server.wire.connection import Connection
from server.wire.http import Gate
from server.wire.parties import Phase
from server.wire.protocol import (
    FRAME_LIMIT,
    ProtocolError,
    Reply,
    Request,
    parse_request,
)
from server.wire.share import Share
from sysadmd.apart import apart
from sysadmd.errors import SysadmdError
from sysadmd.settings import ServerSettings
from sysadmd.store import Store

T = TypeVar("T")

log = logging.getLogger(__name__)

# Characters of a request that is read on the loop: a few ms, whatever is in it. Strangers' are
# not longer.
READ_AT_ONCE: Final = 8 * 1024
# What lets somebody in, or does not.
KEY_LOGIN: Final = "rpc/auth_ssl"
LOGINS: Final = frozenset(("rpc/auth", "rpc/auth_token", KEY_LOGIN))


class Session:
    """A client from its connection to its end; the connection's peer."""

    def __init__(
        self,
        connection: Connection,
        subscriber: Subscriber,
        *,
        settings: Callable[[], ServerSettings],
        sessions: Sessions,
        classes: Mapping[str, RequestClass],
        gate: Gate,
        logins: Logins,
        store: Store,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.connection = connection
        self.address = connection.address
        self.where = Where(connection.address, connection.port, connection.group)
        self.subscriber = subscriber
        self.number = sessions.enter(self)
        self.login: Login | None = None
        self.dialect = DIALECTS[settings().dialect]
        self.since = time.time()
        # What it is to sign to log in by a key, if it has asked for that.
        self.challenge: Challenge | None = None
        # Taken by requests whose long replies are gathered over several turns of the loop: what
        # waits for a client stays bounded, however many it sends at once.
        self.gathering = asyncio.Lock()
        self._spawn = spawn
        self._settings = settings
        self._sessions = sessions
        self._classes = classes
        self._gate = gate
        self._logins = logins
        self._store = store
        # Until when it may be without a login, in all; what is left of that when it has one.
        self._stranger_until = connection.clock() + settings().login_timeout
        self._stranger_for = 0.0
        # Who it is without logging in: by its certificate, or as a program of this machine.
        self._own_login: Login | None = None
        self._long_texts = sessions.boundless
        self._flow = Flow(connection, sessions.boundless, lambda: settings().requests_in_flight)
        self._first = True
        # What is being read for a long reply.
        self._look: asyncio.Future[Any] | None = None

    # The connection's side.

    @property
    def member(self) -> bool:
        return self.login is not None

    def http(self, request: HttpRequest, accept: Callable[[], Response]) -> Response:
        local = self.connection.local
        if local is not None:
            self._own_login = Login(local, Role.FULL, None, None, None)
            self.log_in(self._own_login)
            self.spawn(self._logins.note(self._own_login, self.address, "locally"), "its login")
        name = self.connection.certificate_subject()
        if name is not None:
            self._flow.decide(1)
            self.spawn(self._log_in_by_certificate(name), "its certificate")
        return self._gate(self.address, request, accept)

    def text(self, text: str) -> None:
        """One request; logins are answered in the order they came."""
        size = len(text)
        if size > READ_AT_ONCE:
            if self._long_texts.is_full:
                self.connection.close(1013, "too much of the account's requests waits")
                return
            self._flow.long = True
            self._flow.update()
            # As bytes it waits in a quarter of what a text with one emoji takes.
            self.spawn(self._answer_long(text.encode(), self._long_texts), "a long request")
            return
        request = self._take(as_value(partial(self._parse, text)))
        if request is not None:
            self._begin_answer(request, size)

    def _begin_answer(self, request: Request, size: int) -> None:
        """What is asked meanwhile is answered, too: in a task of its own, if it takes one."""
        flow, begun = self._flow, None
        # Nothing overtakes what a task may not have begun with.
        if not flow.tasks and self.connection.has_room:
            begun = begin(self._classes.get(request.key), self, request)
        if isinstance(begun, Reply):
            flow.end(request)
            self._say(request, begun)
            return
        share = flow.weigh(size)
        flow.update()
        if begun is not None:
            answered = partial(self._answer_begun, request, size, share, begun.reply)
            begun.done.add_done_callback(answered)
            return
        flow.tasks += 1
        self.spawn(self._answer_short(request, size, share), request.key)

    def _answer_begun(
        self,
        request: Request,
        size: int,
        share: Share,
        reply: Callable[[Any], Reply],
        done: asyncio.Future[Any],
    ) -> None:
        """As `_answer_short`, when it is done."""
        try:
            if not done.cancelled():
                self._say(request, reply(done.result()))
        except SysadmdError as error:
            self._fail(request, error)
        except Exception:  # the outer edge, as below
            log.exception("%s: %s failed", self.address, request.key)
            self.connection.fail()
        finally:
            self._flow.end(request)
            self._flow.unweigh(size, share)
            self._flow.update()

    def _waits(self, request: Request) -> bool:
        """Does who answers it wait for others, so that nobody should wait for him?"""
        return getattr(self._classes.get(request.key), "waits", False)

    def _parse(self, text: str) -> Request:
        return parse_request(text, args_by_default=self.dialect.args_by_default)

    async def _answer_long(self, data: bytes, texts: Share) -> None:
        """Read in a thread. Its values are many times as long: it waits for what came before,
        and for other long ones of the same login, so that nothing keeps it waiting then."""
        texts.add(len(data))
        try:
            await self._flow.quiet()
            await self.connection.room()
            await self.subscriber.room_for_snapshot()
            async with self._sessions.long_one(self.asker):
                if not self.connection.is_open:
                    # Texts of those who are gone do not pile up here.
                    return
                read = partial(as_value_of_long, lambda: self._parse(data.decode()))
                outcome = apart(read, "request")
                await asyncio.wait((outcome,))
                request = self._take(outcome.result())
                if request is None:
                    return
                if len(data) > IN_FLIGHT_SIZE or not self._waits(request):
                    await self._answer(request)
                    return
            self._begin_answer(request, len(data))
        finally:
            texts.add(-len(data))
            self._flow.long = False
            self._flow.update()

    def _take(self, request: Request | ProtocolError) -> Request | None:
        """A request that is to be answered; None: it is none, which is answered here."""
        if isinstance(request, ProtocolError):
            self.connection.send(self.dialect.error(request))
            return None
        if self._first:
            self._first = False
            self.dialect = spoken_by(request.id, self.dialect)
        self._flow.begin(request)
        return request

    @property
    def asker(self) -> Hashable:
        """By whom long reads take turns: all connections of an account are one."""
        return None if self.login is None else self.login.account

    def output(self, *, live: bool = False) -> bytes | None:
        return self.subscriber.output(live=live)

    def tick(self, now: float) -> None:
        """Every second: login in time, token still valid, heartbeat."""
        login = self.login
        if login is None:
            if now >= self._stranger_until:
                timeout = self._settings().login_timeout
                self.connection.close(4401, f"not logged in within {timeout:g} s")
            return
        # A live subscription renews its token; one that has run out ends the login.
        if self.subscriber.tail is not None and tokens.renewal_due(login):
            self.renew()
        else:
            self.end_expired()
        self.subscriber.tick(now)

    def pong(self, said: bytes) -> None:
        """What was given out before a ping has arrived."""
        if self.subscriber.heard is not None:
            self.spawn(self.subscriber.heard.reached(said), "a pong")

    def lost(self) -> None:
        """The connection is gone."""
        if self._look is not None:
            # Others have its turn.
            self._look.cancel()
        self._forget_login()
        self.subscriber.subscribe(None)
        self._sessions.leave(self)

    # What request classes use.

    def spawn(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Begin a part of what the client has asked for, in a task of its own."""
        self._spawn(self._guarded(work, what))

    async def _guarded(self, work: Coroutine[Any, Any, None], what: str) -> None:
        try:
            await work
        except Exception:  # the outer edge: a client's request must not end the daemon
            log.exception("%s: %s failed", self.address, what)
            self.connection.fail()

    def log_in(self, login: Login) -> None:
        """From here on requests are answered by this login's role. Raises: Crowded, HasLeft."""
        if self.connection.phase is Phase.GONE:
            # Nobody would give its place back.
            raise HasLeft
        if self.connection.local is None:
            self._sessions.places.take(login)
        self._forget_login()
        self._stranger_for = self._stranger_until - self.connection.clock()
        self.login = login
        self.subscriber.asker = self.asker
        held, values, self._long_texts = self._sessions.shares(login)
        self._flow.count_to(values)
        self.connection.admit(held)
        if login.key is not None:
            self.known_by(login.key)

    def known_by(self, key: str) -> None:
        """Who is there holds this key, and will come back by it. key: its fingerprint."""
        if self.dialect.comes_again:
            self.subscriber.know(Heard(KeyDiary(self._store, key), self.connection.ping))

    def end_login(self, why: str) -> None:
        """What is asked from here on is refused, and the connection closed."""
        self._own_login = None
        self._forget_login()
        # Behind the reply: it may be the one that asked.
        asyncio.get_running_loop().call_soon(self.connection.close, 4401, why)

    def end_expired(self) -> None:
        """End the login if its token has run out."""
        login = self.login
        if login and login.expires is not None and login.expires <= time.time() * 1000:
            self.end_login("the token has expired; log in again")

    @property
    def held(self) -> list[Login]:
        """Its login, and the one that it falls back to."""
        return [login for login in (self.login, self._own_login) if login]

    def end_account(self, account: str, most: int, why: str) -> bool:
        """End what it has of an account of the machine above this role; was there any?"""

        def is_over(login: Login | None) -> bool:
            return login is not None and login.is_above(account, most)

        over = any(map(is_over, self.held))
        if is_over(self.login):
            self.end_login(why)
        elif over:
            self._own_login = None
        return over

    def log_out(self) -> None:
        """Back to who it is without a login; a stranger's subscription ends.

        Raises: as log_in, if that takes a place that it has not.
        """
        if self.login is self._own_login:
            return
        self._forget_login()
        try:
            if self._own_login is not None:
                self.log_in(self._own_login)
        finally:
            if self.login is None:
                self.subscriber.asker = None
                self.subscriber.subscribe(None)

    def _forget_login(self) -> None:
        login, self.login = self.login, None
        self.subscriber.heard = None
        if login is None:
            return
        if self.connection.local is None:
            self._sessions.places.give_back(login)
        self._flow.count_to(self._sessions.boundless)
        self._long_texts = self._sessions.boundless
        # What is left of the time that it had when it came.
        self._stranger_until = self.connection.clock() + self._stranger_for
        self.connection.dismiss()

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

    async def read(self, look: Callable[[Database], T]) -> T:
        """What a long reply is made of, read in the store's reading thread: one at a time."""
        async with self.gathering:
            return await self.portion(look)

    async def portion(self, look: Callable[[Database], T]) -> T:
        """A portion of that, for who holds `gathering`. Raises: HasLeft."""
        while True:
            await self.connection.room()
            async with self._sessions.turn(self.asker):
                # Those before may have taken it.
                if self.connection.has_room:
                    return await self._portion(look)

    async def _portion(self, look: Callable[[Database], T]) -> T:
        if not self.connection.is_open:
            raise HasLeft
        self._look = read = self._store.read(look, self.asker)
        await asyncio.wait((read,))
        # What was read goes with its reply.
        self._look = None
        if read.cancelled():
            raise HasLeft
        return read.result()

    def renew(self) -> None:
        """Use renews the token."""
        login, renewing = self.login, self._sessions.renewing
        if login is None or login.token in renewing or not tokens.renewal_due(login):
            return
        renewing.add(login.token)
        self.spawn(self._renew(login), "the renewal of its token")

    async def _renew(self, login: Login) -> None:
        """Ask whether the account may still; until it is known the login is what it was."""
        renewed = None
        try:
            renewed = await self._logins.renew(login, self.address)
        except (Busy, UnknownAccount) as error:
            log.debug("%s: the token is not renewed: %s", self.address, error)
        finally:
            self._sessions.renewing.discard(login.token)
        for session in self._sessions.by_token(login.token):
            session.login = renewed or session.login
            session.end_expired()

    async def _answer_short(self, request: Request, size: int, share: Share) -> None:
        try:
            await self._answer(request)
        finally:
            self._flow.tasks -= 1
            self._flow.unweigh(size, share)
            self._flow.update()

    async def _answer(self, request: Request) -> None:
        try:
            await self.connection.room()
            reply = await self._reply(request)
            if reply is not None:
                self._say(request, reply)
        except ProtocolError as error:
            self._refuse(request, error)
        except SysadmdError as error:
            self._fail(request, error)
        except HasLeft:
            pass
        finally:
            self._flow.end(request)

    def _refuse(self, request: Request, error: ProtocolError) -> None:
        if request.key in LOGINS:
            error = self.dialect.login_error(error)
        self.connection.send(self.dialect.error(error))

    def _fail(self, request: Request, error: SysadmdError) -> None:
        if request.key == KEY_LOGIN and self.dialect.comes_again:
            log.info("%s: a login by key was put off: %s", self.address, error)
            self.connection.close(1013, f"{error}; connect again")
        else:
            self._refuse(request, request.refuse_for(error))

    async def _reply(self, request: Request) -> Reply | None:
        handler = self._classes.get(request.key)
        if handler is None:
            self.require(request, Role.READ)
            raise request.refuse(404, f"there is no class {request.key}; rpc/query lists them")
        try:
            role = handler.role(request)
        except ProtocolError:
            # What a stranger asks is refused before anybody looks what is wrong with it.
            self.require(request, Role.READ)
            raise
        if role is not None:
            self.require(request, role)
            self.renew()
        return await handler.answer(self, request)

    async def _log_in_by_certificate(self, name: str) -> None:
        """Before anything that the client asks."""
        try:
            login = await self._logins.by_certificate(name, self.address)
            self._own_login = login
            if login is not None:
                self.log_in(login)
                await self._logins.note(login, self.address, "by certificate")
        except SysadmdError as error:
            log.debug("%s: no login by certificate: %s", self.address, error)
        except HasLeft:
            pass
        finally:
            self._flow.decide(-1)

    def _say(self, request: Request, reply: Reply) -> None:
        """The reply and what follows it. The last guard: no answer is longer than a frame."""
        text = self.dialect.reply(request, reply.args)
        if len(text) <= FRAME_LIMIT:
            for each in (text, *reply.then):
                self.connection.send(each)
            return
        if request.key not in self._sessions.too_long:
            self._sessions.too_long.add(request.key)
            log.warning("an answer of %s was longer than a frame; refused", request.key)
        detail = f"the answer has more than {FRAME_LIMIT} bytes; ask with a smaller limit"
        self.connection.send(self.dialect.error(request.refuse(400, detail)))
