"""Pools: asks `zpool` at every interval, sooner on a hint, and tells the state.

Silence is never health: a `zpool` that is missing, fails or hangs is trouble, told once. Its
`list` and `status` are two answers, each with a trouble of its own, and neither keeps back what
the other has to say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from collectors import pools, trouble_kinds, zpool_output, zpool_query
from collectors.hints import Hints
from collectors.status import Status
from collectors.system_state import SystemState
from collectors.zpool_query import Absent, Hung, Output, Outstanding, ZpoolQuery
from sysadmd.apart import apart
from sysadmd.settings import CollectorSettings, ZpoolSettings
from sysadmd.text import printable

log = logging.getLogger(__name__)

# Hints come in bursts (a scrub, a new pool): no look sooner than this after the last, s.
LEAST_PAUSE: Final = 1.0
# How long the daemon's start waits for the very first answer; s.
FIRST_ANSWER: Final = 3.0
# Of a tool's complaint, what is told.
TEXT_LENGTH: Final = 300
# What stands for bytes that are no UTF-8.
MISSING: Final = "\ufffd"
# Of a machine that had pools.
NO_ZFS: Final = "there is no ZFS in the kernel; if there is to be: kldload zfs"


class Failed(Exception):
    """The query ended, but not with an answer."""


@dataclass(frozen=True, slots=True)
class Listed:
    """What `list` gave.

    whole: it speaks of all pools there are; trouble: what is wrong with it, if anything is.
    """

    pools: dict[str, dict[str, str]]
    whole: bool
    trouble: str | None


class PoolCollector:
    """Looks at the pools."""

    name = pools.LIST

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
        # Of each answer, the kinds of trouble that the log has been told of.
        self._said: dict[str, list[str]] = {}
        # What this machine's zpool lacks, found out by its own words; and which file it is.
        self._lacks: frozenset[str] = frozenset()
        self._exact = True
        self._program: zpool_query.Identity | None = None
        # The last list had rows of dashes.
        self._dashes = False
        # Pools of which the status has spoken, and of which it did not the last time.
        self._spoken_of: set[str] = set()
        self._left_out: set[str] = set()

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
        known = self._state.known_pools()
        if settings.enabled == "auto" and not zpool_query.kernel_has_zfs():
            await self._without_zfs(settings, known)
            return
        self._seen = self._seen or settings.enabled is True or self._state.knows("pools")
        self._learn_anew(settings.command)
        try:
            listed = await self._list(settings)
        except Absent as error:
            await self._absent(settings, str(error))
            return
        except (Hung, Outstanding) as error:
            # Nor would it answer to another question.
            text = f"{settings.command} does not answer"
            await self._store(None, {pools.LIST: text}, str(error))
            return
        except (Failed, OSError) as error:
            listed = Listed({}, whole=False, trouble=str(error))
        if not listed.whole:
            # Who is not named may be one of those that could not be read.
            for name, pool in known.items():
                listed.pools.setdefault(name, pools.columns_of(pool))
        troubles = {pools.LIST: listed.trouble}
        details: dict[str, zpool_output.Detail] | None = {}
        reason = ""
        if listed.pools:
            details, trouble, reason = await self._status_of(settings, set(listed.pools))
            troubles[pools.STATUS] = trouble
        elif listed.whole:
            troubles[pools.STATUS] = None
        reading = pools.combine(listed.pools, details, settings.capacity_warning, known)
        if listed.trouble is None:
            await self._hints.start(settings.command)
        await self._store(reading if listed.whole or reading else None, troubles, reason)

    async def _store(
        self,
        reading: dict[str, dict[str, Any]] | None,
        troubles: dict[str, str | None],
        reason: str = "",
    ) -> None:
        """Tell the state, the metrics and the log. reason: more of a trouble, for the log."""
        self._seen = True
        self._status.enable(True)
        if any(troubles.values()):
            self._status.failed()
        else:
            self._status.good()
        for who, text in troubles.items():
            self._say(who, text, reason)
        if troubles.get(pools.LIST) is not None:
            # Another zpool may stand there when it answers again.
            self._lacks, self._exact = frozenset(), True
        await self._state.pools(reading, troubles, first=not self._shown)

    def _say(self, who: str, text: str | None, reason: str) -> None:
        """Each kind of trouble once to the log."""
        what = "pools" if who == pools.LIST else "the devices of pools"
        if text is None:
            if self._said.pop(who, None):
                log.info("%s can be read again", what)
            return
        kind = trouble_kinds.kind_of(text)
        self._said[who], new = trouble_kinds.remember(self._said.get(who, ()), kind)
        if new:
            log.warning(
                "%s can't be read: %s; the last known ones stay, trying again at every"
                " interval",
                what,
                reason or text,
            )

    async def _absent(self, settings: ZpoolSettings, text: str) -> None:
        if self._seen:
            await self._store(None, {pools.LIST: text})
            return
        self._status.enable(False)
        self._say_absent(settings, f"there is no {settings.command} on this machine")

    async def _without_zfs(
        self, settings: ZpoolSettings, known: dict[str, dict[str, Any]]
    ) -> None:
        """Where no pool was known none is missed, whether or not zpool was ever asked."""
        if known:
            await self._store(None, {pools.LIST: NO_ZFS})
            return
        self._status.enable(False)
        await self._state.no_pools()
        self._say_absent(settings, "this machine's kernel has no ZFS")

    def _say_absent(self, settings: ZpoolSettings, what: str) -> None:
        if not self._said_absent:
            self._said_absent = True
            log.info(
                "%s: pools are not watched; looking for it again every %g s",
                what,
                settings.interval,
            )

    def _learn_anew(self, command: str) -> None:
        """What was learnt of one zpool does not hold of another at its place."""
        program = zpool_query.identity(command)
        if program != self._program:
            self._program = program
            self._lacks, self._exact = frozenset(), True

    async def _list(self, settings: ZpoolSettings) -> Listed:
        """Raises: Absent, Hung, Outstanding, Failed, OSError."""
        while True:
            arguments = zpool_output.list_arguments(self._lacks)
            output = await self._query.ask(settings.command, arguments, settings.timeout)
            if output.status == 0:
                break
            column = zpool_output.unknown_column(output.stderr)
            if column is None or column in self._lacks:
                raise _failure(settings.command, "list", output)
            self._lacks |= {column}
        if not output.stdout.strip() and not zpool_output.tells_of_none(output.stderr):
            # It says why it shows none.
            raise _failure(settings.command, "list", output)
        lacks = self._lacks
        # However much it is, nobody waits for it.
        answer = await apart(lambda: zpool_output.parse_list(output.stdout, lacks), "zpool")
        troubles: list[str] = []
        if answer.dashes and (self._dashes or not answer.pools):
            # One beside others may be a pool that went away in that very moment.
            troubles.append(f"gives nothing but dashes for pools: {answer.dashes}")
        if answer.broken:
            troubles.append(f"gave lines that can't be read: {_named(answer.broken)}")
        self._dashes = bool(answer.dashes)
        text = f"{settings.command} list {' and '.join(troubles)}"[:TEXT_LENGTH]
        found = {name: dict(pool) for name, pool in answer.pools.items()}
        whole = not answer.dashes and not answer.broken
        return Listed(found, whole, text if troubles else None)

    async def _status_of(
        self, settings: ZpoolSettings, names: set[str]
    ) -> tuple[dict[str, zpool_output.Detail] | None, str | None, str]:
        """What `status` says of pools by these names, its trouble, and more for the log."""
        command = settings.command
        try:
            details = await self._details(settings)
        except (Hung, Outstanding) as error:
            return None, f"{command} status does not answer", str(error)
        except (Absent, Failed, OSError) as error:
            return None, str(error), ""
        if details is None:
            return None, f"{command} status gave what can't be read", ""
        # Exported between the two commands, a pool is in neither the next time.
        self._spoken_of = names & (self._spoken_of | details.keys())
        left_out = self._spoken_of - details.keys() if details else set[str]()
        unread = {name for name, detail in details.items() if detail.unread and name in names}
        unread |= left_out & self._left_out
        self._left_out = left_out
        if not unread:
            return details, None, ""
        of = ", ".join(sorted(unread))
        text = f"{command} status gave devices that can't be read, of {of}"
        return details, text[:TEXT_LENGTH], ""

    async def _details(self, settings: ZpoolSettings) -> dict[str, zpool_output.Detail] | None:
        """What `status` adds; the list stands without it. None: it is not understood.

        Raises: Absent, Hung, Outstanding, Failed, OSError.
        """
        # -p: exact counts where the tool knows it.
        options = ("-p",) if self._exact else ()
        output = await self._query.ask(settings.command, ("status", *options), settings.timeout)
        if output.status and self._exact and "invalid option" in output.stderr:
            self._exact = False
            return await self._details(settings)
        if output.status:
            raise _failure(settings.command, "status", output)
        details = await apart(lambda: zpool_output.parse_status(output.stdout), "zpool")
        return details if details or zpool_output.tells_of_none(output.stdout) else None


def _named(rows: Sequence[str]) -> str:
    """Rows that can't be read, by the pools' names where they begin with one."""
    names = [row for row in rows if zpool_output.is_name(row.replace(MISSING, "_"))]
    others = len(rows) - len(names)
    return ", ".join([*names, *([f"{others} of no pool's name"] if others else [])])


def _failure(command: str, action: str, output: Output) -> Failed:
    text = printable(" ".join(output.stderr.split())) or f"exit status {output.status}"
    return Failed(f"{command} {action}: {text[:TEXT_LENGTH]}")
