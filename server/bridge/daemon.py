"""`sysadmd bridge`: the composition. What it serves is the switchboard."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final

from server.bridge import registry
from server.bridge.metrics import BridgeMetrics
from server.bridge.peer import BridgePeer
from server.bridge.registry import Keys
from server.bridge.switchboard import Switchboard
from server.certificate import Certificate
from server.loop_clock import LoopClock
from server.service import Options, Service
from server.wire import listener
from server.wire.connection import Connection
from server.wire.http import Gate
from server.wire.listener import Listeners
from server.wire.origins import Origins
from sysadmd.apart import apart, in_time
from sysadmd.errors import SysadmdError
from sysadmd.machine import default_bridge_dir, plainly
from sysadmd.settings import BridgeSettings, Settings

log = logging.getLogger(__name__)

# How often the file of keys is looked at: who is revoked is gone within a second; s.
LOOK: Final = 0.4
# When a look takes so long it is said that the disk hangs; s.
LONG: Final = 5.0


class BridgeDaemon(Service):
    """The running bridge."""

    title = "sysadmd bridge"
    section = "bridge"

    @staticmethod
    def path(options: Options, settings: Settings) -> Path:
        """As `Service` has it."""
        return Path(options.state_dir or settings.bridge.state_dir or default_bridge_dir())

    @staticmethod
    def fixed(settings: Settings) -> dict[str, object]:
        """As `Service` has it."""
        bridge = settings.bridge
        return {"bridge.state_dir": bridge.state_dir, "bridge.listen": bridge.listen}

    def bridge(self) -> BridgeSettings:
        """As a reload has left it."""
        return self.settings.bridge

    async def serve(self, certificate: Certificate, sockets: list[socket.socket]) -> None:
        """As `Service` has it."""
        path = self.state.path
        with self.state.in_words():
            stamp = registry.stamp(path)
            board = Switchboard(await in_time(partial(registry.read, path), "keys"))
        clock = LoopClock()
        gate = Gate(
            Origins(lambda: ()).refused,
            lambda address: len(board.peers) >= self.bridge().max_clients,
            lambda: [clock.trouble] if clock.trouble else [],
            BridgeMetrics(board),
        )

        def welcome(connection: Connection) -> BridgePeer:
            return BridgePeer(connection, board, self.bridge, gate)

        listeners = Listeners(
            sockets, None, lambda: certificate.context, self.door, welcome, clock.now
        )

        async def put_in_force(settings: Settings) -> None:
            """All of it is asked for when it is needed."""

        self.obey_signals()
        listeners.open()
        log.info(
            "%d keys are registered here; `sysadmd bridge-key add` registers more",
            len(board.keys),
        )
        parts: list[Coroutine[Any, Any, None]] = [clock.run(), self._keep_keys(board, stamp)]
        try:
            async with asyncio.TaskGroup() as group:
                await self.run_until_told(
                    *(group, parts, listeners, certificate),
                    *(listener.url(sockets[0]), put_in_force, lambda: None),
                )
        finally:
            self.state.remove_endpoint()

    async def _keep_keys(self, board: Switchboard, stamp: registry.Stamp) -> None:
        """See to it that who was revoked is gone within a second; runs until cancelled."""
        said = ""
        found: Keys | Exception | None
        while True:
            await asyncio.sleep(LOOK)
            looking = apart(partial(registry.look, self.state.path, stamp), "keys")
            await asyncio.wait([looking], timeout=LONG)
            if not looking.done():
                log.error("%s: no answer from the disk within %g s", _AS_THEY_WERE, LONG)
                # It may hang for days: each look more would be a thread more that hangs.
                await asyncio.wait([looking])
            try:
                stamp, found = looking.result()
            except (SysadmdError, OSError) as error:
                found = error
            if isinstance(found, Exception):
                why = plainly(found)
                if why != said:
                    log.error("%s: %s", _AS_THEY_WERE, why)
                said = why
                continue
            said = ""
            if found is not None:
                board.set_keys(found)
                log.info("%d keys are registered now", len(found))


_AS_THEY_WERE: Final = "the keys stay what they were"
