"""What rotation calls the files of a log, and in what order they were written: pure.

Source: newsyslog.conf(5) and logrotate(8): `log.N` (the higher N, the older), `log.DATE`,
`stem-DATE.suffix`, `log.old`, each perhaps with the suffix of a packer. A log that is a link
to a file with a date in its name is rotated by pointing the link to the next one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from collectors.packed_log import is_packed

# What a rotation adds to a log's name: a number or a date. What an admin puts beside it is no
# news (`.save`, `.errors`), unless the place where reading stopped is found in it.
_ADDED: Final = re.compile(r"\d|\.old")
# So many digits are a date, between a name and its suffix; fewer may be anything.
DATE: Final = 6
# So many digits at most are the number of a generation; more are a date.
NUMBER: Final = 5
# Of generations that are counted one lower than this is there, whatever was deleted.
COUNTED: Final = 10


@dataclass(frozen=True, slots=True)
class Generation:
    """A file beside a log, by its name and what stat(2) says of it.

    number: N of `log.N` and `log.N.gz`; None: it has none, or it is no count.
    """

    name: str
    info: os.stat_result
    number: int | None = None

    @property
    def packed(self) -> bool:
        """Is it compressed, by its name?"""
        return is_packed(PurePath(self.name))

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self.info.st_dev, self.info.st_ino

    @property
    def stamp(self) -> tuple[int, int, int, int]:
        """What changes if it is another file, or is written to: device, inode, time, size."""
        return (*self.identity, self.info.st_mtime_ns, self.info.st_size)


def generations(infos: Mapping[str, os.stat_result]) -> list[Generation]:
    """Files by their names. Days of the month are no count: `log.28`, without a first one."""
    numbers = {name: _number(name) for name in infos}
    first = min((number for number in numbers.values() if number is not None), default=0)
    return [
        Generation(name, info, numbers[name] if first < COUNTED else None)
        for name, info in infos.items()
    ]


def _number(name: str) -> int | None:
    digits = PurePath(plain(name)).suffix[1:]
    # Who counts writes no zero before.
    counts = digits.isdecimal() and len(digits) <= NUMBER and str(int(digits)) == digits
    return int(digits) if counts else None


def plain(name: str) -> str:
    """The name without the suffix of a packer."""
    path = PurePath(name)
    return path.stem if is_packed(path) else name


def is_rotated(name: str, logs: Collection[str]) -> bool:
    """Does a rotation of one of the logs of these names give this name?"""
    return name not in logs and any(_is_rotated(name, log) for log in logs)


def _is_rotated(name: str, log: str) -> bool:
    if name.startswith(log):
        return bool(_ADDED.search(name, len(log)))
    kind = PurePath(log)
    of = PurePath(plain(name))
    if of.suffix != kind.suffix:
        return False
    digits = sum(map(str.isdigit, of.stem))
    dated = of.stem.startswith(kind.stem) and digits - sum(map(str.isdigit, kind.stem)) >= DATE
    # A log that has the date in its name itself.
    return dated or (digits >= DATE and _shape(of.stem) == _shape(kind.stem))


def _shape(name: str) -> str:
    return re.sub(r"\d+", "0", name)


def in_order(generations: Iterable[Generation]) -> list[Generation]:
    """The oldest first: by number or date where all have one, else by time."""
    found = list(generations)
    if all(file.number is not None for file in found):
        return sorted(found, key=lambda file: (-(file.number or 0), file.name))
    dates = {file.name: re.sub(r"\D", "", plain(file.name)) for file in found}
    if all(len(date) >= DATE for date in dates.values()):
        return sorted(found, key=lambda file: (dates[file.name], file.name))
    return sorted(
        found,
        key=lambda file: (
            file.info.st_mtime_ns,
            file.info.st_ctime_ns,
            -(file.number or 0),
            file.name,
        ),
    )


def are_two(one: Generation, other: Generation) -> bool:
    """Are these two generations by their names, and not a file and its copy?"""
    if one.number is not None and other.number is not None:
        return one.number != other.number
    names = plain(one.name), plain(other.name)
    dates = [re.sub(r"\D", "", name) for name in names]
    dated = all(len(date) >= DATE for date in dates)
    return dated and dates[0] != dates[1] and _shape(names[0]) == _shape(names[1])


def lowest(generations: Iterable[Generation]) -> int | None:
    """The number of the newest generation: 0 or 1, as who rotates counts; None: neither."""
    numbers = {file.number for file in generations}
    return next((number for number in (0, 1) if number in numbers), None)


def lacks_one(
    generations: Collection[Generation],
    since: int | None,
    begins: int | None,
    *,
    seen: bool = True,
    deleted: bool = False,
) -> bool:
    """Is there no file of a generation that was written after the one of the number `since`?

    since: None: it has no number. seen: is it there at all? If not, only the newest is missed,
    and if all are, because they are kept elsewhere, only where it was `deleted`. begins: the
    number of the newest; None: not known, so it may be 1.
    """
    there = {file.number for file in generations if file.number is not None}
    newest = 1 if begins is None else begins
    if not seen:
        return begins is not None and (deleted or bool(there)) and newest not in there
    return since is not None and any(number not in there for number in range(newest, since))
