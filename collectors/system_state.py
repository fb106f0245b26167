"""The system's state: what each watcher last read, and the events that follow from a change.

The readings in the database are what was last told or looked at; a new one is compared with
them, and stored together with its event in one transaction. A change that happened while the
daemon was down is therefore found, and told, at its next start. Watches nothing itself.

Source: events.rst "System State"; docs/protocol.md for the additions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from sqlite3 import Connection
from typing import Any, Final

import msgspec

from collectors import pools, trouble_kinds
from collectors.pools import Pools
from sysadmd import journal
from sysadmd.events import format_priority
from sysadmd.journal import Transaction
from sysadmd.machine import host_name
from sysadmd.store import Store

SCHEMA: Final = (
    """
    CREATE TABLE readings (
        name TEXT PRIMARY KEY,
        value BLOB NOT NULL             -- JSON
    );
    CREATE TABLE positions (            -- how far each log file has been read
        path TEXT PRIMARY KEY,
        value BLOB NOT NULL             -- JSON
    );
    """,
    # Priorities of pools as numbers: they were kept as texts such as `9/Urgent`.
    """
    UPDATE readings SET value = (
        SELECT CAST(json_group_object(pool.key, json_set(
            pool.value, '$.priority', CAST(json_extract(pool.value, '$.priority') AS INTEGER)
        )) AS BLOB) FROM json_each(CAST(readings.value AS TEXT)) AS pool
    ) WHERE name = 'pools';
    """,
    # What rotated files are known by; of a log without a row the position knows it, by inodes.
    """
    CREATE TABLE log_files (            -- which files of each log have been read
        path TEXT PRIMARY KEY,
        value BLOB NOT NULL             -- JSON
    );
    """,
)

# A renamed host is worth a warning.
RENAMED: Final = 3
# Bytes of an event's args. With more pools than fit, the details go first, then healthy pools
# from the end of the alphabet; `pools_left_out` says how many.
ARGS_LIMIT: Final = 400 * 1024

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


def current(db: Connection) -> bytes | None:
    """`args` of the state as it is, nothing having changed; None before any reading."""
    hostname = read(db, "hostname")
    zpools = read(db, "pools")
    if hostname is None and zpools is None:
        return None
    return _args(hostname, zpools or {}, read(db, "trouble") or {}, 0, {})


def read(db: Connection, name: str) -> Any:
    """A stored reading; None: there is none."""
    row = db.execute("SELECT value FROM readings WHERE name = ?", (name,)).fetchone()
    return _decode(row[0]) if row else None


def write(db: Connection, name: str, value: object) -> None:
    """Store a reading."""
    db.execute("INSERT OR REPLACE INTO readings VALUES (?, ?)", (name, _encode(value)))


class SystemState:
    """Takes readings; stores them and tells what changed."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        # What is known to be stored: a look that finds nothing new costs no disk sync.
        self._stored: dict[str, Any] = {}

    async def hostname(self, name: str) -> None:
        """The host name as it is now."""
        if self._stored.get("hostname") == name:
            return

        def change(change: Transaction) -> None:
            old = read(change.db, "hostname")
            if old == name:
                return
            write(change.db, "hostname", name)
            if old is not None:
                more = {"hostnamechanged": "true", "previous_hostname": old}
                self._tell(change, RENAMED, more)

        await self._store.write(change)
        self._stored["hostname"] = name

    async def no_hostname(self) -> None:
        """It is not watched any more: what was known is forgotten, untold."""
        if self._stored.get("hostname", "unknown") is None:
            return

        def change(change: Transaction) -> None:
            change.db.execute("DELETE FROM readings WHERE name = 'hostname'")

        if self.knows("hostname"):
            await self._store.write(change)
        self._stored["hostname"] = None

    async def pools(
        self,
        reading: Pools | None,
        troubles: Mapping[str, str | None] | None = None,
        *,
        first: bool = False,
    ) -> None:
        """All pools as they are now; None: they could not be asked.

        troubles: of each answer that was asked for, what it lacks, as `trouble` has it. first:
        nobody was shown the state yet; a pool that is read later has appeared.
        """
        heard = {pools.LIST: None} if troubles is None else troubles
        known_already = reading is None or self._stored.get("pools") == reading
        if known_already and all(self._is_known(who, text) for who, text in heard.items()):
            return
        kinds = {who: _kind(text) for who, text in heard.items()}

        def change(change: Transaction) -> None:
            told, urgency, more = False, 0, dict[str, Any]()
            if reading is not None:
                known = read(change.db, "pools")
                news = pools.compare({} if known is None and not first else known, reading)
                write(change.db, "pools", reading)
                told, urgency = news.told, news.priority
                more = {"vanished": list(news.vanished)} if news.vanished else {}
            for who, text in heard.items():
                if self._set_trouble(change.db, who, text, kinds[who]):
                    told, urgency = True, max(urgency, pools.TROUBLE if text else 0)
            if told:
                self._tell(change, urgency, more)

        await self._store.write(change)
        if reading is not None:
            self._stored["pools"] = reading
        self._stored["kinds"] = {**self._kinds, **kinds}

    async def no_pools(self) -> None:
        """Pools are not watched any more: what was known of them is forgotten, untold."""
        if self._stored.get("pools") != () and self.known_pools():

            def change(change: Transaction) -> None:
                change.db.execute("DELETE FROM readings WHERE name = 'pools'")

            await self._store.write(change)
            self._stored["pools"] = ()
        await self.pools(None, {pools.LIST: None, pools.STATUS: None})

    async def trouble(self, collector: str, text: str | None, kind: str | None = None) -> None:
        """A collector's trouble, or None: it is over.

        Told once per kind until it is over, however often kinds take turns. kind: what makes it
        another trouble than the one before; without it the text does, but for its numbers.
        """
        kind = _kind(text, kind)
        if self._kinds.get(collector, "") == kind:
            return

        def change(change: Transaction) -> None:
            if self._set_trouble(change.db, collector, text, kind):
                self._tell(change, pools.TROUBLE if text else 0, {})

        await self._store.write(change)
        self._stored["kinds"] = {**self._kinds, collector: kind}

    def known_pools(self) -> dict[str, dict[str, Any]]:
        """The pools as last stored."""
        known: dict[str, dict[str, Any]] = read(self._store.reader, "pools") or {}
        return known

    def knows(self, name: str) -> bool:
        """Was it ever read on this machine?"""
        return read(self._store.reader, name) is not None

    @property
    def _kinds(self) -> dict[str, str | None]:
        """The kind of trouble that each source is known to be in; None: in none."""
        kinds: dict[str, str | None] = self._stored.get("kinds", {})
        return kinds

    def _is_known(self, collector: str, text: str | None) -> bool:
        """Is it known to be stored?"""
        return self._kinds.get(collector, "") == _kind(text)

    def _set_trouble(
        self, db: Connection, collector: str, text: str | None, kind: str | None
    ) -> bool:
        """Store a collector's trouble; False: that is no news."""
        troubles: dict[str, str] = read(db, "trouble") or {}
        if text is None and collector not in troubles:
            return False
        before = troubles.pop(collector, None)
        kinds: dict[str, list[str]] = read(db, "trouble_kinds") or {}
        # An earlier version kept the text alone.
        told = kinds.pop(collector, None) or ([_kind(before) or ""] if before else [])
        new = True
        if text is not None:
            troubles[collector] = text
            kinds[collector], new = trouble_kinds.remember(told, kind or "")
            new = new and text != before
        write(db, "trouble", troubles)
        write(db, "trouble_kinds", kinds)
        return new

    def _tell(self, change: Transaction, urgency: int, more: Mapping[str, Any]) -> None:
        hostname: str | None = read(change.db, "hostname")
        zpools: dict[str, dict[str, Any]] = read(change.db, "pools") or {}
        troubles: dict[str, str] = read(change.db, "trouble") or {}
        body = _args(hostname, zpools, troubles, urgency, more)
        journal.append(change, "system-state", body, self._clock())


