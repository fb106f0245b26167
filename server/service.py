"""A program of ours that serves until it is told to end: its process, its doors' certificate,
its reloads. What it serves is the business of who inherits."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import resource
import signal
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, cast

from msgspec.structs import replace

from server import own_log
from server.certificate import NO_CERTIFICATE, Certificate, load
from server.service_manager import ServiceManager
from server.signals import Signals
from server.statedir import StateDir
from server.wire import addresses, listener, tls
from server.wire.listener import Listeners
from sysadmd.apart import apart, in_time
from sysadmd.errors import CannotStart, SettingsInvalid, SysadmdError
from sysadmd.machine import default_config, plainly
from sysadmd.path_faults import cannot_read
from sysadmd.settings import Address, DoorSettings, Settings, read_settings

log = logging.getLogger(__name__)

# How long clients have to take the goodbye; s.
GOODBYE: Final = 2.0
# How long a thread goes on while another waits for the interpreter. A commit takes it some
# twenty times and a request four: with 5 ms, the default, both wait for who renders history; s.
TURN: Final = 0.0005
# Open files beside one for each client: database, 64 snapshots of three each, logs, listeners,
# local clients, the watcher's own.
SPARE_FILES: Final = 512 + listener.LOCAL_CLIENTS

Reload = Callable[[Settings], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said; it wins over the file.

    config: None: the default one, which was not there at the start.
    """

    config: Path | None
    state_dir: str | None
    listen: tuple[Address, ...]
    log_level: str | None


@dataclass(frozen=True, slots=True)
class Process:
    """What a service is given by its process. limits: those before they were raised."""

    options: Options
    state: StateDir
    signals: Signals
    manager: ServiceManager
    limits: dict[int, tuple[int, int]]


