"""/etc/freebsd-update.conf: what of it is a setting of sysadm/update, read and changed.

All but `replace_file` is text in, text out.

Source: freebsd-update.sh, parse_conffile and config_*: a line is a keyword and its words, up to
the first `#`; one that ends with a backslash goes on in the next (sh's read). Case matters.
`Components` given twice adds up; `ServerName` given twice is an error there.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sysadmd.copies import to_disk
from sysadmd.text import printable, quoted

COUNTERPARTS: Final[Mapping[str, str]] = {
    "package_set": "Components",
    "package_url": "ServerName",
}
"""Our settings and their keywords."""

WITHOUT: Final[Mapping[str, str]] = {
    "auto_update": "freebsd-update has no such setting: what runs it regularly is cron",
    "maxbe": "freebsd-update has no such setting: CreateBootEnv only says whether it makes one",
    "auto_update_reboot": "freebsd-update never restarts the system",
    "cdn_type": "freebsd-update has no such setting: it takes a mirror of its ServerName",
}
"""Settings without a counterpart, and why."""

# Characters of a list of components. A path of the system has as many.
_LONGEST: Final = 1024
_COMPONENT: Final = re.compile(r"(?:kernel|world|src)(?:/[A-Za-z0-9_./-]+)?")
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_HOST_LONGEST: Final = 253
# What sh's read takes away: an escaped end of line, and the backslash before anything else.
_ESCAPE: Final = re.compile(r"\\(\n|.|$)", re.DOTALL)


def settings(text: str) -> dict[str, str]:
    """The settings that the file has, of those in COUNTERPARTS.

    A last line without its newline counts too, though freebsd-update passes over it.
    """
    words: dict[str, list[str]] = {}
    for line in _lines(text):
        if line.keyword == "Components":
            words.setdefault("package_set", []).extend(line.words)
        elif line.keyword == "ServerName" and line.words:
            words.setdefault("package_url", line.words[:1])
    return {key: printable(" ".join(found)) for key, found in words.items() if found}


def changed(text: str, wanted: Mapping[str, str]) -> str:
    """The file with these settings; what is not of them stays as it is, comments too.

    Raises: ValueError, which names the key and what is allowed.
    """
    missing = dict(_checked(key, value) for key, value in wanted.items())
    new: list[str] = []
    given: set[str] = set()
    for line in _lines(text):
        if line.keyword not in missing and line.keyword not in given:
            new.append(line.raw)
        elif line.keyword in given:
            # Once is enough, and the most that is allowed.
            new.extend([f"{line.comment}\n"] if line.comment else [])
        else:
            value = missing.pop(line.keyword)
            given.add(line.keyword)
            new.append(line.raw if line.says(value) else line.saying(value))
    while new and _goes_on(new[-1]):
        new[-1] += "\n"
    new += [f"{keyword} {value}\n" for keyword, value in missing.items()]
    return "".join(new)


def replace_file(path: Path, text: str) -> None:
    """Replace a file, whole or not at all; where it is a link, the file it leads to.

    Owner and mode stay. Bytes that are not UTF-8 are taken from surrogates (PEP 383). Raises:
    OSError, also if it is not there.
    """
    try:
        real = path.resolve(strict=True)
    except RuntimeError as error:  # So says Python 3.11 of links in a circle.
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from error
    old = real.stat()
    if not stat.S_ISREG(old.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(real))
    new = real.with_name(real.name + ".new")
    # Of a replacement that was cut off.
    new.unlink(missing_ok=True)
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "wb") as out:
            out.write(text.encode(errors="surrogateescape"))
            out.flush()
            made = os.fstat(out.fileno())
            if (made.st_uid, made.st_gid) != (old.st_uid, old.st_gid):
                os.fchown(out.fileno(), old.st_uid, old.st_gid)
            os.fchmod(out.fileno(), stat.S_IMODE(old.st_mode))
            os.fsync(out.fileno())
        new.replace(real)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    to_disk(real.parent)


@dataclass(frozen=True, slots=True)
class _ConfLine:
    """A line as freebsd-update reads it, which may be several of the file's."""

    raw: str
    keyword: str
    words: list[str]
    comment: str

    def says(self, value: str) -> bool:
        """Whether it has this value."""
        return self.words == value.split(" ")

    def saying(self, value: str) -> str:
        """The same line with this value."""
        return f"{self.keyword} {value}{' ' if self.comment else ''}{self.comment}\n"


def _lines(text: str) -> list[_ConfLine]:
    lines: list[_ConfLine] = []
    raw: list[str] = []
    parts = text.split("\n")
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        raw.append(part if last else part + "\n")
        if not _goes_on(raw[-1]):
            lines.append(_line("".join(raw)))
            raw = []
    if "".join(raw):
        lines.append(_line("".join(raw)))
    return lines


def _goes_on(line: str) -> bool:
    """Whether what is written after it would be of this line."""
    body = line.removesuffix("\n")
    return body == line or (len(body) - len(body.rstrip("\\"))) % 2 == 1


def _line(raw: str) -> _ConfLine:
    # A backslash before it does not save it: read takes that away first.
    before, mark, comment = raw.removesuffix("\n").partition("#")
    plain = _ESCAPE.sub(lambda found: found[1].strip("\n"), before)
    words = re.split(r"[ \t\n]+", plain.strip(" \t\n"))
    return _ConfLine(raw, words[0], words[1:], mark + comment)


def _checked(key: str, value: object) -> tuple[str, str]:
    """The setting's keyword and value. Raises: ValueError."""
    if key in WITHOUT:
        raise ValueError(f"{key}: {WITHOUT[key]}")
    if key not in COUNTERPARTS:
        raise ValueError(f"{quoted(key)}: no such setting; there are {', '.join(COUNTERPARTS)}")
    if isinstance(value, str) and (_components if key == "package_set" else _host)(value):
        return COUNTERPARTS[key], value
    allowed = (
        "one or more of kernel, world, src, each of them also with /part, by single blanks"
        if key == "package_set"
        else "the name of a host"
    )
    raise ValueError(f"{key}: {quoted(value)}; allowed is {allowed}")


def _components(value: str) -> bool:
    return len(value) <= _LONGEST and all(
        _COMPONENT.fullmatch(word) and ".." not in word for word in value.split(" ")
    )


def _host(value: str) -> bool:
    return len(value) <= _HOST_LONGEST and _HOST.fullmatch(value) is not None
