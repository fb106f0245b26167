"""What `zpool list` and `zpool status` print, as values. Pure text; runs no command.

Source: zpool-list(8), zpool-status(8); OpenZFS 2.x and zfs-fuse 0.7.0 (which lacks the columns
frag and expandsz, and -p). Pool names may hold blanks; they hold no tab and no line end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import takewhile
from typing import Any, Final

from sysadmd.text import printable

# The document's keys in the order in which they are asked for, behind the name.
COLUMNS: Final = (
    *("size", "alloc", "free", "frag", "expandsz", "dedup", "altroot", "capacity", "health"),
)
_PERCENTAGES: Final = ("frag", "capacity")
# A wrapper's locale may give numbers a comma.
_SIZE: Final = r"-|[0-9]+(?:[.,][0-9]+)?[BKMGTPEZ]?"
# How each cell looks; a row that looks different is no pool: none is ever made up.
# Source: zpool_main.c, zpool-list(8), zpoolconcepts(7) for names, the recorded outputs.
_NAME: Final = r"[A-Za-z][A-Za-z0-9_.: -]{0,255}"
_CELLS: Final = {
    **dict.fromkeys(("size", "alloc", "free", "expandsz"), _SIZE),
    **dict.fromkeys(_PERCENTAGES, r"-|[0-9]+%"),
    "dedup": r"-|[0-9]+[.,][0-9]+x",
    "altroot": r"-|/[^\x00-\x1f\x7f]*",
    "health": r"[A-Z]+",
}
_UNKNOWN: Final = re.compile(r"invalid property '(?P<name>[^']*)'")
_POOL: Final = re.compile(r"^\s*pool: (?P<name>.*)$")
# The columns of the device table that are read; others may stand between or behind these.
_COUNTS: Final = ("READ", "WRITE", "CKSUM")
# Where they are where nothing stands between them and STATE.
_NEXT: Final = (1, 2, 3)
# Over the devices of a class: `logs`, `spares`; it has no state.
_LABEL: Final = re.compile(r"\t(?P<label>[a-z][a-z _-]*)")
_COUNT: Final = re.compile(r"[0-9]+(?:[.,][0-9]+)?[KMGTPE]?")
STATES: Final = frozenset(
    (
        *("ONLINE", "DEGRADED", "FAULTED", "OFFLINE", "UNAVAIL", "REMOVED", "SUSPENDED"),
        *("AVAIL", "INUSE", "SPLIT"),
    )
)
# Of a row that can't be read, so much is kept to name it.
_BROKEN_LENGTH: Final = 80
# What is told of an `errors:` line that is no number: those known have some 70 characters.
_ERRORS_LENGTH: Final = 200
_SCAN: Final = re.compile(r"^ *(?:scan|scrub): (?P<text>.*)$")
# The next section: `remove: `, `config:`; a scan's own further lines have no such beginning.
_SECTION: Final = re.compile(r"^ *[a-z]+:(?: |$)")
# A device whose name is longer than its column: two blanks follow it.
_OVERLONG: Final = re.compile(r"^\t(?P<name> *\S.*?)(?<! )  +(?P<rest>[A-Z]+(?: .*)?)$")
# Behind a digit, a letter, a point or a sign no number begins.
_PERCENT: Final = re.compile(
    r"(?<![\w.,+-])(?P<percent>\d{1,3}(?:\.\d{1,9}|,\d{1,2})?) ?% done", re.ASCII
)
_WHOLE: Final = 100
_ENDED: Final = re.compile(
    r" with (?P<errors>[0-9]{1,18}|[0-9]{1,3}(?:[,.'][0-9]{3})+) errors on (?P<time>.+)$"
)
# What ends the table; in it a library may complain.
_BEHIND: Final = re.compile(r"^ *(?:errors|dedup): ")
_STATE_LINE: Final = re.compile(r"^ *state: *(?P<state>\S+)\s*$")
# Source: zpool_main.c: pools that can't be opened have no line of errors.
_WITHOUT_ERRORS: Final = frozenset(("UNAVAIL", "FAULTED"))
_ERRORS: Final = re.compile(r"^ *errors: *(?P<text>\S.*)$")
_ERROR_COUNT: Final = re.compile(r"(?P<count>[0-9]{1,18}) data errors?\b")
_NO_ERRORS: Final = "No known data errors"
# Source: the recorded outputs; the second is the answer to -x, which wrappers may add.
_NOTHING: Final = frozenset(("", "no pools available", "all pools are healthy"))
_UNDER_WAY: Final = {"in progress": "running", "paused": "paused"}
_STATE: Final = re.compile(r"[A-Z]+")
_STANDING: Final = frozenset(("ONLINE", "AVAIL", "INUSE"))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a list says.

    broken: the beginnings of rows that could not be read, or not in whole; dashes: how many
    rows are nothing but dashes, pools that could not be asked.
    """

    pools: Mapping[str, Mapping[str, str]]
    broken: Sequence[str] = ()
    dashes: int = 0