class Service(ABC):
    """Serves until it is told to end."""

    # Who is ready, in the line that says so; and where the configuration has what it serves.
    title: ClassVar[str]
    section: ClassVar[str]

    def __init__(self, process: Process, settings: Settings) -> None:
        self.options = process.options
        self.state = process.state
        self.settings = settings
        self.limits = process.limits
        self._signals = process.signals
        self._manager = process.manager
        self._stop = asyncio.Event()
        self._hang_up = asyncio.Event()
        # What can't be changed while running is what it was then.
        self._begun = settings

    @staticmethod
    @abstractmethod
    def path(options: Options, settings: Settings) -> Path:
        """The state directory."""

    @staticmethod
    @abstractmethod
    def fixed(settings: Settings) -> dict[str, object]:
        """What can't be changed while it runs: keys, and what they are."""

    @abstractmethod
    async def serve(self, certificate: Certificate, sockets: list[socket.socket]) -> None:
        """Everything from the first listener to the last goodbye."""

    @classmethod
    def door_of(cls, settings: Settings) -> DoorSettings:
        """Who may connect, by these settings."""
        door: DoorSettings = getattr(settings, cls.section)
        return door

    @staticmethod
    def more_files(settings: Settings) -> int:
        """Open files that its clients may need beside one each."""
        return 0

    def explain(self) -> SysadmdError | None:
        """What is wrong that would look like a defect, if anything is."""
        return None

    async def main(self) -> None:
        """Prepare what clients are shown, and serve."""
        self._signals.wake(asyncio.get_running_loop())
        with self.state.in_words():
            shown = await load(self.door(), self.state.tls)
            certificate = Certificate(self.door, self.state.tls, *shown)
        sockets = [
            addresses.bind(address) for address in self.options.listen or self.door().listen
        ]
        await self.serve(certificate, sockets)

    def door(self) -> DoorSettings:
        """As a reload has left it."""
        return self.door_of(self.settings)

    async def run_until_told(
        self,
        group: asyncio.TaskGroup,
        parts: list[Coroutine[Any, Any, None]],
        listeners: Listeners,
        certificate: Certificate,
        url: str,
        put_in_force: Reload,
        stop: Callable[[], None],
    ) -> None:
        """Say that we are ready, run the parts, and end them when told to; stop: before the
        goodbye."""
        parts += [
            listeners.tick(),
            certificate.run(),
            self._reload_when_told(certificate, url, put_in_force),
        ]
        running = [group.create_task(part) for part in parts]
        await self._write_endpoint(url, certificate.pair)
        # What is there by now stays: who looks for garbage need not look through it each time.
        gc.freeze()
        self._say_ready(url)
        await self._stop.wait()
        log.info("stopping: told to%s", self.last_words())
        self._manager.stopping(f"stopping{self.last_words()}")
        listeners.stop_accepting()
        stop()
        await listeners.close(1001, "the daemon stops", GOODBYE)
        for task in running:
            task.cancel()

    def last_words(self) -> str:
        """What to say behind that we stop."""
        return ""

    def _say_ready(self, url: str) -> None:
        log.info("ready on %s", url)
        # Who started us may not read our output, or have closed it; that stops nobody.
        apart(lambda: os.write(1, f"{self.title} ready on {url}\n".encode()), "ready line")
        self._manager.ready(_serving(url))

    def obey_signals(self) -> None:
        """Stop and reload when told to."""
        self._signals.act(
            {
                signal.SIGTERM: self._stop.set,
                signal.SIGINT: self._stop.set,
                signal.SIGHUP: self._hang_up.set,
            }
        )

    async def _write_endpoint(self, url: str, pair: tls.KeyPair) -> None:
        write = partial(self.state.write_endpoint, url, pair.certificate)
        with self.state.in_words():
            await in_time(write, "endpoint.json")

    async def _reload_when_told(
        self, certificate: Certificate, url: str, put_in_force: Reload
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

    async def _reload(self, certificate: Certificate, url: str, put_in_force: Reload) -> bool:
        """Is there anything new? If not the log says why."""
        settings = await self._reread()
        if settings is None:
            return False
        async with certificate.lock:
            try:
                pair, context = await load(self.door_of(settings), self.state.tls)
                if pair != certificate.pair:
                    # Local clients know us by the certificate that is named there.
                    await self._write_endpoint(url, pair)
            except NO_CERTIFICATE as error:
                log.error("reload refused, the old configuration stays: %s", plainly(error))
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
            why = cannot_read(path, error) if isinstance(error, OSError) else error
            log.error("reload refused, the old configuration stays: %s", why)
            return None
        begun = self.fixed(self._begun)
        for name, new in self.fixed(settings).items():
            if begun[name] != new:
                log.warning("%s has changed; that needs a restart and is not in force", name)
        return self._with_files(settings)

    def _with_files(self, settings: Settings) -> Settings:
        """The new settings with as many clients as there can be open files for."""
        door = self.door_of(settings)
        try:
            _raise_file_limit(self.section, door.max_clients, self.more_files(settings))
        except CannotStart as error:
            kept = self.door().max_clients
            log.error("%s.max_clients stays %d: %s", self.section, kept, error)
            return replace(settings, **{self.section: replace(door, max_clients=kept)})
        return settings


def run(kind: type[Service], options: Options, settings: Settings) -> int:
    """Run a service until it is told to end; returns the exit status."""
    os.umask(0o077)
    manager = ServiceManager()
    sys.setswitchinterval(TURN)
    signals = Signals()
    path = kind.path(options, settings).absolute()
    state = StateDir(path)
    # Unix socket paths are short on FreeBSD: from here on they are relative to the directory.
    with state.in_words():
        os.chdir(path)
    clients = kind.door_of(settings).max_clients
    limits = _raise_file_limit(kind.section, clients, kind.more_files(settings))
    service = kind(Process(options, state, signals, manager, limits), settings)
    try:
        with _runner() as runner:
            runner.run(service.main())
    except SysadmdError:
        raise
    except Exception as error:  # the outer edge: a bug ends the daemon loudly
        expected = _only_expected(error) or service.explain()
        if expected is not None:
            raise expected from error
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


def _raise_file_limit(section: str, clients: int, more: int) -> dict[int, tuple[int, int]]:
    """Raise the limit of open files to fit; returns the limits that jobs get: those before."""
    before = {
        number: resource.getrlimit(number)
        for name, number in vars(resource).items()
        if name.startswith("RLIMIT_")
    }
    soft, hard = before[resource.RLIMIT_NOFILE]
    spare = more + SPARE_FILES
    needed = clients + spare
    if soft != resource.RLIM_INFINITY and soft < needed:
        try:
            most = needed if hard == resource.RLIM_INFINITY else max(hard, needed)
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))
        except (ValueError, OSError) as error:
            raise CannotStart(
                f"{section}.max_clients = {clients} needs {needed} open files, the limit is"
                f" {hard}; raise it (ulimit -Hn {needed}) or lower {section}.max_clients to"
                f" {max(1, hard - spare)}"
            ) from error
    return before


def _serving(url: str) -> str:
    return f"serving on {url}"
