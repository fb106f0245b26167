"""Keeps the collectors going, each for itself: restarts one that raises, and says so."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final, Protocol

from collectors import system_state
from collectors.hostname import HostnameWatcher
from collectors.life_preserver import LogWatcher
from collectors.status import Status
from collectors.system_state import SystemState
from collectors.zpool import PoolWatcher
from sysadmd.backoff import backoff
from sysadmd.errors import SysadmdError
from sysadmd.settings import Collectors as Settings
from sysadmd.store import Store

log = logging.getLogger(__name__)

# A collector that raised is started again after so many s, doubled up to the second figure.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
# The start waits no longer for what does not answer; s.
BEGINNING: Final = 10.0
# One that ran this long before it raised begins with the first pause again; s.
SOUND: Final = 300.0


class Watcher(Protocol):
    """A collector."""

    name: str

    async def begin(self) -> None: ...

    async def run(self) -> None: ...


class Collectors:
    """All collectors of the machine."""

    def __init__(self, store: Store, settings: Settings, state_dir: Path) -> None:
        self._settings = settings
        self._store = store
        self._state = SystemState(store)
        self._statuses = {
            name: Status(name) for name in ("hostname", "zpool", "life_preserver")
        }
        current = self._current
        self._log = LogWatcher(store, self._state, current, self._statuses["life_preserver"])
        self._watchers: tuple[Watcher, ...] = (
            HostnameWatcher(self._state, current, self._statuses["hostname"]),
            PoolWatcher(self._state, current, self._statuses["zpool"], state_dir),
            self._log,
        )

    def _current(self) -> Settings:
        return self._settings

    async def begin(self) -> None:
        """Take first readings where there are none: before anyone can ask for the state."""
        await asyncio.gather(*map(_begin, self._watchers))

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for watcher in self._watchers:
                group.create_task(self._keep(watcher))

    async def reconfigure(self, settings: Settings) -> None:
        """Take new settings at each collector's next look; of a new log, all from now on."""
        self._settings = settings
        await _begin(self._log)

    def status(self) -> list[Status]:
        """How each is doing."""
        return list(self._statuses.values())

    def pool_figures(self) -> dict[str, dict[str, float]]:
        """The last pools in numbers: bytes, ratios, and health as ZFS exporters number it."""
        reading = self._state.known_pools()
        return {name: system_state.figures(pool) for name, pool in reading.items()}

    async def _tell(self, name: str, text: str) -> None:
        try:
            await self._state.trouble(name, text)
        except SysadmdError as error:
            # The disk is full: it is told when there is room again, if it is still so.
            log.error("the trouble of %s can't be kept: %s", name, error)

    async def _keep(self, watcher: Watcher) -> None:
        loop = asyncio.get_running_loop()
        waits = backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            begun = loop.time()
            try:
                await watcher.run()
            except Exception as error:  # one collector's trouble is its own
                self._statuses[watcher.name].failed()
                if loop.time() - begun >= SOUND:
                    waits = backoff(FIRST_PAUSE, LONGEST_PAUSE)
                pause = next(waits)
                text = f"{type(error).__name__}: {error}"
                log.exception(
                    "the collector %s failed; it is started again in %g s", watcher.name, pause
                )
                await self._tell(watcher.name, text)
                await asyncio.sleep(pause)


async def _begin(watcher: Watcher) -> None:
    try:
        async with asyncio.timeout(BEGINNING):
            await watcher.begin()
    except Exception as error:  # noqa: BLE001 - it comes again, and is told, in `run`
        log.debug("no first reading of %s yet: %r", watcher.name, error)
