"""Keeps the collectors going, each for itself: restarts one that raises, and says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from collectors import figures, life_preserver
from collectors.hostname import HostnameCollector
from collectors.life_preserver import IDLE, LifePreserverCollector
from collectors.status import Status
from collectors.system_state import SystemState
from collectors.zpool import PoolCollector
from sysadmd.backoff import backoff
from sysadmd.errors import SysadmdError
from sysadmd.settings import CollectorSettings
from sysadmd.store import Store
from sysadmd.text import printable

log = logging.getLogger(__name__)

# A collector that raised is started again after so many s, doubled up to the second figure.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
# The start waits no longer for what does not answer; s.
BEGINNING: Final = 10.0
# Characters of what it raised that are told.
TEXT_LENGTH: Final = 1024
# One that ran this long before it raised begins with the first pause again; s.
SOUND: Final = 300.0
# One that has ended no look, good or bad, for so many of its rounds and so many s is dead. What
# it tells of as trouble (no zpool, a log that does not answer) is a look that has ended.
ROUNDS: Final = 3
SILENT: Final = 60.0


class Collector(Protocol):
    """A collector."""

    name: str

    async def begin(self) -> None: ...

    async def run(self) -> None: ...


class Collectors:
    """All collectors of the machine."""

    def __init__(self, store: Store, settings: CollectorSettings, state_dir: Path) -> None:
        self._settings = settings
        self._store = store
        self._state = SystemState(store)
        self._statuses = {
            name: Status(name) for name in ("hostname", "zpool", "life_preserver")
        }
        current = self._current
        self._log = LifePreserverCollector(
            store, self._state, current, self._statuses["life_preserver"]
        )
        self._collectors: tuple[Collector, ...] = (
            HostnameCollector(self._state, current, self._statuses["hostname"]),
            PoolCollector(self._state, current, self._statuses["zpool"], state_dir),
            self._log,
        )

    def _current(self) -> CollectorSettings:
        return self._settings

    async def begin(self) -> None:
        """Take first readings where there are none: before anyone can ask for the state."""
        await asyncio.gather(*map(_begin, self._collectors))

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for collector in self._collectors:
                group.create_task(self._keep(collector))

    async def reconfigure(self, settings: CollectorSettings) -> None:
        """Take new settings at each collector's next look; of a new log, all from now on."""
        self._settings = settings
        await _begin(self._log)

    def status(self) -> list[Status]:
        """How each is doing."""
        return list(self._statuses.values())

    def troubles(self) -> list[str]:
        """Who is dead and why, a line each; which is not who finds its source in trouble."""
        zpool = self._settings.zpool
        rounds = {
            "hostname": self._settings.hostname.interval,
            "zpool": zpool.interval + zpool.timeout,
            "life_preserver": IDLE,
        }
        found: list[str] = []
        for name, status in self._statuses.items():
            if status.crashed:
                found.append(f"the collector {name} failed and is started again; see the log")
            elif status.enabled and status.silence > max(SILENT, ROUNDS * rounds[name]):
                found.append(f"the collector {name} has not looked for {status.silence:.0f} s")
        return found

    def pool_figures(self) -> dict[str, dict[str, float]]:
        """The last pools in numbers: bytes, ratios, and health as ZFS exporters number it."""
        reading = self._state.known_pools()
        return {name: figures.figures(pool) for name, pool in reading.items()}

    def vdev_errors(self) -> Iterator[tuple[str, str, str, float]]:
        """Pool, device, kind and number of errors, as last read, of devices that have any."""
        for name, pool in self._state.known_pools().items():
            for error in figures.vdev_errors(pool):
                yield name, *error

    def last_outcomes(self) -> Iterator[tuple[str, str, float]]:
        """`snapshot` or `replication`, `success` or `failure`, and when that was last read."""
        return life_preserver.last_outcomes(self._store)

    async def _tell(self, name: str, text: str) -> None:
        try:
            await self._state.trouble(name, text)
        except SysadmdError as error:
            # The disk is full: it is told when there is room again, if it is still so.
            log.error("the trouble of %s can't be kept: %s", name, error)

    async def _keep(self, collector: Collector) -> None:
        loop = asyncio.get_running_loop()
        waits = backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            begun = loop.time()
            try:
                await collector.run()
            except Exception as error:  # one collector's trouble is its own
                self._statuses[collector.name].crash()
                if loop.time() - begun >= SOUND:
                    waits = backoff(FIRST_PAUSE, LONGEST_PAUSE)
                pause = next(waits)
                # A disk that is full or damaged is no defect of ours: the sentence says it all.
                defect = not isinstance(error, SysadmdError)
                said = f"{type(error).__name__}: {error}" if defect else str(error)
                text = printable(said[:TEXT_LENGTH])
                log.error(
                    "the collector %s failed; it is started again in %g s: %s",
                    collector.name,
                    pause,
                    text,
                    exc_info=defect,
                )
                await self._tell(collector.name, text)
                await asyncio.sleep(pause)


async def _begin(collector: Collector) -> None:
    try:
        async with asyncio.timeout(BEGINNING):
            await collector.begin()
    except Exception as error:  # noqa: BLE001 - it comes again, and is told, in `run`
        log.debug("no first reading of %s yet: %r", collector.name, error)
