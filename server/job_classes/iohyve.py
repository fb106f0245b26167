"""sysadm/iohyve: virtual machines, by vm-bhyve, or by iohyve where that is installed.

What fetch(1) says of a download is read in `fetch_report`. Source: vm(8) of vm-bhyve 1.6;
iohyve(8) of 0.7.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from dispatcher.orders import Order, Origin
from server.job_classes.definition import Action, Asked, JobClass, command, first_of, new_uuid
from server.job_classes.fetch_report import FetchReport
from server.job_classes.remote_size import remote_size
from server.job_classes.tool import ToolAnswer
from sysadmd.errors import BadRequest, ToolFailed
from sysadmd.settings import ClassSettings
from sysadmd.text import quoted

NAME: Final = "sysadm/iohyve"
SCHEMES: Final = ("http", "https", "ftp", "file")
_LONGEST_URL: Final = 2048
# Of a machine. Source: vm(8).
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,228}")
# The words for what a tool does.
_WORDS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "vm": {
        "fetch": ("iso",),
        "machines": ("list",),
        "images": ("iso",),
        "disks": ("info",),
        "version": ("version",),
    },
    "iohyve": {
        "fetch": ("fetch",),
        "machines": ("list",),
        "images": ("isolist",),
        "disks": ("disks",),
        "version": ("version",),
    },
}
# Of what vm says while it is not set up. Source: lib/vm-base of vm-bhyve.
_NOT_SET_UP: Final = ("is not enabled in", "has not been configured or is not a valid")
# Whether iohyve is, by which it tells itself. Source: lib/ioh-setup of iohyve 0.7.
_SET_UP: Final = Path("/iohyve/ISO")
# A size as vm tells it: bytes, and in words. Source: lib/vm-info of vm-bhyve.
_SIZE: Final = re.compile(r"\d+ \((\S+)\)")


def _is_iohyve(asked: Asked) -> bool:
    return asked.tool == asked.settings.iohyve


def _words(asked: Asked, what: str) -> tuple[str, ...]:
    return (asked.tool, *_WORDS["iohyve" if _is_iohyve(asked) else "vm"][what])


def _name(asked: Asked) -> str:
    """Of a machine. Raises: BadRequest."""
    name = asked.args.text("name")
    if not _NAME.fullmatch(name):
        raise BadRequest(f"args.name is {quoted(name)}; listvms names those that there are")
    return name


def check_url(url: str) -> str:
    """Raises: BadRequest unless it may be fetched, and told of."""
    try:
        parts = urlsplit(url)
        where = parts.hostname
    except ValueError as error:
        raise BadRequest(f"args.url is {quoted(url)}: {error}") from error
    if parts.scheme not in SCHEMES:
        raise BadRequest(f"args.url is {quoted(url)}; allowed: {', '.join(SCHEMES)}")
    if len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise BadRequest(
            f"args.url has at most {_LONGEST_URL} characters, of ASCII and without blanks;"
            " write others as %20"
        )
    if parts.username is not None or parts.password is not None:
        raise BadRequest("args.url has an account in it, which everybody would be told")
    # One without a slash at its beginning is of whatever directory fetch(1) is in.
    is_file = parts.path.startswith("/") and parts.path.strip("/")
    if not is_file or (parts.scheme != "file" and not where):
        raise BadRequest(f"args.url is {quoted(url)}; it has to name a server and a file")
    return url


async def _fetch(asked: Asked) -> dict[str, Any]:
    if not asked.args.values.get("url"):
        return {"error": "Missing required key 'url'"}
    url = check_url(asked.args.text("url"))
    size = await remote_size(url)
    fetching = command(*_words(asked, "fetch"), url)
    order = Order(
        id=f"sysadm_iohyve_fetch::{new_uuid()}",
        commands=(fetching,),
        origin=Origin(
            system=NAME,
            fields={"action": "fetchiso", **({} if size is None else {"size": size})},
        ),
    )
    job = await asked.queue(order)
    return {"command": fetching.text, "comment": "Task Queued", "queueid": job.id}


async def _machines(asked: Asked) -> dict[str, Any]:
    rows = await asked.ask(*_words(asked, "machines"), read=_rows)
    found: dict[str, Any] = {}
    for row in rows:
        lower = {key.lower().rstrip("?"): value for key, value in row.items()}
        name = lower.pop("name", "") or lower.pop("guest", "")
        state = lower.get("state", "")
        running = lower.get("running", "YES" if state.startswith("Running") else "NO")
        auto = lower.pop("auto", "")
        found[name] = {
            **lower,
            "description": lower.get("description", ""),
            "rcboot": lower.get("rcboot", "YES" if auto.startswith("Yes") else "NO"),
            "running": running,
            "vmm": lower.get("vmm", running),
        }
    return found


async def _images(asked: Asked) -> list[str]:
    return await asked.ask(*_words(asked, "images"), read=_image_names)


def _image_names(answer: ToolAnswer) -> list[str]:
    """vm tells datastore and name, iohyve the name and, if it is newer, a size."""
    rows = _rows(answer)
    for column in ("FILENAME", "NAME"):
        if rows and column in rows[0]:
            return [row[column] for row in rows]
    return [line.strip() for line in answer.output.splitlines()[1:] if line.strip()]


async def _disks(asked: Asked) -> dict[str, str]:
    """A machine's disks and their sizes; what its tool has against it is an answer."""
    sizes = iohyve_disks if _is_iohyve(asked) else vm_disks

    def read(answer: ToolAnswer) -> dict[str, str]:
        found = None if answer.code else sizes(answer.output)
        return {"error": answer.reason} if found is None else found

    return await asked.ask(*_words(asked, "disks"), _name(asked), read=read)


