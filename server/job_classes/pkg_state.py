"""How a run of pkg stands: packages done, problems, where it is, its catalogues. No parsing."""

from __future__ import annotations

from typing import Final

import msgspec

from sysadmd.text import printable

# Names kept of one run, each kind: the whole of FreeBSD's ports has some 36,000 packages, and
# no machine a third of it. Beyond it nothing more is counted.
MOST_NAMES: Final = 12_000
# Characters of a name.
_NAME: Final = 256
MOST_PROBLEMS: Final = 50
# Characters of one problem; bytes as JSON of all.
_PROBLEM: Final = 500
_PROBLEMS_SIZE: Final = 32 * 1024

# In which order a run comes by them, as a rule.
_ORDER: Final = {"start": 0, "catalogue": 1, "fetch": 2, "check": 3, "triggers": 5}
_PACKAGES: Final = 4
# What remains of the way after each repository: how many there are is told nowhere.
_REMAINS: Final = 0.35

_encode: Final = msgspec.json.Encoder().encode


def as_name(value: object) -> str:
    """A package's name as it is shown; "" for what is none."""
    return printable(value[:_NAME])[:_NAME] if isinstance(value, str) else ""


def without_version(name: str) -> str:
    """The package's name of `name-version`: a version holds no dash."""
    return name.rpartition("-")[0] or name


class PackageLedger:
    """The packages of a run by what the two channels say.

    Events tell a package's true end. The text tells only that a package was unpacked and that
    pkg went on; that counts where events are missing, and not against them: a package whose
    script failed is unpacked, and is not done.
    """

    def __init__(self) -> None:
        self.planned: dict[str, None] = {}
        self._begun: set[str] = set()
        self._finished: set[str] = set()
        self._passed: set[str] = set()
        # Of the passed ones: of which no event was heard; that no event has finished.
        self._unheard = 0
        self._unfinished = 0

    def plan(self, name: str) -> None:
        """A plan names it."""
        if name and len(self.planned) < MOST_NAMES:
            self.planned[name] = None

    def begin(self, name: str) -> None:
        """An event says that it is begun."""
        if name in self._begun or len(self._begun) >= MOST_NAMES:
            return
        self._begun.add(name)
        self._unheard -= name in self._passed

    def finish(self, name: str) -> bool:
        """An event says that it is finished. True: for the first time."""
        self.begin(name)
        if name in self._finished or len(self._finished) >= MOST_NAMES:
            return False
        self._finished.add(name)
        self._unfinished -= name in self._passed
        return True

    def go_past(self, name: str) -> None:
        """The text says that it is unpacked or deleted, and that pkg is past it."""
        if name in self._passed or len(self._passed) >= MOST_NAMES:
            return
        self._passed.add(name)
        self._unheard += name not in self._begun
        self._unfinished += name not in self._finished

    @property
    def done(self) -> int:
        """Packages that are done. Where events are missing, the text is believed."""
        return len(self._finished) + (self._unfinished if self._unheard > 0 else 0)

    def left_out(self) -> list[str]:
        """Those that a plan named and that are not done, in the order of the plans."""
        done = self._finished | (self._passed if self._unheard > 0 else set[str]())
        return [name for name in self.planned if name not in done]


class PkgProblems:
    """Texts in order, each once. Of more than `MOST_PROBLEMS` the first are kept."""

    def __init__(self) -> None:
        self._texts: dict[str, None] = {}
        self._size = 0

    def add(self, text: str) -> None:
        """Keep it, unless it is known or there is no room."""
        # Cut before, too: what is not printable grows.
        shown = printable(text[:_PROBLEM].strip())[:_PROBLEM]
        if not shown or shown in self._texts or len(self._texts) >= MOST_PROBLEMS:
            return
        size = len(_encode(shown)) + 1
        if self._size + size <= _PROBLEMS_SIZE:
            self._texts[shown] = None
            self._size += size

    def add_if_none(self, text: str) -> None:
        """Keep it if there is nothing else: some failures are told in plain words alone."""
        if not self._texts:
            self.add(text)

    def add_all(self, others: PkgProblems) -> None:
        """Keep those of the others behind these."""
        for text in others.texts:
            self.add(text)

    @property
    def texts(self) -> list[str]:
        """In order."""
        return list(self._texts)


class PkgPlace:
    """What pkg is at by one channel.

    Events and text tell of the same things in the same order, so of two places that one is
    ahead that has told of more.
    """

    def __init__(self) -> None:
        self.phase = "start"
        self.package = ""
        self._steps = 0

    def go(self, phase: str, package: str) -> None:
        """pkg begins this."""
        self.phase, self.package = phase, package
        self._steps += 1

    def rest(self, phase: str) -> None:
        """pkg does this, which the other channel may not tell."""
        self.phase, self.package = phase, ""

    @property
    def ahead(self) -> tuple[int, int]:
        """The greater one is further on."""
        return self._steps, _ORDER.get(self.phase, _PACKAGES)


class PkgCatalogues:
    """How far the update of the catalogues is, as one channel tells it."""

    def __init__(self) -> None:
        self._closed = 0
        # Of the one that is open, from 0 to 1: half for the fetch, half for the entries.
        self._share = 0.0
        self._data = False

    def open(self) -> None:
        """The next repository; that before it is dealt with, however it ended."""
        if self._data or self._share:
            self.close()

    def fetch(self, file: str) -> None:
        """This file is fetched. The small `meta` stands for nothing."""
        if file.startswith("meta"):
            self.open()
        self._data = not file.startswith("meta")

    def fetched(self, share: float) -> None:
        """So much of it is there."""
        if self._data:
            self._share = max(self._share, share / 2)

    def processed(self, share: float) -> None:
        """So many of its entries are read."""
        if self._data:
            self._share = max(self._share, 0.5 + share / 2)

    def close(self) -> None:
        """It is dealt with."""
        self._closed += 1
        self._share = 0.0
        self._data = False

    @property
    def share(self) -> float:
        """From 0 to below 1; it grows with each repository, however many there are."""
        left: float = _REMAINS ** min(self._closed, 64)
        return 1 - left + left * (1 - _REMAINS) * self._share
