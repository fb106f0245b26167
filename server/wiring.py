"""Who is given what at construction: the request classes, and a session for each connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
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


def session_maker(
    settings: Callable[[], Settings],
    state_dir: Path,
    sources: Sources,
    dispatcher: Dispatcher,
    collectors: Collectors,
    admin_token: str,
    spawn: Callable[[Coroutine[Any, Any, None]], object],
    clock: LoopClock,
    certificate_ends: Callable[[], int | None],
) -> tuple[Callable[[Connection], Session], Vigil]:
    """What makes a connection's session, and what ends those that are no longer right.

    settings, certificate_ends: as of the time of the call.
    """

    def server() -> ServerSettings:
        return settings().server

    def auth() -> AuthSettings:
        return settings().auth

    def health() -> list[str]:
        ours = (store.health, clock.trouble)
        return [*filter(None, ours), *dispatcher.troubles, *collectors.troubles()]

    store = sources.store
    system_log = SystemLog()

    def say(lines: list[str]) -> None:
        if auth().syslog:
            system_log.say(lines)

    store.say = say
    places = Places(lambda: server().max_clients)
    sessions = Sessions(store, places)
    trail, accounts, guesses = Audit(store), Accounts(auth), Guesses()
    logins = Logins(store, accounts, trail, sessions.end_account, sessions.end_key)
    attempts = Attempts(store, trail, guesses, auth)
    tools = Tools(lambda: settings().classes, trail, state_dir)
    # Every namespace/name that is answered, in lower case.
    classes: dict[str, RequestClass] = {
        "rpc/identify": Identify(host_name),
        "rpc/auth": Auth(attempts, accounts, auth),
        "rpc/auth_ssl": AuthSsl(store, attempts, logins, auth),
        "rpc/auth_token": AuthToken(logins, trail, admin_token),
        "rpc/auth_clear": AuthClear(),
        "rpc/query": Query(lambda: tools.here(CLASSES)),
        "rpc/dispatcher": DispatcherClass(dispatcher, state_dir),
        "rpc/logs": Logs(store, sources.hub, sources.pages.renderer),
        "rpc/clients": Clients(store, sessions, guesses, client_group),
        "rpc/settings": KeyRegistry(store, sessions, logins),
        "rpc/tokens": Tokens(store, sessions),
        "events/subscribe": Subscribe(sources, Snapshots(store)),
        "events/unsubscribe": Unsubscribe(store),
        **{one.name: JobRequests(one, dispatcher, tools) for one in CLASSES},
    }
    gate = Gate(
        Origins(lambda: server().origins).refused,
        lambda address: address != LOCAL and places.are_taken,
        health,
        Metrics(
            store,
            sources.hub,
            sessions,
            dispatcher,
            collectors,
            guesses,
            clock,
            health,
            certificate_ends,
            admin_token,
        ),
    )
    turns = RoundRobin(asyncio.get_running_loop(), sources.hub.telling)

    def welcome(connection: Connection) -> Session:
        return Session(
            connection,
            Subscriber(connection, sources, turns),
            settings=server,
            sessions=sessions,
            classes=classes,
            gate=gate,
            logins=logins,
            store=store,
            spawn=spawn,
        )

    vigil = Vigil(store, logins, accounts, sessions.accounts, lambda: auth().legacy_key_login)
    return welcome, vigil
