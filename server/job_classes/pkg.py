"""sysadm/pkg: packages, by pkg(8). What its jobs say is read in `pkg_report`.

Questions are asked by `pkg query`, `pkg rquery` and `pkg repositories`, whose output is made to
be read by programs. Source: pkg-query(8), pkg-rquery(8), pkg-repositories(8), of pkg 2.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from dispatcher.orders import MAX_TEXT, Order, Origin
from server.job_classes.definition import (
    Action,
    AnswerPage,
    Asked,
    JobClass,
    command,
    first_of,
    new_uuid,
)
from server.job_classes.pkg_report import PkgReport
from server.job_classes.tool import ToolAnswer
from sysadmd.errors import BadRequest, NothingFound, ToolFailed
from sysadmd.json_size import json_size
from sysadmd.settings import ClassSettings
from sysadmd.text import quoted

NAME: Final = "sysadm/pkg"
QUEUE: Final = "pkg_queue"
LOCAL: Final = "local"
# A package's name, with its version perhaps, or its origin: nothing else gets to pkg, and no
# option. Source: pkg-create(8), ports(7).
_WORD: Final = "[A-Za-z0-9_][A-Za-z0-9_.+,~@-]*"
_NAMED: Final = re.compile(f"{_WORD}(/{_WORD})?")
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_LONGEST: Final = 255
# Of what is said when nothing is found: most versions say nothing then.
_NO_SUCH: Final = re.compile(r"^pkg: no (?:packages?|match)", re.IGNORECASE | re.MULTILINE)
# Packages in one reply, and bytes of their JSON: a frame has 512 KiB.
MOST_FOUND: Final = 500
PAGE_SIZE: Final = 400 * 1024
# What comes to a package beside its values: separators; if `result` is `full` the names of its
# lists, and how much of each is left out.
_BESIDE: Final = 40
_BESIDE_FULL: Final = 512
# Between the columns of an answer: in no package's name or comment.
_BETWEEN: Final = "\x1f"
# What is told of a package, and how pkg is asked for it.
_COLUMNS: Final[Mapping[str, str]] = {
    "name": "%n",
    "version": "%v",
    "origin": "%o",
    "comment": "%c",
    "maintainer": "%m",
    "www": "%w",
    "prefix": "%p",
    "arch": "%q",
    "flatsize": "%sb",
    "repository": "%R",
}
# And of one that is installed.
_INSTALLED: Final[Mapping[str, str]] = {"automatic": "%a", "locked": "%k", "time": "%t"}
# What a package has several of; told if `result` is `full`.
_SEVERAL: Final[Mapping[str, str]] = {
    "dependencies": "%do",
    "licenses": "%L",
    "shlibs_required": "%B",
    "shlibs_provided": "%b",
}
_FILES: Final[Mapping[str, str]] = {"files": "%Fp"}

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class _Run:
    """A job: pkg's arguments, and whether it needs to know what is new in the repositories."""

    arguments: Sequence[str]
    updates: bool = False


def packages(asked: Asked, *, least: int = 1) -> list[str]:
    """The packages that are named. Raises: BadRequest."""
    named = asked.args.texts("pkg_origins")
    if len(named) < least:
        raise BadRequest("args.pkg_origins is missing; name a package or a list of them")
    if sum(map(len, named)) + len(named) > MAX_TEXT:
        raise BadRequest(f"args.pkg_origins has more than {MAX_TEXT} characters; name fewer")
    for name in named:
        if len(name) > _LONGEST or not _NAMED.fullmatch(name):
            raise BadRequest(
                f"args.pkg_origins has {quoted(name)}, which is no package's name or origin;"
                " allowed: letters, digits and _.+,~@-, the first a letter, a digit or _,"
                " with one / in an origin"
            )
    return named