@dataclass(frozen=True, slots=True)
class Detail:
    """What `zpool status` says of one pool beyond the document.

    vdevs: those that are not healthy or have errors; scan: the last scrub or resilver;
    data_errors: how many, or what is said of them instead, None: none are known; unread: a row
    of the device table, or all of it, could not be read, or its end is missing; well: names of
    the devices that are; state: of the pool; cut: nothing was said of data errors.
    """

    vdevs: Sequence[Mapping[str, str]] = field(default_factory=tuple[Mapping[str, str], ...])
    scan: Mapping[str, Any] | None = None
    data_errors: int | str | None = None
    unread: bool = False
    well: frozenset[str] = frozenset()
    state: str | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class _Head:
    """The device table's head line.

    state: where STATE begins, counted in bytes; counts: which words those of `_COUNTS` are,
    counted from STATE; width: how many words there are from STATE on.
    """

    state: int
    counts: tuple[int, ...]
    width: int


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
    columns = tuple(column for column in COLUMNS if column not in lacks)
    row = _row(columns)
    pools: dict[str, dict[str, str]] = {}
    broken: list[str] = []
    dashes = 0
    *lines, rest = _text(text).split("\n")
    # A line without its end may have lost more.
    broken += [rest.partition("\t")[0][:_BROKEN_LENGTH]] if rest else []
    for line in lines:
        if (match := row.fullmatch(line)) is not None:
            name, *values = match.groups()
            pool = dict.fromkeys(COLUMNS, "-") | dict(zip(columns, values, strict=True))
            pools[name] = pool
            wrong = [column for column in _PERCENTAGES if _is_no_percentage(pool[column])]
            if wrong:
                broken.append(name[:_BROKEN_LENGTH])
                pool |= dict.fromkeys(wrong, "-")
        elif line and not line.strip("-\t"):
            # Source: OpenZFS 2.3.9, for a pool that went away while it was listed;
            # openzfs/zfs#46, for pools that are there.
            dashes += 1
        elif line:
            name, *values = line.split("\t")
            broken.append(name[:_BROKEN_LENGTH])
            # What can't be read hides no health.
            if len(values) == len(columns) and _are_readable(name, values[-1]):
                fitting = (
                    value if re.fullmatch(_CELLS[column], value) else "-"
                    for column, value in zip(columns, values, strict=True)
                )
                pools[name] = dict.fromkeys(COLUMNS, "-") | dict(
                    zip(columns, fitting, strict=True)
                )
    return Answer(pools, tuple(broken), dashes)


