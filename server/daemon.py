"""The composition: ties the rooms together, starts and stops them; wiring.py for its doors."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final

from collectors import system_state
from collectors.supervisor import Collectors
from collectors.system_state import SystemState
from dispatcher import records
from dispatcher.runner import Dispatcher
from server import job_troubles, supervision
from server.calls import CALLERS
from server.certificate import Certificate
from server.delivery.frames import Renderer
from server.delivery.hub import Hub
from server.delivery.job_events import JobEvents
from server.delivery.pages import Pages
from server.delivery.tail import Sources
from server.delivery.waiting import WaitingJobs
from server.job_classes.all import reporters
from server.login import audit, keys, tokens
from server.loop_clock import LoopClock
from server.retention import Pruner
from server.service import Options, Service
from server.uplink import Uplink
from server.wire import listener, local
from server.wire.listener import Listeners
from server.wiring import Parts, session_maker
from sysadmd.errors import StoreDamaged, SysadmdError
from sysadmd.machine import default_state_dir
from sysadmd.mishaps import find_damage
from sysadmd.settings import Settings
from sysadmd.store import Store, open_store

log = logging.getLogger(__name__)

SCHEMAS: Final = {
    "collectors": system_state.SCHEMA,
    "dispatcher": records.SCHEMA,
    "tokens": tokens.SCHEMA,
    "keys": keys.SCHEMA,
    "audit": audit.SCHEMA,
}


class Daemon(Service):
    """The running daemon."""

    title = "sysadmd"
    section = "server"
    # What running jobs do when we end, as far as it is known by then.
    _jobs_then = ""

    @staticmethod
    def path(options: Options, settings: Settings) -> Path:
        """As `Service` has it."""
        return Path(options.state_dir or settings.state_dir or default_state_dir())

    @staticmethod
    def fixed(settings: Settings) -> dict[str, object]:
        """As `Service` has it."""
        return {"state_dir": settings.state_dir, "server.listen": settings.server.listen}

    @staticmethod
    def more_files(settings: Settings) -> int:
        """As `Service` has it. Who is relayed needs another: his stream ends in a pair."""
        return CALLERS if settings.bridge_client.url else 0

    def explain(self) -> SysadmdError | None:
        """A page that can be read, but is not what was written, looks like a defect."""
        damage = find_damage(self.state.database)
        return damage if isinstance(damage, StoreDamaged) else None

    def last_words(self) -> str:
        """As `Service` has it."""
        return self._jobs_then

    async def serve(self, certificate: Certificate, sockets: list[socket.socket]) -> None:
        """As `Service` has it."""
        with self.state.in_words():
            admin_token = self.state.admin_token()
        here = local.bind()
        store = open_store(self.state.database, SCHEMAS, (self.state.lock,))
        try:
            async with asyncio.TaskGroup() as group:
                await self._serve(group, store, certificate, admin_token, sockets, here)
        finally:
            store.close()
            local.remove()
            self.state.remove_endpoint()

    async def _serve(
        self,
        group: asyncio.TaskGroup,
        store: Store,
        certificate: Certificate,
        admin_token: str,
        sockets: list[socket.socket],
        here: socket.socket,
    ) -> None:
        path = self.state.path
        sources = self._sources(store)
        dispatcher = self._dispatcher(store)
        store.returned = dispatcher.look_again
        collectors = Collectors(store, self.settings.collectors, path)
        clock = LoopClock()
        welcome, vigil = session_maker(
            Parts(
                *(lambda: self.settings, path, sources, dispatcher, collectors, admin_token),
                *(group.create_task, clock, lambda: certificate.ends),
            )
        )
        listeners = Listeners(
            sockets, here, lambda: certificate.context, self.door, welcome, clock.now
        )

        uplink = Uplink(lambda: self.settings.bridge_client, path, store, listeners)

        async def put_in_force(settings: Settings) -> None:
            dispatcher.reconfigure(settings.dispatcher)
            await collectors.reconfigure(settings.collectors)
            # Who may log in is part of it.
            vigil.look()
            uplink.reconfigure()

        self.obey_signals()
        with self.state.in_words():
            await dispatcher.recover()
            await collectors.begin()
        # Not before: nobody is answered by a daemon that does not know its jobs yet.
        listeners.open()
        url = listener.url(sockets[0])
        parts: list[Coroutine[Any, Any, None]] = [
            store.watch(),
            dispatcher.run(),
            collectors.run(),
            Pruner(store, path, lambda: self.settings.retention).run(),
            job_troubles.tell(SystemState(store), lambda: dispatcher.troubles),
            clock.run(),
            vigil.run(),
            uplink.run(),
            self._foresee(),
        ]

        def stop() -> None:
            dispatcher.stopping = True

        await self.run_until_told(group, parts, listeners, certificate, url, put_in_force, stop)

    async def _foresee(self) -> None:
        """Say if jobs will not outlive us. The start does not wait for who knows that."""
        doom = await supervision.find()
        if doom is None:
            self._jobs_then = "; running jobs go on and are adopted at the next start"
            log.debug("nothing is known that would end running jobs with this daemon")
            return
        self._jobs_then = f"; running jobs end, too: {doom.reason}"
        log.warning(
            "running jobs will not outlive this daemon: %s; %s", doom.reason, doom.remedy
        )

    def _dispatcher(self, store: Store) -> Dispatcher:
        jobs, path = self.settings.dispatcher, self.state.path
        return Dispatcher(store, jobs, path, limits=self.limits, reporters=reporters())

    def _sources(self, store: Store) -> Sources:
        """What subscriptions read; from here on events are told."""

        def renderer(db: Connection) -> Renderer:
            def log_limit() -> int:
                return self.settings.dispatcher.event_log_limit

            return Renderer(JobEvents(db, store.epoch, self.state.path, log_limit))

        live = renderer(store.reader)
        hub = Hub(store, live)
        store.publish = hub.publish
        pages = Pages(store.epoch, renderer(store.thread_reader))
        return Sources(store, pages, hub, live, WaitingJobs(store, hub, live))