def repository(asked: Asked) -> str | None:
    """The repository that is named. None: the installed packages, or pkg's choice. Raises:
    BadRequest."""
    name = asked.args.optional("repo")
    if not name or name == LOCAL:
        return None
    if len(name) > _LONGEST or not _REPOSITORY.fullmatch(name):
        raise BadRequest(f"args.repo is {quoted(name)}; list_repos names those that there are")
    return name


# Jobs.


def _install(asked: Asked) -> _Run:
    name = repository(asked)
    chosen = () if name is None else ("--repository", name)
    return _Run(["install", "-y", *chosen, *packages(asked)], updates=True)


def _remove(asked: Asked) -> _Run:
    recursive = asked.args.switch("recursive", default=True)
    return _Run(["delete", "-y", *(["-R"] if recursive else ()), *packages(asked)])


def _update(asked: Asked) -> _Run:
    force = asked.args.switch("force", default=False)
    return _Run(["update", *(["-f"] if force else ())], updates=True)


def _audit(asked: Asked) -> _Run:
    fetch = asked.args.switch("fetch", default=False)
    return _Run(["audit", *(["-F"] if fetch else ()), "--raw=json-compact"])


def _check_upgrade(_: Asked) -> _Run:
    return _Run(["upgrade", "-n"], updates=True)


def _upgrade(_: Asked) -> _Run:
    return _Run(["upgrade", "-y"], updates=True)


def _autoremove(_: Asked) -> _Run:
    return _Run(["autoremove", "-y"])


def _lock(asked: Asked) -> _Run:
    return _Run(["lock", "-y", *packages(asked)])


def _unlock(asked: Asked) -> _Run:
    return _Run(["unlock", "-y", *packages(asked)])


def setting(*, updates: bool) -> dict[str, str]:
    """The environment of a job of pkg: nobody is there to answer. Source: pkg.conf(5)."""
    return {"ASSUME_ALWAYS_YES": "yes", "REPO_AUTOUPDATE": "yes" if updates else "no"}


def _job(action: str, make: Callable[[Asked], _Run]) -> Action:
    async def answer(asked: Asked) -> dict[str, Any]:
        step = make(asked)
        run = command(asked.tool, *step.arguments)
        order = Order(
            id=f"sysadm_{action}-{new_uuid()}",
            commands=(run,),
            queue=QUEUE,
            origin=Origin(
                system=NAME,
                fields={"action": action},
                setting=setting(updates=step.updates),
                channel="EVENT_PIPE",
                log_field="pkg_log",
            ),
        )
        job = await asked.queue(order)
        return {"status": "pending", "proc_cmd": run.text, "proc_id": job.id}

    return Action(answer)


# Questions.


@dataclass(frozen=True, slots=True, kw_only=True)
class _PagePart:
    """Which of the packages that fit: so many, after so many, of so many bytes as JSON.

    beside: bytes that come to each.
    """

    limit: int
    after: int
    size: int = PAGE_SIZE
    beside: int = _BESIDE


@dataclass(frozen=True, slots=True)
class _Packages:
    """Packages by their keys in an `AnswerPage`, and its next. size: of their JSON at most."""

    packages: dict[str, dict[str, Any]]
    size: int
    next: str | None


