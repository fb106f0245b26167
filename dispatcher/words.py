"""What keeper and daemon say to each other and write down, as values: read here, and only here.

Either end may be of another version of the code. So what is not known is passed over, what is
missing has a meaning, and whatever comes, nobody fails of it:

    a line without its kind or its command   is none
    next: no time; no pid; no limit          since boot; nobody knows; LIMIT
    next: no transit                         it has none
    began: no pid                            is none: that it may have begun, its log says
    began: no time before; none after        since boot; LONGEST_START later
    end: no code; no time; no size           nobody knows: it is lost; now; that of its log
    end: nothing of begun                    it had begun
    start: no channel                        its events are not asked for
    start: no lane                           it has no place in any; nothing waits for its end
    lend: no lane; no room; no mark          that of jobs without a queue; 1; 0
    returned: no mark                        0
    start, lend: nothing of last             its job goes on after it

What is of another type, or beyond its bounds, is missing. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

# Of a log, bytes: the default of the settings.
LIMIT: Final = 16 * 1024 * 1024
# A command's process is made within this of its starter's going about it, s; who took longer is
# only not known by its pid.
LONGEST_START: Final = 10.0
# What a table, a C int and a clock hold.
_MOST: Final = 2**62
_MOST_PID: Final = 2**31 - 1
_MOST_SECONDS: Final = 1e11
# Return codes: minus the highest signal's number, and what exit() has.
_CODES: Final = (-128, 255)
# Of a reason, characters: a path and what is wrong with it.
_REASON: Final = 4096

Job = tuple[int, int]
_DECODER: Final = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Next:
    """A starter is told to begin it. pid: the starter's; limit: of its log, bytes.

    transit: the number of its pipe between those (dispatcher/transits.py).
    """

    job: Job
    at: float
    pid: int | None
    limit: int
    transit: int | None = None


@dataclass(frozen=True, slots=True)
class Began:
    """It has begun; its process was made in between."""

    job: Job
    pid: int
    since: float
    at: float


@dataclass(frozen=True, slots=True)
class End:
    """It has ended. reason: why it could not begin, where its log can't have that."""

    job: Job
    code: int | None
    time: float | None
    size: int | None
    begun: bool
    reason: str | None


@dataclass(frozen=True, slots=True)
class Barred:
    """Its log was there before: it did not begin."""

    job: Job


@dataclass(frozen=True, slots=True)
class Left:
    """It goes on, and nobody will know how it ends."""

    job: Job


@dataclass(frozen=True, slots=True)
class Returned:
    """It was lent, and the keeper will not begin it. mark: of that lending."""

    job: Job
    mark: int


@dataclass(frozen=True, slots=True)
class Dead:
    """The keeper is dead, nothing begins."""


Fact = Next | Began | End | Barred | Left | Returned | Dead


@dataclass(frozen=True, slots=True)
class Said:
    """What a keeper says. hello: it answers. version: "": none that is known. hanging: None:
    nothing of it. lends: commands can be lent to it."""

    hello: bool
    version: str
    draining: bool
    hanging: frozenset[Job] | None
    lends: bool


_NOTHING: Final = Said(hello=False, version="", draining=False, hanging=None, lends=False)


@dataclass(frozen=True, slots=True)
class Commanded:
    """A command that a keeper is to have begun. argv: None: nobody can tell what.

    channel: the variable that is to name a socket for its events; "": none is wanted. lane: in
    which its job has a place until its `last` command has ended; None: in none. room: how many
    places there are, for one that is lent; 0: it is to begin at once. mark: of that lending.
    """

    job: Job
    argv: list[str] | None
    env: dict[str, str]
    cwd: str
    limit: int
    channel: str = ""
    lane: str | None = None
    last: bool = False
    room: int = 0
    mark: int = 0


def fact(text: bytes) -> Fact | None:
    """A line of a book. None: it is none, or torn by a death in the middle of a write."""
    line = read(text)
    if "dead" in line:
        return Dead()
    for kind, of_command in _KINDS.items():
        if kind in line:
            named = job(line[kind])
            return None if named is None else of_command(named, line)
    return None


def _next(named: Job, line: dict[str, Any]) -> Next:
    at, pid = _seconds(line.get("at")), _whole(line.get("pid"), 1, _MOST_PID)
    return Next(named, at or 0.0, pid, limit(line), _whole(line.get("transit"), 0, _MOST))