def _args(
    hostname: str | None,
    zpools: Pools,
    troubles: Mapping[str, str],
    urgency: int,
    more: Mapping[str, Any],
) -> bytes:
    """The document's `args`; `urgency` is beside the pools' priorities and any trouble."""
    worst = max(urgency, pools.highest(zpools), pools.TROUBLE if troubles else 0)
    args: dict[str, Any] = {
        # Where nobody watches it, what it is now.
        "hostname": host_name() if hostname is None else hostname,
        "hostnamechanged": "false",
        **more,
        "zpools": {
            name: {
                **{key: value for key, value in pool.items() if key not in pools.UNTOLD},
                "priority": format_priority(pool["priority"]),
            }
            for name, pool in zpools.items()
        },
        "priority": format_priority(worst),
    }
    if troubles:
        # What zpool's are about they say themselves.
        named = (pools.LIST, pools.STATUS)
        texts = (text if who in named else f"{who}: {text}" for who, text in troubles.items())
        # Of a zpool that can't be run both say the same.
        args["error"] = "; ".join(dict.fromkeys(texts))
    encoded = _encode(args)
    if len(encoded) > ARGS_LIMIT:
        encoded = _fit(args, zpools)
    return encoded


def _fit(args: dict[str, Any], zpools: Pools) -> bytes:
    """`args` within ARGS_LIMIT: without details, then without healthy pools at the end."""
    plain = {
        name: {key: value for key, value in pool.items() if key not in pools.BULKY}
        for name, pool in args["zpools"].items()
    }
    order = sorted(plain, key=lambda name: (zpools[name]["priority"] == 0, name))
    left_out = 0
    while True:
        kept = {name: plain[name] for name in order[: len(order) - left_out]}
        fitted = {**args, "zpools": kept}
        if left_out:
            fitted["pools_left_out"] = left_out
        encoded = _encode(fitted)
        if len(encoded) <= ARGS_LIMIT or left_out >= len(order):
            return encoded
        left_out += max(1, len(order) // 20)


def _kind(text: str | None, kind: str | None = None) -> str | None:
    """The kind of a trouble, if it is one."""
    return None if text is None else kind or trouble_kinds.kind_of(text)
