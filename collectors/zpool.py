"""Pools: asks `zpool` at every interval, sooner on a hint, and tells the state.

Silence is never health: a `zpool` that is missing, fails or hangs is trouble, told once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from collectors import pools, zpool_output
from collectors.hints import Hints
from collectors.status import Status
from collectors.system_state import SystemState
from collectors.zpool_query import Absent, Hung, Output, Outstanding, ZpoolQuery
from sysadmd.settings import CollectorSettings, ZpoolSettings

log = logging.getLogger(__name__)

# Hints come in bursts (a scrub, a new pool): no look sooner than this after the last, s.
LEAST_PAUSE: Final = 1.0
# How long the daemon's start waits for the very first answer; s.
FIRST_ANSWER: Final = 3.0
# Of a tool's complaint, what is told.
TEXT_LENGTH: Final = 300


class Failed(Exception):
    """The query ended, but not with an answer."""


class PoolCollector:
    """Looks at the pools."""

    name = "zpool"

    def __init__(
        self,
        state: SystemState,
        settings: Callable[[], CollectorSettings],
        status: Status,
        state_dir: Path,
    ) -> None:
        self._state = state
        self._settings = settings
        self._status = status
        self._query = ZpoolQuery(state_dir)
        self._hints = Hints(state_dir)
        # The look that `begin` began, until `run` takes it over.
        self._first: asyncio.Task[None] | None = None
        # Clients may have been shown the state: a pool that is read now has appeared.
        self._shown = False
        # The command was there once: from then on its absence is trouble.
        self._seen = False
        self._said_absent = False
        # The trouble that the log has been told of.
        self._said: str | None = None
        # What this machine's zpool lacks, found out by its own words.
        self._lacks: frozenset[str] = frozenset()
        self._exact = True

    async def begin(self) -> None:
        """The very first reading, unless there is one: what is well is no news yet."""
        settings = self._settings().zpool
        if settings.enabled and not self._state.knows("pools"):
            self._first = asyncio.create_task(self._look(settings))
            await asyncio.wait({self._first}, timeout=FIRST_ANSWER)
        self._shown = True

    async def run(self) -> None:
        """Look at once, then at every interval or hint; until cancelled."""
        loop = asyncio.get_running_loop()
        first, self._first = self._first, None
        try:
            if first is not None:
                await first
            while True:
                settings = self._settings().zpool
                begun = loop.time()
                if settings.enabled:
                    await self._look(settings)
                else:
                    self._status.enable(False)
                    await self._state.no_pools()
                await asyncio.sleep(LEAST_PAUSE)
                await self._hints.wait(begun + settings.interval - loop.time())
        finally:
            self._hints.close()

    async def _look(self, settings: ZpoolSettings) -> None:
        self._seen = self._seen or settings.enabled is True or self._state.knows("pools")
        try:
            reading, trouble = await self._reading(settings)
        except Absent as error:
            await self._absent(settings, str(error))
        except (Hung, Outstanding) as error:
            await self._failed(f"{settings.command} does not answer", str(error))
        except (Failed, OSError) as error:
            await self._failed(str(error), str(error))
        else:
            self._seen = True
            self._status.enable(True)
            await self._hints.start(settings.command)
            if trouble is None:
                self._status.good()
                if self._said is not None:
                    self._said = None
                    log.info("pools can be read again")
            await self._state.pools(reading, trouble, first=not self._shown)
            if trouble is not None:
                await self._failed(trouble, trouble)

    async def _absent(self, settings: ZpoolSettings, text: str) -> None:
        if self._seen:
            await self._failed(text, text)
            return
        self._status.enable(False)
        if not self._said_absent:
            self._said_absent = True
            log.info(
                "there is no %s on this machine: pools are not watched; looking for it again"
                " every %g s",
                settings.command,
                settings.interval,
            )

    async def _failed(self, text: str, reason: str) -> None:
        self._seen = True
        self._status.enable(True)
        self._status.failed()
        # Another zpool may stand there when it answers again.
        self._lacks, self._exact = frozenset(), True
        if text != self._said:
            self._said = text
            log.warning(
                "pools can't be read: %s; the last known ones stay, trying again at every"
                " interval",
                reason,
            )
        await self._state.trouble(self.name, text)

    async def _reading(
        self, settings: ZpoolSettings
    ) -> tuple[dict[str, dict[str, object]], str | None]:
        """All pools, and what is wrong with the answer, if anything is.

        A row that can't be read, or a `status` that fails or leaves a pool out, hides nothing:
        what was last known of that pool, or of its devices, stays.
        """
        listed, trouble = await self._list(settings)
        known = self._state.known_pools()
        reading: dict[str, dict[str, object]] = {}
        try:
            details = await self._details(settings) if listed else {}
        except (Hung, Outstanding):
            details, trouble = {}, f"{settings.command} does not answer"
        except (Failed, OSError) as error:
            details, trouble = {}, str(error)
        reading = pools.combine(listed, details, settings.capacity_warning)
        for name, pool in known.items():
            if trouble is not None:
                reading.setdefault(name, dict(pool))
            if name in reading and name not in details:
                for key in pool.keys() & {"vdevs", "scan"}:
                    reading[name][key] = pool[key]
        return reading, trouble

    async def _list(
        self, settings: ZpoolSettings
    ) -> tuple[dict[str, dict[str, str]], str | None]:
        while True:
            arguments = zpool_output.list_arguments(self._lacks)
            output = await self._query.ask(settings.command, arguments, settings.timeout)
            if output.status == 0:
                break
            column = zpool_output.unknown_column(output.stderr)
            if column is None or column in self._lacks:
                raise _failure(settings.command, "list", output)
            self._lacks |= {column}
        answer = zpool_output.parse_list(output.stdout, self._lacks)
        trouble = None
        if answer.broken:
            names = ", ".join(answer.broken)
            trouble = f"{settings.command} list gave lines that can't be read: {names}"
            if not answer.pools:
                raise Failed(trouble[:TEXT_LENGTH])
        return {name: dict(pool) for name, pool in answer.pools.items()}, trouble

    async def _details(self, settings: ZpoolSettings) -> dict[str, zpool_output.Detail]:
        """What `status` adds; the list stands without it."""
        # -p: exact counts where the tool knows it.
        options = ("-p",) if self._exact else ()
        output = await self._query.ask(settings.command, ("status", *options), settings.timeout)
        if output.status and self._exact and "invalid option" in output.stderr:
            self._exact = False
            return await self._details(settings)
        if output.status:
            raise _failure(settings.command, "status", output)
        return zpool_output.parse_status(output.stdout)


def _failure(command: str, action: str, output: Output) -> Failed:
    text = " ".join(output.stderr.split()) or f"exit status {output.status}"
    return Failed(f"{command} {action}: {text[:TEXT_LENGTH]}")
