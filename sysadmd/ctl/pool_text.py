"""What is wrong with a pool, and how far its scrub is, in an admin's words. Pure.

A pool is one of `zpools` of a system-state event. What a server says may be of any form: what
makes no sense is left out, and never an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from sysadmd.ctl.bar import mapping
from sysadmd.ctl.priorities import priority_of
from sysadmd.text import printable

# Over disks: it is the disk that is pulled out.
_GROUP: Final = re.compile(r"(?:mirror|raidz\d?|draid\d?\S*|replacing|spare|indirect)-\d+")
# The disk that is not there any more is called by its number; its note says what it was.
_WAS: Final = re.compile(r"was (\S.*)")
_NUMBER: Final = re.compile(r"\d{1,18}", re.ASCII)
_PERCENT: Final = re.compile(r"(\d{1,3})%", re.ASCII)
_KINDS: Final = (("read", "read"), ("write", "write"), ("cksum", "checksum"))
_WELL: Final = frozenset(("ONLINE", "AVAIL"))
# The default of `capacity_warning`: the event does not say which one holds.
_FULL: Final = 90
# From here on a pool's own priority is a trouble.
_TROUBLE: Final = 6
# Characters of a text of the server's that are shown.
_LONGEST: Final = 200


def pool_reasons(pool: Mapping[str, Any], name: str = "") -> list[str]:
    """Why a pool is not fine: `ada1 has 574 checksum errors`, `ada3 is FAULTED`, `92 % full`.

    name: its own, which its devices are told from. Empty: nothing is known against it.
    """
    used = percent_used(pool)
    full = used is not None and (used > _FULL or is_too_full(pool, name))
    return pool_troubles(pool, name) + ([f"{used} % full"] if full else [])


def pool_troubles(pool: Mapping[str, Any], name: str = "") -> list[str]:
    """The same without how full it is."""
    found = _devices(pool, name)
    errors = pool.get("data_errors")
    if _is_count(errors):
        found.append(counted(errors, "data error"))
    elif text := _text(errors):
        found.append(f"data errors: {text}")
    if errors := scan_errors(pool):
        found.append(errors)
    scan = mapping(pool.get("scan"))
    health = _text(pool.get("health"))
    if health not in ("", "ONLINE") and not found:
        found.append(f"health {health}")
    if scan.get("function") == "resilver" and scan.get("state") in ("running", "paused"):
        found.append(scan_text(pool))
    return found


def scan_errors(pool: Mapping[str, Any]) -> str:
    """What the last scrub or resilver has found against it; empty: nothing."""
    scan = mapping(pool.get("scan"))
    if not _is_count(scan.get("errors")):
        return ""
    number = counted(scan["errors"], "error")
    return f"the last {_text(scan.get('function')) or 'scan'} found {number}"


def is_too_full(pool: Mapping[str, Any], name: str = "") -> bool:
    """Is it above the server's `capacity_warning`, as far as its priority gives that away?"""
    # Nothing else that is known gives it this one.
    return priority_of(pool) >= _TROUBLE and not pool_troubles(pool, name)


def briefly(reasons: Sequence[str], most: int = 3) -> str:
    """So many at most, in one text: `ada1 is FAULTED, ada2 is FAULTED and 12 more`."""
    told = ", ".join(reasons[:most])
    rest = len(reasons) - most
    return f"{told} and {rest} more" if rest > 0 else told


def scan_text(pool: Mapping[str, Any]) -> str:
    """The last scrub or resilver: `scrub running, 12.5 % done`; empty: none is told."""
    scan = mapping(pool.get("scan"))
    function, state = _text(scan.get("function")), _text(scan.get("state"))
    if not function or not state:
        return ""
    if state != "finished":
        percent = scan.get("percent")
        if isinstance(percent, bool) or not isinstance(percent, int | float):
            return f"{function} {state}"
        if not 0 <= percent <= 100:
            return f"{function} {state}"
        return f"{function} {state}, {f'{percent:.1f}'.removesuffix('.0')} % done"
    number, ended = scan.get("errors"), _text(scan.get("ended"))
    result = f"with {counted(number, 'error')}" if _is_count(number) else "without errors"
    return f"{function} finished {ended} {result}" if ended else f"{function} finished {result}"


def device_rows(pool: Mapping[str, Any]) -> list[tuple[str, str, str, str, str, str]]:
    """Of its devices that are not well: name, state, errors read, written, checksum; note."""
    keys = ("name", "state", *(key for key, _ in _KINDS), "note")
    rows: list[tuple[str, str, str, str, str, str]] = []
    for vdev in _vdevs(pool):
        name, state, read, write, cksum, note = (_text(vdev.get(key)) for key in keys)
        if name:
            rows.append((name, state or "-", read or "-", write or "-", cksum or "-", note))
    return rows


def percent_used(pool: Mapping[str, Any]) -> int | None:
    """How full it is, %; None: that is not known."""
    match = _PERCENT.fullmatch(_text(pool.get("capacity")))
    return int(match[1]) if match is not None else None


def _devices(pool: Mapping[str, Any], name: str) -> list[str]:
    """What is wrong with its disks, or, if none is to blame, with what they are part of."""
    disks: list[str] = []
    over: list[str] = []
    spares: list[str] = []
    for vdev in _vdevs(pool):
        own = _text(vdev.get("name"))
        told = _device(own, vdev) if own else ""
        if own.startswith("spare-") and _GROUP.fullmatch(own):
            spares.append("a spare is in use")
        elif own and vdev.get("state") == "INUSE":
            spares.append(f"spare {own} is in use")
        if told:
            (over if own == name or _GROUP.fullmatch(own) else disks).append(told)
    found = (disks or over) + list(dict.fromkeys(spares))
    left_out = pool.get("vdevs_left_out")
    if _is_count(left_out):
        found.append(f"{counted(left_out, 'more device')} not well")
    return found


def _device(name: str, vdev: Mapping[str, Any]) -> str:
    """What is wrong with it; empty: nothing that is told."""
    state, note = _text(vdev.get("state")), _text(vdev.get("note"))
    if was := _WAS.fullmatch(note):
        name, note = was[1], ""
    errors = [(kind, count) for key, kind in _KINDS if (count := _errors(vdev.get(key)))]
    counted = " and ".join(f"{count} {kind}" for kind, count in errors)
    counted += f" error{'' if errors and errors[-1][1] == '1' else 's'}" if errors else ""
    if state in ("", "INUSE", *_WELL):
        return f"{name} has {counted}" if counted else ""
    said = f"{name} is {state}" + (f" ({note})" if note else "")
    return said + (f", has {counted}" if counted else "")


def _vdevs(pool: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found: object = pool.get("vdevs")
    return [mapping(vdev) for vdev in cast("list[object]", found)] if _is_list(found) else []


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _errors(value: object) -> str:
    """A count as zpool writes it, `574` or `1.2K`; empty: none."""
    text = _text(value)
    return "" if text.strip("0-") == "" else text


def _is_count(value: object) -> bool:
    """Is it a number above 0?"""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**18


def counted(number: object, what: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _text(value: object) -> str:
    """A text, or a number as one; empty for whatever else came in its place."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    if isinstance(value, str):
        return printable(value[:_LONGEST]).strip()
    # Neither endless nor not a number.
    return str(value) if abs(value) < 10**18 else ""
