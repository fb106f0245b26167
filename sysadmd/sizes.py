"""Sizes with units: their numbers. Source: zpool-list(8), zfs-send(8) for `13.1G`."""

from __future__ import annotations

from typing import Final

UNITS: Final[dict[str, int]] = {unit: 1024**power for power, unit in enumerate("BKMGTPEZ")}


def parse_size(size: str) -> float | None:
    """`13.1G` in bytes; None: it is no size."""
    digits, unit = (size[:-1], size[-1]) if size[-1:].isalpha() else (size, "B")
    if unit not in UNITS or not digits.replace(".", "", 1).isdecimal():
        return None
    return float(digits) * UNITS[unit]
