"""The composition: ties the rooms together, starts and stops them; wiring.py for its doors."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final, cast

from msgspec.structs import replace

from collectors import system_state
from collectors.supervisor import Collectors
from collectors.system_state import SystemState
from dispatcher import records
from dispatcher.runner import Dispatcher
from server import job_troubles, own_log, supervision
from server.certificate import NO_CERTIFICATE, Certificate, load
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
from server.service_manager import ServiceManager
from server.signals import Signals
from server.statedir import StateDir
from server.wire import listener, local, tls
from server.wire.listener import Listeners
from server.wiring import Parts, session_maker
from sysadmd.apart import apart, in_time
from sysadmd.errors import CannotStart, SettingsInvalid, StoreDamaged, SysadmdError
from sysadmd.machine import default_config, default_state_dir
from sysadmd.mishaps import find_damage
from sysadmd.settings import Address, ServerSettings, Settings, read_settings
from sysadmd.store import Store, open_store

log = logging.getLogger(__name__)

SCHEMAS: Final = {
    "collectors": system_state.SCHEMA,
    "dispatcher": records.SCHEMA,
    "tokens": tokens.SCHEMA,
    "keys": keys.SCHEMA,
    "audit": audit.SCHEMA,
}
# How long clients have to take the goodbye; s.
GOODBYE: Final = 2.0
# How long a thread goes on while another waits for the interpreter. A commit takes it some
# twenty times and a request four: with 5 ms, the default, both wait for who renders history; s.
TURN: Final = 0.0005
# Open files beside one for each client: database, 64 snapshots of three each, logs, listeners,
# local clients, the watcher's own.
SPARE_FILES: Final = 512 + listener.LOCAL_CLIENTS


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said; it wins over the file.

    config: None: the default one, which was not there at the start.
    """

    config: Path | None
    state_dir: str | None
    listen: tuple[Address, ...]
    log_level: str | None


def run(options: Options, settings: Settings) -> int:
    """Run the daemon until it is told to stop; returns the exit status."""
    os.umask(0o077)
    manager = ServiceManager()
    sys.setswitchinterval(TURN)
    signals = Signals()
    path = Path(options.state_dir or settings.state_dir or default_state_dir()).absolute()
    state = StateDir(path)
    # Unix socket paths are short on FreeBSD: from here on they are relative to the directory.
    with state.in_words():
        os.chdir(path)
    limits = _raise_file_limit(settings.server.max_clients)
    daemon = Daemon(options, settings, state, limits, signals, manager)
    try:
        with _runner() as runner:
            runner.run(daemon.main())
    except SysadmdError:
        raise
    except Exception as error:  # the outer edge: a bug ends the daemon loudly
        expected = _only_expected(error)
        if expected is not None:
            raise expected from error
        # A page that can be read, but is not what was written, looks like a defect.
        damage = find_damage(state.database)
        if isinstance(damage, StoreDamaged):
            raise damage from error
        log.critical("stopped by a defect", exc_info=error)
        return 1
    return 0


def _only_expected(error: BaseException) -> SysadmdError | None:
    """The expected error in a group of nothing else."""
    if isinstance(error, BaseExceptionGroup):
        several = cast("BaseExceptionGroup[BaseException]", error)
        inner = [_only_expected(one) for one in several.exceptions]
        return inner[0] if all(inner) else None
    return error if isinstance(error, SysadmdError) else None


def _runner() -> asyncio.Runner:
    try:
        # The extra `fast`.
        uvloop: Any = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def _raise_file_limit(clients: int) -> dict[int, tuple[int, int]]:
    """Raise the limit of open files to fit; returns the limits that jobs get: those before."""
    before = {
        number: resource.getrlimit(number)
        for name, number in vars(resource).items()
        if name.startswith("RLIMIT_")
    }
    soft, hard = before[resource.RLIMIT_NOFILE]
    needed = clients + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        try:
            most = needed if hard == resource.RLIM_INFINITY else max(hard, needed)
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))
        except (ValueError, OSError) as error:
            raise CannotStart(
                f"server.max_clients = {clients} needs {needed} open files, the limit is"
                f" {hard}; raise it (ulimit -Hn {needed}) or lower server.max_clients to"
                f" {max(1, hard - SPARE_FILES)}"
            ) from error
    return before