def _text(text: str) -> str:
    """As `zpool` writes it, whatever a wrapper has made of it."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def is_name(text: str) -> bool:
    """May a pool be called so?"""
    return re.fullmatch(_NAME, text) is not None


def _are_readable(name: str, health: str) -> bool:
    return is_name(name) and health in STATES


@cache
def _row(columns: tuple[str, ...]) -> re.Pattern[str]:
    cells = (_CELLS[column] for column in columns)
    return re.compile("\t".join(f"({cell})" for cell in (_NAME, *cells)))


def _is_no_percentage(value: str) -> bool:
    """Is it above 100, or longer than any number up to that?"""
    if len(value) <= len("99%"):
        return False
    digits = value.removesuffix("%").lstrip("0")
    return digits.isdecimal() and (len(digits) > len(str(_WHOLE)) or int(digits) > _WHOLE)


def parse_status(text: str) -> dict[str, Detail]:
    """Details of pools by name from `zpool status`."""
    found: dict[str, Detail] = {}
    name: str | None = None
    lines: list[str] = []
    text = _text(text)
    for line in [*text.split("\n"), "  pool: "]:
        start = _POOL.match(line)
        # A vdev's line begins with a tab: none of them is taken for a pool's.
        if start is not None and not line.startswith("\t"):
            if name:
                found[name] = _detail(name, lines)
            name, lines = start["name"], []
        else:
            lines.append(line)
    if found and not text.endswith("\n"):
        # A line without its end may have lost more.
        last = next(reversed(found))
        found[last] = replace(found[last], unread=True, cut=True)
    return found


def tells_of_none(text: str) -> bool:
    """Does `zpool status` say, in the words known for that, that it has no pool to show?"""
    return text.strip() in _NOTHING


def _detail(pool: str, lines: Sequence[str]) -> Detail:
    scans: list[dict[str, Any]] = []
    errors: list[str] = []
    table: list[str] = []
    head: _Head | None = None
    state: str | None = None
    ended = foreign = False
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        if line.startswith("\t"):
            if head is None:
                head = _head(line)
            elif not ended:
                table.append(line)
            continue
        if _BEHIND.match(line):
            ended = head is not None
        elif head is not None and not ended:
            foreign = True
        if head is None and (match := _STATE_LINE.match(line)) is not None:
            state = match["state"]
        elif (match := _ERRORS.match(line)) is not None:
            errors.append(match["text"].strip())
        elif head is None and (match := _SCAN.match(line)) is not None:
            behind = map(lines.__getitem__, range(number + 1, len(lines)))
            rest = takewhile(lambda line: not _SECTION.match(line), behind)
            scans += filter(None, [_scan(match["text"], tuple(rest))])
    # A scrub and the rebuilding of a mirror are told one after the other.
    under_way = [scan for scan in scans if scan["state"] == "running"]
    told = under_way or scans
    scan = told[-1] if told else None
    cut = not errors and state not in _WITHOUT_ERRORS
    if head is None:
        return Detail((), scan, _data_errors(errors), unread=True, state=state, cut=cut)
    vdevs, well, unread = _devices(pool, table, head)
    unread = unread or foreign or cut
    return Detail(vdevs, scan, _data_errors(errors), unread, well, state, cut)


def _head(line: str) -> _Head | None:
    """The columns of the device table, if that is what this line names."""
    name, *words = line.split()
    if line[:2].isspace() or name != "NAME" or words[:1] != ["STATE"]:
        return None
    if any(words.count(count) != 1 for count in _COUNTS):
        return None
    return _Head(line.index("STATE"), tuple(map(words.index, _COUNTS)), len(words))


def _data_errors(texts: Sequence[str]) -> int | str | None:
    """Of all `errors:` lines of a pool: their number where one says it, else the first text."""
    told: str | None = None
    for text in texts:
        counted = _ERROR_COUNT.match(text)
        if counted is not None:
            return int(counted["count"]) or None
        if text != _NO_ERRORS and told is None:
            told = printable(text)[:_ERRORS_LENGTH]
    return told


def _devices(
    pool: str, table: Sequence[str], head: _Head
) -> tuple[tuple[Mapping[str, str], ...], frozenset[str], bool]:
    """Those that are not well, the names of those that are, and: is there an unreadable row?"""
    vdevs: list[Mapping[str, str]] = []
    well: set[str] = set()
    unread, label = False, ""
    for line in table:
        named = _LABEL.fullmatch(line.rstrip())
        if named is not None and named["label"] != pool:
            label = named["label"]
            continue
        name, words = _parts(line, head.state)
        # Source: the recorded outputs: a spare's row has no counts.
        entry, understood = _vdev(name, words, head, label == "spares")
        unread = unread or not understood
        # The pool's own line repeats its health; its errors stand nowhere else.
        own = name == pool and line[1:2] != " " and entry is not None and _is_clean(entry)
        if entry is not None and not own:
            vdevs.append(entry)
        elif understood:
            well.add(name)
    return tuple(vdevs), frozenset(well), unread


def _parts(line: str, column: int) -> tuple[str, list[str]]:
    """A row's name, and its words from the state on; no name or words: it can't be read."""
    # Names may hold blanks, even the word ONLINE: what separates is the head's column.
    head, rest = _cut(line, column)
    if head[-1:] == " ":
        return head.strip(), rest.split()
    overlong = _OVERLONG.match(line)
    return (overlong["name"].strip(), overlong["rest"].split()) if overlong else ("", [])


def _vdev(
    name: str, words: Sequence[str], head: _Head, spare: bool
) -> tuple[Mapping[str, str] | None, bool]:
    """A device if it is not healthy, or has errors; and: is its row understood?"""
    if not name or not words:
        return None, False
    state = words[0]
    counts = tuple(words[place] for place in head.counts if place < len(words))
    counted = len(counts) == len(_COUNTS) and all(map(_COUNT.fullmatch, counts))
    if head.counts != _NEXT and len(words) < head.width:
        # Whose cell is empty nobody can tell.
        counted = False
    # With counts it is a device's line, whatever a later zpool calls the state.
    if state not in STATES and not (counted and _STATE.fullmatch(state)):
        return None, False
    read, write, cksum = counts if counted else ("0", "0", "0")
    entry = {"name": name, "state": state, "read": read, "write": write, "cksum": cksum}
    if state in _STANDING and _is_clean(entry):
        return None, counted or spare
    note = " ".join(words[head.width if counted else 1 :])
    return entry | ({"note": note} if note else {}), counted or spare


def _is_clean(vdev: Mapping[str, str]) -> bool:
    return (vdev["read"], vdev["write"], vdev["cksum"]) == ("0", "0", "0")


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
    # Where a terminal is narrow it goes on in the next line.
    wrapped = " ".join((text, *map(str.strip, following[:1])))
    ended = _ENDED.search(text) or _ENDED.search(wrapped)
    if ended is not None:
        return {
            "function": function,
            "state": "finished",
            "ended": ended["time"],
            "errors": int(re.sub(r"[^0-9]", "", ended["errors"])),
        }
    state = next((s for word, s in _UNDER_WAY.items() if word in text), "unknown")
    scan: dict[str, Any] = {"function": function, "state": state}
    done = next((p for line in (text, *following) if (p := _PERCENT.search(line))), None)
    if done is not None and (percent := float(done["percent"].replace(",", "."))) <= _WHOLE:
        scan["percent"] = percent
    return scan
