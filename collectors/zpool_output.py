"""What `zpool list` and `zpool status` print, as values. Pure text; runs no command.

Source: zpool-list(8), zpool-status(8); OpenZFS 2.x and zfs-fuse 0.7.0 (which lacks the columns
frag and expandsz, and -p). Pool names may hold blanks; they hold no tab and no line end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Final

# The document's keys in the order in which they are asked for, behind the name.
COLUMNS: Final = (
    *("size", "alloc", "free", "frag", "expandsz", "dedup", "altroot", "capacity", "health"),
)
_SIZE: Final = r"-|\d+(?:\.\d+)?[BKMGTPEZ]?"
# How each cell looks; a row that looks different is no pool: none is ever made up.
# Source: zpool_main.c, zpool-list(8), zpoolconcepts(7) for names, the recorded outputs.
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.: -]{0,255}")
_CELLS: Final = {
    **{name: re.compile(_SIZE) for name in ("size", "alloc", "free", "expandsz")},
    **{name: re.compile(r"-|\d+%") for name in ("frag", "capacity")},
    "dedup": re.compile(r"-|\d+\.\d+x"),
    "altroot": re.compile(r"-|/[^\x00-\x1f\x7f]*"),
    "health": re.compile(r"[A-Z]+"),
}
_UNKNOWN: Final = re.compile(r"invalid property '(?P<name>[^']*)'")
_POOL: Final = re.compile(r"^\s*pool: (?P<name>.*)$")
_HEAD: Final = re.compile(r"^\tNAME +STATE +READ +WRITE +CKSUM\s*$")
_COUNT: Final = re.compile(r"\d+(?:\.\d+)?[KMGTPE]?")
STATES: Final = frozenset(
    (
        *("ONLINE", "DEGRADED", "FAULTED", "OFFLINE", "UNAVAIL", "REMOVED", "SUSPENDED"),
        *("AVAIL", "INUSE", "SPLIT"),
    )
)
# Of one pool so many devices are told: a shelf that goes dark is one event of bounded size.
VDEV_LIMIT: Final = 64
# Of a row that can't be read, so much is kept to name it.
_BROKEN_LENGTH: Final = 80
_SCAN: Final = re.compile(r"^ *(?:scan|scrub): (?P<text>.*)$")
# The next section: `remove: `, `config:`; a scan's own further lines have no such beginning.
_SECTION: Final = re.compile(r"^ *[a-z]+:(?: |$)")
# A device whose name is longer than its column: two blanks follow it.
_OVERLONG: Final = re.compile(r"^\t(?P<name> *\S.*?)(?<! )  +(?P<rest>[A-Z]+(?: .*)?)$")
_PERCENT: Final = re.compile(r"(?<!\d)(?P<percent>\d{1,3}(?:\.\d{1,9})?)% done")
_ENDED: Final = re.compile(r" with (?P<errors>\d{1,18}) errors on (?P<time>.+)$")
_UNDER_WAY: Final = {"in progress": "running", "paused": "paused"}
_STATE: Final = re.compile(r"[A-Z]+")
_STANDING: Final = frozenset(("ONLINE", "AVAIL", "INUSE"))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a list says. broken: the beginnings of the rows that could not be read."""

    pools: Mapping[str, Mapping[str, str]]
    broken: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Detail:
    """What `zpool status` says of one pool beyond the document.

    vdevs: those that are not healthy or have errors; scan: the last scrub or resilver.
    """

    vdevs: Sequence[Mapping[str, str]] = field(default_factory=tuple[Mapping[str, str], ...])
    scan: Mapping[str, Any] | None = None


def list_arguments(lacks: frozenset[str]) -> tuple[str, ...]:
    """Arguments for `zpool` that ask for every column but those it lacks."""
    names = ["name", *(column for column in COLUMNS if column not in lacks)]
    return ("list", "-H", "-o", ",".join(names))


def unknown_column(stderr: str) -> str | None:
    """The column that this zpool says it does not know, if that is its complaint."""
    match = _UNKNOWN.search(stderr)
    # Without its health a pool says nothing: a zpool that lacks it is a failing one.
    known = match is not None and match["name"] in COLUMNS and match["name"] != "health"
    return match["name"] if match is not None and known else None


def parse_list(text: str, lacks: frozenset[str]) -> Answer:
    """Pools by name from `zpool list -H`; a row that can't be read hides no other."""
    columns = [column for column in COLUMNS if column not in lacks]
    pools: dict[str, dict[str, str]] = {}
    broken: list[str] = []
    for line in text.split("\n"):
        if not line:
            continue
        name, *values = line.split("\t")
        if name == "-" and all(value == "-" for value in values):
            # Source: OpenZFS 2.3.9; a pool that went away while it was listed.
            continue
        if _is_row(name, columns, values):
            pools[name] = dict.fromkeys(COLUMNS, "-") | dict(zip(columns, values, strict=True))
        else:
            broken.append(name[:_BROKEN_LENGTH])
    return Answer(pools, tuple(broken))