class Daemon:
    """The running daemon."""

    def __init__(
        self,
        options: Options,
        settings: Settings,
        state: StateDir,
        limits: dict[int, tuple[int, int]],
        signals: Signals,
        manager: ServiceManager,
    ) -> None:
        self.options = options
        self.settings = settings
        self.state = state
        self.limits = limits
        self._signals = signals
        self._manager = manager
        # What running jobs do when we end, as far as it is known by then.
        self._jobs_then = ""
        self._stop = asyncio.Event()
        self._hang_up = asyncio.Event()
        # What can't be changed while running is what it was then.
        self._begun = settings

    async def main(self) -> None:
        """Everything from the first listener to the last goodbye."""
        self._signals.wake(asyncio.get_running_loop())
        with self.state.in_words():
            shown = await load(self.settings.server, self.state.tls)
            certificate = Certificate(self._server, self.state.tls, *shown)
            admin_token = self.state.admin_token()
        sockets = [
            listener.bind(address)
            for address in self.options.listen or self.settings.server.listen
        ]
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
            sockets, here, lambda: certificate.context, self._server, welcome, clock.now
        )

        async def put_in_force(settings: Settings) -> None:
            dispatcher.reconfigure(settings.dispatcher)
            await collectors.reconfigure(settings.collectors)
            # Who may log in is part of it.
            vigil.look()

        self._obey_signals()
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
            listeners.tick(),
            certificate.run(),
            self._reload_when_told(certificate, url, put_in_force),
            self._foresee(),
        ]
        running = [group.create_task(part) for part in parts]
        await self._write_endpoint(url, certificate.pair)
        self._say_ready(url)
        await self._until_told(listeners, dispatcher)
        for task in running:
            task.cancel()

    def _server(self) -> ServerSettings:
        """As a reload has left them."""
        return self.settings.server

    def _say_ready(self, url: str) -> None:
        log.info("ready on %s", url)
        # Who started us may not read our output, or have closed it; that stops nobody.
        apart(lambda: os.write(1, f"sysadmd ready on {url}\n".encode()), "ready line")
        self._manager.ready(_serving(url))

    async def _until_told(self, listeners: Listeners, dispatcher: Dispatcher) -> None:
        """Return when it is to end, and everybody has been told so."""
        await self._stop.wait()
        log.info("stopping: told to%s", self._jobs_then)
        self._manager.stopping(f"stopping{self._jobs_then}")
        listeners.stop_accepting()
        dispatcher.stopping = True
        await listeners.close(1001, "the daemon stops", GOODBYE)

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

    def _obey_signals(self) -> None:
        self._signals.act(
            {
                signal.SIGTERM: self._stop.set,
                signal.SIGINT: self._stop.set,
                signal.SIGHUP: self._hang_up.set,
            }
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

    async def _write_endpoint(self, url: str, pair: tls.KeyPair) -> None:
        write = partial(self.state.write_endpoint, url, pair.certificate)
        with self.state.in_words():
            await in_time(write, "endpoint.json")

    async def _reload_when_told(
        self,
        certificate: Certificate,
        url: str,
        put_in_force: Callable[[Settings], Awaitable[None]],
    ) -> None:
        """Put the configuration in force anew at each SIGHUP; runs until cancelled."""
        while True:
            await self._hang_up.wait()
            self._hang_up.clear()
            self._manager.reloading()
            if await self._reload(certificate, url, put_in_force):
                self._manager.ready(_serving(url))
            else:
                self._manager.ready(f"{_serving(url)}; the last reload has changed nothing")

    async def _reload(
        self,
        certificate: Certificate,
        url: str,
        put_in_force: Callable[[Settings], Awaitable[None]],
    ) -> bool:
        """Is there anything new? If not the log says why."""
        settings = await self._reread()
        if settings is None:
            return False
        async with certificate.lock:
            try:
                pair, context = await load(settings.server, self.state.tls)
                if pair != certificate.pair:
                    # Local clients know us by the certificate that is named there.
                    await self._write_endpoint(url, pair)
            except NO_CERTIFICATE as error:
                log.error("reload refused, the old configuration stays: %s", error)
                return False
            self.settings = settings
            certificate.show(pair, context)
        own_log.set_level(self.options.log_level or settings.log_level)
        await put_in_force(settings)
        log.info("configuration reloaded")
        return True

    async def _reread(self) -> Settings | None:
        """The new settings, or None if there are none to be had: the old ones stay."""
        path = self.options.config or default_config()
        try:
            settings = await in_time(partial(read_settings, path), "configuration")
        except (SettingsInvalid, CannotStart, OSError) as error:
            if self.options.config is None and isinstance(error, FileNotFoundError):
                log.info("reload: there is no configuration file %s; nothing changed", path)
                return None
            log.error("reload refused, the old configuration stays: %s", error)
            return None
        for name, old, new in (
            ("state_dir", self._begun.state_dir, settings.state_dir),
            ("server.listen", self._begun.server.listen, settings.server.listen),
        ):
            if old != new:
                log.warning("%s has changed; that needs a restart and is not in force", name)
        return self._with_files(settings)

    def _with_files(self, settings: Settings) -> Settings:
        """The new settings with as many clients as there can be open files for."""
        try:
            _raise_file_limit(settings.server.max_clients)
        except CannotStart as error:
            kept = self.settings.server.max_clients
            log.error("server.max_clients stays %d: %s", kept, error)
            return replace(settings, server=replace(settings.server, max_clients=kept))
        return settings


def _serving(url: str) -> str:
    return f"serving on {url}"
