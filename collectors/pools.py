"""Pools as readings: their priorities, and what changed between two readings. Pure.

Source: events.rst "System State"; priorities: a pool that is not ONLINE is a 9, one filled
above `capacity_warning`, or with data errors, a 6.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from collectors.zpool_output import COLUMNS, STATES, Detail

# The two answers, each with a trouble of its own: pools, and what there is to say of each.
LIST: Final = "zpool"
STATUS: Final = "zpool status"

# A pool vanished; a vdev has errors; a scrub found some; a collector is in trouble.
TROUBLE: Final = 6
# The very first reading is told only if something is above this: health is no news.
QUIET: Final = 2
# Of one pool so many devices are told: a shelf that goes dark is one event of bounded size. A
# change among the others is noticed by their digest.
VDEV_LIMIT: Final = 64
# What counts of a device that is not well; its note changes all the time.
_COUNTED: Final = ("name", "state", "read", "write", "cksum")
# Of a pool's reading, what comes from its devices, and all that comes from its status.
DEVICES: Final = ("vdevs", "vdevs_left_out", "vdevs_digest")
DETAILS: Final = (*DEVICES, "scan", "data_errors")
# What goes first where an event has no room.
BULKY: Final = frozenset((*DEVICES, "scan"))
# Stored only to be compared.
UNTOLD: Final = frozenset(("vdevs_digest",))

Pools = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class News:
    """Is a new reading to be told, and how urgent is it beside the pools' own priorities?"""

    told: bool
    priority: int = 0
    vanished: tuple[str, ...] = ()


def combine(
    listed: Mapping[str, Mapping[str, str]],
    details: Mapping[str, Detail] | None,
    warning: int,
    known: Pools | None = None,
) -> dict[str, dict[str, Any]]:
    """A reading: each pool's columns, priority (0..10), and what its status says beyond.

    details: None: the status gave no answer, and what is known of it stays, as it does of a
    pool that it leaves out while it speaks of others, and of devices whose rows could not be
    read. Of a pool that the list calls ONLINE the status may know better.
    """
    reading: dict[str, dict[str, Any]] = {}
    for name, columns in listed.items():
        before = known.get(name) if known else None
        detail = details.get(name) if details else None
        beyond: dict[str, Any] = {}
        told = dict(columns)
        if detail is not None:
            beyond = _beyond(detail, before or {})
            if columns["health"] == "ONLINE" and detail.state in STATES:
                told["health"] = detail.state
        elif before is not None and details != {}:
            beyond = {key: before[key] for key in DETAILS if key in before}
        weight = TROUBLE if "data_errors" in beyond else 0
        own = max(priority(told, warning), weight)
        reading[name] = {**told, "priority": own, **beyond}
    return reading


def columns_of(pool: Mapping[str, Any]) -> dict[str, str]:
    """Of a pool's reading, what the list says."""
    return {column: pool[column] for column in COLUMNS}


def _beyond(detail: Detail, before: Mapping[str, Any]) -> dict[str, Any]:
    """What a status says, and of devices that it does not, what is known of them."""
    found: dict[str, Any] = {}
    vdevs = [dict(vdev) for vdev in detail.vdevs]
    if detail.unread and not vdevs and not detail.well:
        found = {key: before[key] for key in DEVICES if key in before}
    elif detail.unread:
        seen = detail.well | {vdev["name"] for vdev in vdevs}
        vdevs += [vdev for vdev in before.get("vdevs", ()) if vdev["name"] not in seen]
    if vdevs:
        found["vdevs"] = vdevs[:VDEV_LIMIT]
    if rest := vdevs[VDEV_LIMIT:]:
        found["vdevs_left_out"] = len(rest)
        found["vdevs_digest"] = _digest(rest)
    if detail.scan is not None:
        found["scan"] = dict(detail.scan)
    if detail.data_errors is not None:
        found["data_errors"] = detail.data_errors
    elif detail.cut and "data_errors" in before:
        found["data_errors"] = before["data_errors"]
    return found


def _digest(vdevs: Sequence[Mapping[str, str]]) -> str:
    """The same for the same devices, whatever their order."""
    sums = hashlib.sha256()
    for vdev in sorted(_counted(vdevs)):
        sums.update("\t".join(vdev).encode("utf-8", "surrogatepass") + b"\n")
    return sums.hexdigest()


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
        or before.get("data_errors") != after.get("data_errors")
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
    """What counts of the devices that are not well, those that are left out as one."""
    devices = _counted(pool.get("vdevs", ()))
    if "vdevs_digest" in pool:
        devices.add(("", pool["vdevs_digest"]))
    return devices


def _counted(vdevs: Iterable[Mapping[str, str]]) -> set[tuple[str, ...]]:
    return {tuple(vdev[key] for key in _COUNTED) for vdev in vdevs}


def _failed_scan(pool: Mapping[str, Any]) -> bool:
    scan = pool.get("scan")
    return scan is not None and bool(scan.get("errors"))
