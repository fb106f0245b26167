"""The host name, looked at every few seconds. Source: gethostname(3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from collectors.status import Status
from collectors.system_state import SystemState
from sysadmd.machine import host_name
from sysadmd.settings import CollectorSettings


class HostnameCollector:
    """Tells the state what the host is called."""

    name = "hostname"

    def __init__(
        self, state: SystemState, settings: Callable[[], CollectorSettings], status: Status
    ) -> None:
        self._state = state
        self._settings = settings
        self._status = status

    async def begin(self) -> None:
        """The first reading, unless there is one; none is kept that nobody watches."""
        if not self._settings().hostname.enabled:
            await self._state.no_hostname()
        elif not self._state.knows("hostname"):
            await self._state.hostname(host_name())

    async def run(self) -> None:
        """Look at once, then at every interval; until cancelled."""
        while True:
            settings = self._settings().hostname
            self._status.enable(settings.enabled)
            if settings.enabled:
                await self._state.hostname(host_name())
                self._status.good()
            else:
                await self._state.no_hostname()
            await self._state.trouble(self.name, None)
            await asyncio.sleep(settings.interval)
