"""Pools as readings: their priorities, and what changed between two readings. Pure.

Source: events.rst "System State"; priorities: a pool that is not ONLINE is a 9, one filled
above `capacity_warning` a 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from collectors.zpool_output import Detail

# A pool vanished; a vdev has errors; a scrub found some; a collector is in trouble.
TROUBLE: Final = 6
# The very first reading is told only if something is above this: health is no news.
QUIET: Final = 2

Pools = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class News:
    """Is a new reading to be told, and how urgent is it beside the pools' own priorities?"""

    told: bool
    priority: int = 0
    vanished: tuple[str, ...] = ()


def combine(
    listed: Mapping[str, Mapping[str, str]], details: Mapping[str, Detail], warning: int
) -> dict[str, dict[str, Any]]:
    """A reading: each pool's columns, priority (0..10), and what its status says beyond."""
    reading: dict[str, dict[str, Any]] = {}
    for name, columns in listed.items():
        pool: dict[str, Any] = {**columns, "priority": priority(columns, warning)}
        detail = details.get(name)
        if detail is not None and detail.vdevs:
            pool["vdevs"] = [dict(vdev) for vdev in detail.vdevs]
        if detail is not None and detail.scan is not None:
            pool["scan"] = dict(detail.scan)
        reading[name] = pool
    return reading


def priority(columns: Mapping[str, str], warning: int) -> int:
    """A pool's own priority."""
    if columns["health"] != "ONLINE":
        return 9
    used = columns["capacity"].removesuffix("%")
    return 6 if used.isdecimal() and int(used) > warning else 0


def compare(old: Pools | None, new: Pools) -> News:
    """What is to be told of a new reading. old: None at the very first one."""
    if old is None:
        worst = max((_weight(None, pool) for pool in new.values()), default=0)
        return News(told=worst > QUIET, priority=worst)
    vanished = tuple(sorted(old.keys() - new.keys()))
    told = bool(vanished)
    urgency = TROUBLE if vanished else 0
    for name, pool in new.items():
        before = old.get(name)
        if before is None or _changed(before, pool):
            told = True
            urgency = max(urgency, _weight(before, pool))
    return News(told=told, priority=urgency, vanished=vanished)


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Is it worth an event? A scan that runs, ends well or is canceled is not."""
    return (
        (before["health"], before["priority"]) != (after["health"], after["priority"])
        or _vdevs(before) != _vdevs(after)
        or (_failed_scan(after) and before.get("scan") != after.get("scan"))
    )


def _weight(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> int:
    """How much a pool's change weighs: its own priority, or new errors in it."""
    weight: int = after["priority"]
    known = _vdevs(before) if before else set[tuple[str, ...]]()
    scan = before.get("scan") if before else None
    if _vdevs(after) - known or (_failed_scan(after) and after.get("scan") != scan):
        weight = max(weight, TROUBLE)
    return weight


def highest(pools: Pools) -> int:
    """The highest priority of all pools."""
    return max((pool["priority"] for pool in pools.values()), default=0)


def _vdevs(pool: Mapping[str, Any]) -> set[tuple[str, ...]]:
    """What counts of the devices that are not well; their notes change all the time."""
    keys = ("name", "state", "read", "write", "cksum")
    return {tuple(vdev[key] for key in keys) for vdev in pool.get("vdevs", ())}


def _failed_scan(pool: Mapping[str, Any]) -> bool:
    scan = pool.get("scan")
    return scan is not None and bool(scan.get("errors"))
