"""Who is given what at construction: the request classes, and a session for each connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collectors.supervisor import Collectors
from dispatcher.runner import Dispatcher
from server.classes.auth import Auth, AuthClear, AuthToken
from server.classes.clients import Clients
from server.classes.dispatcher import DispatcherClass
from server.classes.events import Subscribe, Unsubscribe
from server.classes.identify import Identify, Query
from server.classes.jobs import JobRequests, Tools
from server.classes.key_login import AuthSsl
from server.classes.keys import KeyRegistry
from server.classes.logs import Logs
from server.classes.tokens import Tokens
from server.delivery.round_robin import RoundRobin
from server.delivery.snapshot import Snapshots
from server.delivery.subscriber import Subscriber
from server.delivery.tail import Sources
from server.job_classes.all import CLASSES
from server.login.accounts import Accounts
from server.login.attempts import Attempts
from server.login.audit import Audit
from server.login.guesses import Guesses
from server.login.logins import Logins
from server.login.places import Places
from server.login.vigil import Vigil
from server.loop_clock import LoopClock
from server.metrics import Metrics
from server.request_class import RequestClass
from server.session import Session
from server.sessions import Sessions
from server.wire.connection import Connection
from server.wire.http import Gate
from server.wire.listener import client_group
from server.wire.local import LOCAL
from server.wire.origins import Origins
from server.wire.system_log import SystemLog
from sysadmd.machine import host_name
from sysadmd.settings import AuthSettings, ServerSettings, Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """What there is before anybody comes.

    settings, certificate_ends: as of the time of the call. spawn: begins a task.
    """

    settings: Callable[[], Settings]
    state_dir: Path
    sources: Sources
    dispatcher: Dispatcher
    collectors: Collectors
    admin_token: str
    spawn: Callable[[Coroutine[Any, Any, None]], object]
    clock: LoopClock
    certificate_ends: Callable[[], int | None]

    def server(self) -> ServerSettings:
        return self.settings().server

    def auth(self) -> AuthSettings:
        return self.settings().auth

    def health(self) -> list[str]:
        """What is wrong, a line each."""
        ours = filter(None, (self.sources.store.health, self.clock.trouble))
        return [*ours, *self.dispatcher.troubles, *self.collectors.troubles()]


class Doors:
    """Who may come in, and who is in."""

    def __init__(self, parts: Parts) -> None:
        store = parts.sources.store
        self.places = Places(lambda: parts.server().max_clients)
        self.sessions = sessions = Sessions(store, self.places)
        self.trail, self.accounts = Audit(store), Accounts(parts.auth)
        self.guesses = Guesses()
        self.attempts = Attempts(store, self.trail, self.guesses, parts.auth)
        self.logins = Logins(
            *(store, self.accounts, self.trail, sessions.end_account, sessions.end_key)
        )
        self.vigil = Vigil(
            *(store, self.logins, self.accounts, sessions.accounts),
            lambda: parts.auth().legacy_key_login,
        )


def session_maker(parts: Parts) -> tuple[Callable[[Connection], Session], Vigil]:
    """What makes a connection's session, and what ends those that are no longer right."""
    sources, doors, system_log = parts.sources, Doors(parts), SystemLog()

    def say(lines: list[str]) -> None:
        if parts.auth().syslog:
            system_log.say(lines)

    sources.store.say = say
    classes, gate = _classes(parts, doors), _gate(parts, doors)
    turns = RoundRobin(asyncio.get_running_loop(), sources.hub.telling)

    def welcome(connection: Connection) -> Session:
        return Session(
            connection,
            Subscriber(connection, sources, turns),
            settings=parts.server,
            sessions=doors.sessions,
            classes=classes,
            gate=gate,
            logins=doors.logins,
            store=sources.store,
            spawn=parts.spawn,
        )

    return welcome, doors.vigil


def _classes(parts: Parts, doors: Doors) -> dict[str, RequestClass]:
    """Every namespace/name that is answered, in lower case."""
    sources, dispatcher, sessions = parts.sources, parts.dispatcher, doors.sessions
    store, logins, trail = sources.store, doors.logins, doors.trail
    tools = Tools(lambda: parts.settings().classes, trail, parts.state_dir)
    return {
        "rpc/identify": Identify(host_name),
        "rpc/auth": Auth(doors.attempts, doors.accounts, parts.auth),
        "rpc/auth_ssl": AuthSsl(store, doors.attempts, logins, parts.auth),
        "rpc/auth_token": AuthToken(logins, trail, parts.admin_token),
        "rpc/auth_clear": AuthClear(),
        "rpc/query": Query(lambda: tools.here(CLASSES)),
        "rpc/dispatcher": DispatcherClass(dispatcher, parts.state_dir),
        "rpc/logs": Logs(store, sources.hub, sources.pages.renderer),
        "rpc/clients": Clients(store, sessions, doors.guesses, client_group),
        "rpc/settings": KeyRegistry(store, sessions, logins),
        "rpc/tokens": Tokens(store, sessions),
        "events/subscribe": Subscribe(sources, Snapshots(store)),
        "events/unsubscribe": Unsubscribe(store),
        **{one.name: JobRequests(one, dispatcher, tools) for one in CLASSES},
    }


def _gate(parts: Parts, doors: Doors) -> Gate:
    return Gate(
        Origins(lambda: parts.server().origins).refused,
        lambda address: address != LOCAL and doors.places.are_taken,
        parts.health,
        Metrics(
            parts.sources.store,
            parts.sources.hub,
            doors.sessions,
            parts.dispatcher,
            parts.collectors,
            doors.guesses,
            parts.clock,
            parts.health,
            parts.certificate_ends,
            parts.admin_token,
        ),
    )