def _is_row(name: str, columns: Sequence[str], values: Sequence[str]) -> bool:
    return (
        len(values) == len(columns)
        and _NAME.fullmatch(name) is not None
        and all(map(_fits, columns, values))
    )


def _fits(column: str, value: str) -> bool:
    return _CELLS[column].fullmatch(value) is not None


def parse_status(text: str) -> dict[str, Detail]:
    """Details of pools by name from `zpool status`."""
    found: dict[str, Detail] = {}
    name: str | None = None
    lines: list[str] = []
    for line in [*text.split("\n"), "  pool: "]:
        start = _POOL.match(line)
        # A vdev's line begins with a tab: none of them is taken for a pool's.
        if start is not None and not line.startswith("\t"):
            if name:
                found[name] = _detail(name, lines)
            name, lines = start["name"], []
        else:
            lines.append(line)
    return found


def _detail(pool: str, lines: Sequence[str]) -> Detail:
    vdevs: list[Mapping[str, str]] = []
    scans: list[dict[str, Any]] = []
    # Names may hold blanks, even the word ONLINE: what separates is the head's column.
    column = 0
    for number, line in enumerate(lines):
        if _HEAD.match(line):
            column = line.index("STATE")
        elif column and line.startswith("\t"):
            entry = _vdev(pool, line, column)
            if entry is not None and len(vdevs) < VDEV_LIMIT:
                vdevs.append(entry)
        elif not column and (match := _SCAN.match(line)) is not None:
            behind = map(lines.__getitem__, range(number + 1, len(lines)))
            rest = takewhile(lambda line: not _SECTION.match(line), behind)
            scans += filter(None, [_scan(match["text"], tuple(rest))])
    # A scrub and the rebuilding of a mirror are told one after the other.
    under_way = [scan for scan in scans if scan["state"] == "running"]
    told = under_way or scans
    return Detail(tuple(vdevs), told[-1] if told else None)


def _vdev(pool: str, line: str, column: int) -> Mapping[str, str] | None:
    """A vdev worth telling: not healthy, or with errors."""
    head, rest = _cut(line, column)
    name, words = head[1:].rstrip(), rest.split()
    if head[-1:] != " ":
        overlong = _OVERLONG.match(line)
        name, words = (overlong["name"], overlong["rest"].split()) if overlong else ("", [])
    if not name or not words:
        return None
    state, counts = words[0], words[1:4]
    counted = len(counts) == 3 and all(map(_COUNT.fullmatch, counts))
    # With counts it is a device's line, whatever a later zpool calls the state.
    if state not in STATES and not (counted and _STATE.fullmatch(state)):
        return None
    read, write, cksum = counts if counted else ("0", "0", "0")
    # The pool's own line repeats its health; its errors stand nowhere else.
    sick = state not in _STANDING and name != pool
    if not sick and (read, write, cksum) == ("0", "0", "0"):
        return None
    entry = {"name": name.strip(), "state": state, "read": read, "write": write, "cksum": cksum}
    note = " ".join(words[4:] if counted else words[1:])
    return entry | ({"note": note} if note else {})


def _cut(line: str, column: int) -> tuple[str, str]:
    """A line before and behind the column, which zpool counts in bytes, not in characters."""
    if line.isascii():
        return line[:column], line[column:]
    data = line.encode()
    if data[column - 1 : column] == b" " != data[column : column + 1]:
        return data[:column].decode(), data[column:].decode()
    # Bytes that are no characters have been replaced by one each, of another length.
    return line[:column], line[column:]


def _scan(text: str, following: Sequence[str]) -> dict[str, Any] | None:
    """The last scrub or resilver: function, state, percent, ended, errors."""
    function = "resilver" if text.startswith("resilver") else "scrub"
    if not text.startswith(("scrub", "resilver")):
        return None
    if "canceled" in text or "stopped" in text:
        return {"function": function, "state": "canceled"}
    ended = _ENDED.search(text)
    if ended is not None:
        return {
            "function": function,
            "state": "finished",
            "ended": ended["time"],
            "errors": int(ended["errors"]),
        }
    state = next((s for word, s in _UNDER_WAY.items() if word in text), "unknown")
    scan: dict[str, Any] = {"function": function, "state": state}
    done = next((p for line in (text, *following) if (p := _PERCENT.search(line))), None)
    if done is not None:
        scan["percent"] = float(done["percent"])
    return scan
