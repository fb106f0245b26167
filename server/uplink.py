"""The server at a bridge: goes out to it, and comes again whenever it was cut off.

Who calls over it is taken care of by `calls`. Source: docs/bridge.md.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from server.calls import Calls
from server.wire.listener import Listeners
from sysadmd.apart import in_time
from sysadmd.bridge_link import join
from sysadmd.client import pauses
from sysadmd.errors import SysadmdError
from sysadmd.key_file import make_key, read_key
from sysadmd.keys import PrivateKey
from sysadmd.machine import host_name
from sysadmd.settings import BridgeClientSettings
from sysadmd.store import Store
from sysadmd.target import Target

log = logging.getLogger(__name__)

# A connection that has lasted so long was a good one: the next attempt is made soon; s.
GOOD: Final = 30.0
# The key of the state directory, if the configuration names no other.
KEY_FILE: Final = "bridge_key.pem"


class Uplink:
    """Keeps a connection to the configured bridge, if there is one."""

    def __init__(
        self,
        settings: Callable[[], BridgeClientSettings],
        directory: Path,
        store: Store,
        listeners: Listeners,
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._store = store
        self._listeners = listeners
        self._changed = asyncio.Event()

    def reconfigure(self) -> None:
        """The settings may have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Be there until cancelled."""
        while True:
            self._changed.clear()
            settings = self._settings()
            keeping = asyncio.ensure_future(self._keep(settings))
            changed = asyncio.ensure_future(self._until_changed(settings))
            try:
                await asyncio.wait((keeping, changed), return_when=asyncio.FIRST_COMPLETED)
                if keeping.done():
                    # A defect.
                    keeping.result()
            finally:
                for task in (keeping, changed):
                    task.cancel()
                await asyncio.wait((keeping, changed))

    async def _until_changed(self, settings: BridgeClientSettings) -> None:
        while self._settings() == settings:
            self._changed.clear()
            await self._changed.wait()

    async def _keep(self, settings: BridgeClientSettings) -> None:
        """Connect again and again; for ever."""
        if not settings.url:
            await asyncio.Event().wait()
        said, waits = "", pauses()
        while True:
            begun = time.monotonic()
            try:
                await self._connect(settings)
            except SysadmdError as error:
                if str(error) != said:
                    log.warning("not at the bridge %s: %s", settings.url, error)
                said = str(error)
            except Exception:  # the outer edge: nothing that a bridge says ends the daemon
                log.exception("the connection to the bridge %s failed", settings.url)
            if time.monotonic() - begun > GOOD:
                said, waits = "", pauses()
            await asyncio.sleep(next(waits))

    async def _key(self, settings: BridgeClientSettings) -> PrivateKey:
        """Raises: BadRequest, SysadmdError."""
        path = Path(settings.key) if settings.key else self._directory / KEY_FILE

        def work() -> PrivateKey:
            if not settings.key and not path.exists():
                return make_key(path)
            return read_key(path)

        return await in_time(work, "the key for the bridge")

    async def _connect(self, settings: BridgeClientSettings) -> None:
        """Be at the bridge until that is lost. Raises: Unreachable, SysadmdError."""
        cafile = Path(settings.cafile) if settings.cafile else None
        target = Target(settings.url, cafile=cafile, pin=settings.pin or None)
        calls = Calls(await self._key(settings), self._store, self._listeners)
        async with join(
            *(target, calls.key, "server", calls),
            hostname=host_name(),
            checksums=calls.checksums,
        ) as link:
            log.info(
                "at the bridge %s; clients know this server there as %s",
                settings.url,
                calls.key.public.fingerprint,
            )
            await calls.serve(link)
