"""sysadm/pkg: packages, by pkg(8). What its jobs say is read in `pkg_report`.

Questions are asked by `pkg query`, `pkg rquery` and `pkg repositories`, whose output is made to
be read by programs. Source: pkg-query(8), pkg-rquery(8), pkg-repositories(8), of pkg 2.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dispatcher.orders import MAX_TEXT, Order, Origin
from server.job_classes.definition import Action, Asked, JobClass, command, first_of, new_uuid
from server.job_classes.pkg_report import PkgReport
from server.job_classes.tool import ToolAnswer
from sysadmd.errors import BadRequest, NothingFound, ToolFailed
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
# Packages in one reply; more are asked for by name, category or repository.
MOST_FOUND: Final = 500
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


async def _info(asked: Asked) -> dict[str, Any]:
    """Packages by origin. Raises: NothingFound, BadRequest, ToolFailed."""
    names, repo = packages(asked, least=0), repository(asked)
    full = asked.args.optional("result") == "full"
    if full and not names:
        raise BadRequest('"result": "full" needs args.pkg_origins: name the packages')
    found = await _query(asked, repo, [] if names else ["-a"], names, _of_category(asked))
    if full:
        await _complete(asked, repo, names, found)
    return _by_origin(found)


async def _search(asked: Asked) -> dict[str, Any]:
    """Packages whose name has the term in it. Raises: as `_info`."""
    term, excluded = asked.args.text("search_term"), asked.args.texts("search_excludes")
    if len(term) > _LONGEST or not term.isprintable():
        raise BadRequest(f"args.search_term has at most {_LONGEST} characters, all printable")
    of_category = _of_category(asked)

    def fits(one: dict[str, Any]) -> bool:
        return of_category(one) and not any(phrase in one["name"] for phrase in excluded)

    pattern = f"({_literal(term)})"
    found = await _query(asked, repository(asked), ["-i", "-x"], [pattern], fits)
    # Those that begin so come first.
    found.sort(key=lambda one: not one["name"].startswith(term))
    packages_found = _by_origin(found)
    return {"results_order": list(packages_found), **packages_found}


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
) -> list[dict[str, Any]]:
    """Raises: BadRequest if there are too many for a reply; ToolFailed."""
    columns = {**_COLUMNS, **(_INSTALLED if repo is None else {})}
    format = _BETWEEN.join(columns.values())

    def read(answer: ToolAnswer) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for line in _lines(answer):
            row = line.split(_BETWEEN)
            one = dict(zip(columns, row, strict=False))
            if len(row) == len(columns) and fits(one):
                found.append(one)
            if len(found) > MOST_FOUND:
                raise BadRequest(
                    f"there are more than the {MOST_FOUND} packages of one reply; name them, or"
                    " a category"
                )
        return found

    argv = (asked.tool, *_query_of(repo), *options, format, *patterns)
    return await asked.ask(*argv, read=read)


async def _complete(
    asked: Asked, repo: str | None, names: Sequence[str], found: list[dict[str, Any]]
) -> None:
    """Add what packages have several of."""
    for key, column in {**_SEVERAL, **(_FILES if repo is None else {})}.items():
        format = f"%n{_BETWEEN}{column}"
        argv = (asked.tool, *_query_of(repo), format, *names)
        values = await asked.ask(*argv, read=_by_name)
        for one in found:
            one[key] = values.get(one["name"], [])


def _by_name(answer: ToolAnswer) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for line in _lines(answer):
        name, _, value = line.partition(_BETWEEN)
        values.setdefault(name, []).append(value)
    return values


def _lines(answer: ToolAnswer) -> list[str]:
    """What it says, line by line. Raises: ToolFailed if it says what is wrong, too."""
    # It fails without a word if there is no such package, which is an answer. One that fails
    # amid its answer has told a part.
    if answer.code != 0 and answer.errors.strip() and not _NO_SUCH.search(answer.errors):
        raise ToolFailed(f"pkg: {answer.reason}")
    return [line for line in answer.output.split("\n") if line]


def _by_origin(found: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Raises: NothingFound."""
    named: dict[str, Any] = {}
    for one in found:
        # Packages of several flavours have one origin.
        key = one["origin"] if one["origin"] not in named else one["name"]
        named[key] = one
    if not named:
        raise NothingFound("there is no such package")
    return named


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