def _part(asked: Asked, *, full: bool = False) -> _PagePart:
    """Raises: BadRequest."""
    limit = asked.args.number("limit", MOST_FOUND, 1, MOST_FOUND)
    after = asked.args.after()
    if not full:
        return _PagePart(limit=limit, after=after)
    # The rest is for their lists.
    return _PagePart(limit=limit, after=after, size=PAGE_SIZE // 2, beside=_BESIDE_FULL)


async def _info(asked: Asked) -> AnswerPage:
    """Packages by origin. Raises: NothingFound, BadRequest, ToolFailed."""
    names, repo = packages(asked, least=0), repository(asked)
    full = asked.args.optional("result") == "full"
    if full and not names:
        raise BadRequest('"result": "full" needs args.pkg_origins: name the packages')
    fits, part = _of_category(asked), _part(asked, full=full)
    found = await _query(asked, repo, [] if names else ["-a"], names, fits, part)
    if full:
        await _complete(asked, repo, found)
    return AnswerPage(found.packages, found.next)


async def _search(asked: Asked) -> AnswerPage:
    """Packages whose name has the term in it. Raises: as `_info`."""
    term, excluded = asked.args.text("search_term"), asked.args.texts("search_excludes")
    if len(term) > _LONGEST or not term.isprintable():
        raise BadRequest(f"args.search_term has at most {_LONGEST} characters, all printable")
    of_category = _of_category(asked)

    def fits(one: dict[str, Any]) -> bool:
        return of_category(one) and not any(phrase in one["name"] for phrase in excluded)

    def order(line: str) -> tuple[bool, str]:
        """Those that begin so come first; each time in the same order, as pages need it."""
        return not line.startswith(term), line

    pattern = f"({_literal(term)})"
    options, repo = ["-i", "-x"], repository(asked)
    found = await _query(asked, repo, options, [pattern], fits, _part(asked), order)
    # The order names each once more.
    return AnswerPage({"results_order": list(found.packages), **found.packages}, found.next)


async def _categories(asked: Asked) -> list[str]:
    def read(answer: ToolAnswer) -> list[str]:
        return sorted(set(_lines(answer)))

    return await asked.ask(asked.tool, *_query_of(repository(asked)), "-a", "%C", read=read)


async def _repositories(asked: Asked) -> list[str]:
    def read(answer: ToolAnswer) -> list[str]:
        if answer.code:
            raise ToolFailed(f"pkg repositories: {answer.reason}")
        return [LOCAL, *_lines(answer)]

    return await asked.ask(asked.tool, "repositories", "-e", "-l", read=read)


def _literal(term: str) -> str:
    """A pattern for this text as it stands. Source: re_format(7), extended."""
    escaped = {"^": r"\^", "\\": r"\\"}
    return "".join(c if c.isalnum() else escaped.get(c, f"[{c}]") for c in term)


def _of_category(asked: Asked) -> Callable[[dict[str, Any]], bool]:
    """Is it of the category that is named? Its origin then begins with it."""
    name = asked.args.optional("category")
    return lambda one: not name or one["origin"].startswith(f"{name}/")


def _query_of(repo: str | None) -> list[str]:
    return ["query"] if repo is None else ["rquery", "-U", "-r", repo]


async def _query(
    asked: Asked,
    repo: str | None,
    options: Sequence[str],
    patterns: Sequence[str],
    fits: Callable[[dict[str, Any]], bool],
    part: _PagePart,
    order: Callable[[str], tuple[bool, str]] | None = None,
) -> _Packages:
    """A part of what pkg finds, in its order or, by lines that begin with names, in this.

    Raises: NothingFound, ToolFailed.
    """
    columns = {**_COLUMNS, **(_INSTALLED if repo is None else {})}
    format = _BETWEEN.join(columns.values())

    def fitting(line: str) -> dict[str, Any] | None:
        row = line.split(_BETWEEN)
        one = dict(zip(columns, row, strict=False))
        return one if len(row) == len(columns) and fits(one) else None

    def read(answer: ToolAnswer) -> _Packages:
        # Of a whole repository's lines only those of the part are kept as packages.
        lines = _lines(answer)
        if order is not None:
            lines = sorted((line for line in lines if fitting(line)), key=order)
        return _first(filter(None, map(fitting, lines)), part)

    argv = (asked.tool, *_query_of(repo), *options, format, *patterns)
    return await asked.ask(*argv, read=read)


def _first(packages: Iterable[dict[str, Any]], part: _PagePart) -> _Packages:
    """Raises: NothingFound."""
    found: dict[str, dict[str, Any]] = {}
    size = 0
    for number, (key, one) in enumerate(_by_origin(packages)):
        if number < part.after:
            continue
        more = len(_encode(one)) + 2 * json_size(key) + part.beside
        # One at least, or there would be no end.
        if len(found) == part.limit or (found and size + more > part.size):
            return _Packages(found, size, str(part.after + len(found)))
        found[key] = one
        size += more
    # Those that were there when the reply before this one was made may be gone.
    if not found and not part.after:
        raise NothingFound("there is no such package")
    return _Packages(found, size, None)


def _by_origin(
    packages: Iterable[dict[str, Any]],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each with its key, which is no other's, be it in another part."""
    used: set[str] = set()
    for one in packages:
        # Packages of several flavours have one origin.
        keys = one["origin"], one["name"], f"{one['name']}-{one['version']}"
        key = next((key for key in keys if key not in used), None)
        if key is not None:
            used.add(key)
            yield key, one


async def _complete(asked: Asked, repo: str | None, found: _Packages) -> None:
    """Add what packages have several of, as much as the reply takes."""
    packages = {one["name"]: one for one in found.packages.values()}
    # What a catalogue calls a package is no option of pkg.
    names = [name for name in packages if _NAMED.fullmatch(name)]
    size = found.size
    for key, column in {**_SEVERAL, **(_FILES if repo is None else {})}.items():
        for one in found.packages.values():
            one[key] = []
        if not names:
            continue
        room = PAGE_SIZE - size

        def read(answer: ToolAnswer, room: int = room) -> _ListValues:
            return _by_name(answer, room)

        argv = (asked.tool, *_query_of(repo), f"%n{_BETWEEN}{column}", *names)
        said = await asked.ask(*argv, read=read)
        size += said.size
        for one in found.packages.values():
            one[key] = said.values.get(one["name"], [])
            if left_out := said.left_out.get(one["name"]):
                one[f"{key}_left_out"] = left_out


@dataclass(frozen=True, slots=True)
class _ListValues:
    """By a package's name its values, and how many more it has. size: of all as JSON."""

    values: Mapping[str, list[str]]
    left_out: Mapping[str, int]
    size: int


def _by_name(answer: ToolAnswer, room: int) -> _ListValues:
    values: dict[str, list[str]] = {}
    left_out: dict[str, int] = {}
    size = 0
    for line in _lines(answer):
        name, _, value = line.partition(_BETWEEN)
        more = json_size(value) + 3
        # Of each package its first ones: there is no hole.
        if name in left_out or size + more > room:
            left_out[name] = left_out.get(name, 0) + 1
        else:
            values.setdefault(name, []).append(value)
            size += more
    return _ListValues(values, left_out, size)


def _lines(answer: ToolAnswer) -> list[str]:
    """What it says, line by line. Raises: ToolFailed if it says what is wrong, too."""
    # It fails without a word if there is no such package, which is an answer. One that fails
    # amid its answer has told a part.
    if answer.code != 0 and answer.errors.strip() and not _NO_SUCH.search(answer.errors):
        raise ToolFailed(f"pkg: {answer.reason}")
    return [line for line in answer.output.split("\n") if line]


def _question(answer: Callable[[Asked], Awaitable[Any]]) -> Action:
    return Action(answer, reading=True)


def _find(settings: ClassSettings) -> str | None:
    return first_of(settings.pkg)


CLASS: Final = JobClass(
    name=NAME,
    needs="pkg",
    find=_find,
    reporter=PkgReport,
    actions={
        **{
            action: _job(action, make)
            for action, make in {
                "pkg_install": _install,
                "pkg_remove": _remove,
                "pkg_lock": _lock,
                "pkg_unlock": _unlock,
                "pkg_update": _update,
                "pkg_check_upgrade": _check_upgrade,
                "pkg_upgrade": _upgrade,
                "pkg_audit": _audit,
                "pkg_autoremove": _autoremove,
            }.items()
        },
        "pkg_info": _question(_info),
        "pkg_search": _question(_search),
        "list_categories": _question(_categories),
        "list_repos": _question(_repositories),
    },
)