def _began(named: Job, line: dict[str, Any]) -> Began | None:
    at, pid = _seconds(line.get("at")), _whole(line.get("pid"), 1, _MOST_PID)
    since = _seconds(line.get("since"))
    if pid is None or (since is None and at is None):
        return None
    return Began(named, pid, since or 0.0, (since or 0.0) + LONGEST_START if at is None else at)


def _end(named: Job, line: dict[str, Any]) -> End:
    reason = line.get("reason")
    return End(
        named,
        _whole(line.get("code"), *_CODES),
        _seconds(line.get("time")),
        _whole(line.get("size"), 0, _MOST),
        line.get("begun") is not False,
        _text(reason)[:_REASON] if isinstance(reason, str) else None,
    )


_KINDS: Final[dict[str, Callable[[Job, dict[str, Any]], Fact | None]]] = {
    "next": _next,
    "began": _began,
    "end": _end,
    "barred": lambda named, _: Barred(named),
    "left": lambda named, _: Left(named),
    "returned": lambda named, line: Returned(named, mark(line)),
}


def said(text: bytes) -> Said:
    """What a keeper says to its daemon; what is not understood says nothing."""
    if not text:
        # The most frequent of all.
        return _NOTHING
    line = read(text)
    version, hanging = line.get("version"), line.get("hanging")
    return Said(
        "hello" in line,
        version if isinstance(version, str) else "",
        line.get("draining") is True,
        None if hanging is None else frozenset(jobs(hanging)),
        line.get("lends") is True,
    )


def commanded(line: dict[str, Any]) -> Commanded | None:
    """The command that an order of the daemon's names. None: it names none."""
    lent = "lend" in line
    named, argv = job(line.get("lend" if lent else "start")), line.get("argv")
    if named is None:
        return None
    env, cwd, channel = line.get("env"), line.get("cwd"), line.get("channel")
    lane = line.get("lane")
    pairs = cast("dict[str, object]", env).items() if isinstance(env, dict) else ()
    return Commanded(
        named,
        cast("list[str]", argv) if _are_texts(argv) else None,
        {name: value for name, value in pairs if isinstance(value, str)},
        cwd if isinstance(cwd, str) else "/",
        limit(line),
        channel if isinstance(channel, str) and _is_variable(channel) else "",
        lane if isinstance(lane, str) else "" if lent else None,
        line.get("last") is True,
        (_whole(line.get("room"), 1, _MOST) or 1) if lent else 0,
        mark(line),
    )


def _is_variable(name: str) -> bool:
    """Can a variable of an environment be called so?"""
    return name.isascii() and name.isidentifier()


def _are_texts(value: object) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(one, str) for one in cast("list[object]", value))


def read(text: bytes) -> dict[str, Any]:
    """Any line, as an object; empty: it is none."""
    try:
        line = _parse(text)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", line) if isinstance(line, dict) else {}


def _parse(text: bytes) -> object:
    # As keepers write it: `loads` looks for other encodings and for blanks, which takes longer
    # than to read a line of a book.
    if text[:1] == b"{" and text[-1:] == b"}":
        whole = text.decode()
        line, end = _DECODER.raw_decode(whole)
        if end == len(whole):
            return line
    return json.loads(text)


def job(value: object) -> Job | None:
    """Job and number of a command."""
    pair = cast("list[object]", value) if isinstance(value, list) else []
    if len(pair) != 2:
        return None
    uid, n = _whole(pair[0], 0, _MOST), _whole(pair[1], 0, _MOST)
    return None if uid is None or n is None else (uid, n)


def jobs(value: object) -> list[Job]:
    """Those of a list that are some."""
    listed = cast("list[object]", value) if isinstance(value, list) else []
    return [named for one in listed if (named := job(one)) is not None]


def uids(value: object) -> list[int]:
    """Those of a list that are some."""
    listed = cast("list[object]", value) if isinstance(value, list) else []
    return [uid for one in listed if (uid := _whole(one, 0, _MOST)) is not None]


def mark(line: dict[str, Any]) -> int:
    """Of a lending."""
    return _whole(line.get("mark"), 0, _MOST) or 0


def limit(line: dict[str, Any]) -> int:
    """Of a log."""
    found = _whole(line.get("limit"), 1, _MOST)
    return LIMIT if found is None else found


def _whole(value: object, least: int, most: int) -> int | None:
    # Not a bool, which is an int, too.
    if type(value) is not int:
        return None
    return value if least <= value <= most else None


def _seconds(value: object) -> float | None:
    if type(value) is not float and type(value) is not int:
        return None
    return float(value) if 0 <= value <= _MOST_SECONDS else None


def _text(value: str) -> str:
    """As a table can have it."""
    return value.encode(errors="replace").decode()
