"""A pool's reading in numbers, for metrics, by the names that ZFS exporters use. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sysadmd.sizes import parse_size

# Health by number, as ZFS exporters have it.
HEALTH: Final = ("ONLINE", "DEGRADED", "FAULTED", "OFFLINE", "UNAVAIL", "REMOVED", "SUSPENDED")
# How `zpool status` writes the time of a scan's end. Source: zpool_main.c, ctime(3).
SCAN_TIME: Final = "%a %b %d %H:%M:%S %Y"


def figures(pool: Mapping[str, Any]) -> dict[str, float]:
    """A pool's columns in numbers, by the names that ZFS exporters use."""
    found: dict[str, float] = {}
    if pool["health"] in HEALTH:
        found["health"] = HEALTH.index(pool["health"])
    for name, column in (("size", "size"), ("allocated", "alloc"), ("free", "free")):
        value = parse_size(pool[column])
        if value is not None:
            found[f"{name}_bytes"] = value
    for name, column, unit, scale in (
        ("fragmentation_ratio", "frag", "%", 100),
        ("deduplication_ratio", "dedup", "x", 1),
    ):
        digits = pool[column].removesuffix(unit)
        if digits.replace(".", "", 1).isdecimal():
            found[name] = float(digits) / scale
    if (scrubbed := _last_scrub(pool.get("scan"))) is not None:
        found["last_scrub_timestamp_seconds"] = scrubbed
    return found


def vdev_errors(pool: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Device, `read`, `write` or `checksum`, and how many: of devices that are not well.

    A spare that is in use stands in two places: the larger number is told, once.
    """
    found: dict[tuple[str, str], float] = {}
    for vdev in pool.get("vdevs", ()):
        for kind, column in (("read", "read"), ("write", "write"), ("checksum", "cksum")):
            count = parse_size(vdev[column])
            if count is not None:
                key = vdev["name"], kind
                found[key] = max(count, found.get(key, 0))
    for (name, kind), count in found.items():
        yield name, kind, count


def _last_scrub(scan: Mapping[str, Any] | None) -> float | None:
    """When it ended, s since 1970; None: nobody can tell, since the last scan is none that has
    ended, or its time is not in the C locale's form."""
    if scan is None or scan["function"] != "scrub" or "ended" not in scan:
        return None
    try:
        # The machine's own zone, as zpool has it.
        return time.mktime(time.strptime(scan["ended"], SCAN_TIME))
    except (ValueError, OverflowError):
        return None