def vm_disks(text: str) -> dict[str, str]:
    """Sizes by disk, `-` where vm knows none. Source: lib/vm-info of vm-bhyve."""
    found: dict[str, str] = {}
    in_disk, disk = False, ""
    for line in text.splitlines():
        key, _, value = line.strip().partition(": ")
        if not line.startswith("    "):
            in_disk, disk = line == "  virtual-disk", ""
        elif in_disk and key == "number":
            disk = f"disk{value}"
            found[disk] = "-"
        elif disk and key == "bytes-size":
            size = _SIZE.fullmatch(value)
            found[disk] = size[1] if size else value
    return found


def iohyve_disks(text: str) -> dict[str, str] | None:
    """Sizes by disk; None: there is no such list. Source: lib/ioh-disk of iohyve 0.7."""
    rows = [line.split() for line in text.splitlines()]
    heads = [number for number, row in enumerate(rows) if row[:1] == ["diskN"]]
    if not heads:
        return None
    return {row[0]: row[1] for row in rows[heads[0] + 1 :] if len(row) > 1}


async def _is_set_up(asked: Asked) -> dict[str, str]:
    is_iohyve = _is_iohyve(asked)

    def read(answer: ToolAnswer) -> dict[str, str]:
        if answer.code and any(words in answer.reason for words in _NOT_SET_UP):
            return {"setup": "false"}
        _said(answer)
        # iohyve answers whether it is set up or not.
        return {"setup": "true" if not is_iohyve or _SET_UP.is_dir() else "false"}

    return await asked.ask(*_words(asked, "machines"), read=read)


async def _version(asked: Asked) -> dict[str, str]:
    said = await asked.ask(*_words(asked, "version"), read=_said)
    lines = said.strip().splitlines()
    return {"version": lines[0] if lines else ""}


async def _start(asked: Asked) -> dict[str, str]:
    return await _turn(asked, "start")


async def _stop(asked: Asked) -> dict[str, str]:
    return await _turn(asked, "stop")


async def _turn(asked: Asked, what: str) -> dict[str, str]:
    """A machine on or off; what its tool has against it is an answer, as originally."""
    name = _name(asked)
    await asked.note(f"{what} virtual machine {name}")

    def read(answer: ToolAnswer) -> dict[str, str]:
        return {"error": answer.reason} if answer.code else {"name": name}

    return await asked.ask(asked.tool, what, name, read=read)


def table(text: str) -> list[dict[str, str]]:
    """Rows below a line of names, each column as wide as its name's place; values may have
    blanks."""
    head, *lines = text.splitlines() or [""]
    names = list(re.finditer(r"\S+", head))
    ends = [*(name.start() for name in names[1:]), None]
    spans = [(name, name.start(), end) for name, end in zip(names, ends, strict=False)]
    return [
        {name[0]: line[start:end].strip() for name, start, end in spans}
        for line in lines
        if line.strip()
    ]


def _rows(answer: ToolAnswer) -> list[dict[str, str]]:
    """Raises: ToolFailed."""
    return table(_said(answer))


def _said(answer: ToolAnswer) -> str:
    """Raises: ToolFailed."""
    if answer.code:
        raise ToolFailed(answer.reason)
    return answer.output


def _find(settings: ClassSettings) -> str | None:
    return first_of(settings.vm, settings.iohyve)


CLASS: Final = JobClass(
    name=NAME,
    needs="vm-bhyve or iohyve",
    find=_find,
    reporter=FetchReport,
    actions={
        "fetchiso": Action(_fetch),
        "listvms": Action(_machines, reading=True),
        "listisos": Action(_images, reading=True),
        "listdisks": Action(_disks, reading=True),
        "issetup": Action(_is_set_up, reading=True),
        "version": Action(_version, reading=True),
        "start": Action(_start),
        "stop": Action(_stop),
    },
)
