"""What the text that pkg prints says of a run. Pure: bytes in, cut anywhere; state changed.

Source: pkg 2.8.4, src/event.c, and tests/corpus/pkg/README.md. Into a pipe a bar is dots, one
each ten percent, and ` done`; on a terminal it is redrawn behind `\\r`. In a jail `[hostname] `
stands before `[1/4]`. A bar can be broken by another message and go on behind it.
"""

from __future__ import annotations

import re
from typing import Final

from server.job_classes.pkg_state import (
    PackageLedger,
    PkgCatalogues,
    PkgPlace,
    PkgProblems,
    as_name,
    without_version,
)

# Bytes of a line that are kept; the rest of it is left out.
_LINE: Final = 8192
# Bytes of the beginning of a line that is looked at as a bar before its end has come.
_BAR_LINE: Final = 512
_MOST: Final = 10**9
_FEW_BYTES: Final = 2**63
_FULL: Final = 100

# Behind these a line starts as it does outside a jail.
_JAIL: Final = r"^(?:\[(?!\d+/\d+\])[^\]\s]{1,256}\] )?"
_STEP: Final = r"\[(?P<at>\d{1,9})/(?P<of>\d{1,9})\] "
_BARS: Final = (
    r"(?P<what>Fetching|Extracting|Deleting files for|Processing entries"
    r"|Checking for upgrades \(\d+ candidates\)|Processing candidates \(\d+ candidates\))"
)
# What follows the colon only grows: so the beginning of a line says the same as the whole.
_BAR: Final = re.compile(
    rf"{_JAIL}(?:{_STEP})?{_BARS}(?: (?P<name>[^\s:]+))?: (?P<bar>.*)", re.ASCII
)
# Its end, where it goes on behind a message that broke it: without the colon.
_BROKEN: Final = "... done"
_BEGUN: Final = re.compile(
    rf"{_JAIL}{_STEP}(?P<what>Installing|Upgrading|Downgrading|Reinstalling|Deinstalling)"
    r" (?P<name>[^\s:]+)(?P<rest>.*)",
    re.ASCII,
)
_PHASES: Final = {"Installing": "install", "Deinstalling": "remove"}
_PERCENT: Final = re.compile(r" *(\d{1,3})%", re.ASCII)
_PLAN: Final = re.compile(
    r"(?:The following|Deinstallation has been requested for the following) (?P<count>\d{1,9})"
    r" package(?:\(s\) will be affected|s\b)",
    re.ASCII,
)
_NAMES: Final = re.compile(r"(?:New|Installed) packages to be [A-Z]+:", re.ASCII)
_COUNT: Final = re.compile(r"Number of packages to be [a-z]+: (?P<count>\d{1,9})$", re.ASCII)
_BYTES: Final = re.compile(
    r"(?P<size>\d{1,9}(?:[.,]\d{1,3})?) (?P<unit>B|[kKMGTPE]i?B) to be downloaded", re.ASCII
)
_LOCKED: Final = " is locked and may not be modified"
# A repository that is dealt with. "All repositories are up to date" is none.
_CLOSED: Final = re.compile(r"\S+ repository (?:is up to date\.$|update completed\.)")
# First characters of all lines that do not begin with a name. Names may have them too.
_BEGINNINGS: Final = frozenset("[=0123456789CDEFINPTUYp")
# What pkg says where nobody listens to its events: no failure of what it does.
_PIPE: Final = re.compile(r"(?:No such event pipe|Open event pipe|Connect event pipe)\b")


class PkgPlan:
    """What is to be done for pkg itself, or for everything else, and how much of it is done.

    Of two plans the second takes the place of the first, unless packages were changed between.
    """

    def __init__(self) -> None:
        # Packages of the plans that were gone through before.
        self._before = 0
        self._named = 0
        self._counted = 0
        self._of = 0
        # To be downloaded, rounded by pkg.
        self.bytes = 0
        # The fetch that is under way: which, of how many, how far it is, from 0 to 1.
        self.fetch = (0, 1, 0.0)
        self.past_fetch = False
        # The package that is under way, as `fetch`.
        self._at = 0
        self._share = 0.0

    def renew(self, named: int) -> None:
        """A further plan of so many packages."""
        if self._at:
            self._before = min(_MOST, self._before + self._count)
        self._named, self._counted, self._of = named, 0, 0
        self._at, self._share = 0, 0.0

    def count(self, more: int) -> None:
        """So many packages to be installed, or upgraded and so on."""
        self._counted = min(_MOST, self._counted + more)

    def step(self, at: int, of: int, share: float) -> None:
        """The package of that number is under way."""
        self.past_fetch = True
        self._share = max(self._share, share) if at == self._at else share
        self._at, self._of = max(1, at), max(self._of, of)

    def fetched(self, at: int, of: int, share: float) -> None:
        """The fetch of that number is under way."""
        self.fetch = (
            at,
            max(1, of),
            max(share, self.fetch[2]) if at == self.fetch[0] else share,
        )

    def fetched_share(self) -> float:
        """How far the fetch is by the numbers, from 0 to 1."""
        at, of, share = self.fetch
        return max(0.0, min(1.0, (at - 1 + share) / of))

    @property
    def changed(self) -> bool:
        """A package of the plan was begun."""
        return self._at > 0

    @property
    def _count(self) -> int:
        return max(self._named, self._counted, self._of)

    @property
    def total(self) -> int:
        """Packages of all plans."""
        return self._before + self._count

    def reached(self, weight: float) -> float:
        """Packages that pkg is past, and `weight` of the one that is under way."""
        return self._before + max(0, self._at - 1) + weight * self._share


class PkgText:
    """The state of a run by its text."""

    def __init__(self, ledger: PackageLedger) -> None:
        self._ledger = ledger
        # The last line that says something.
        self.last = ""
        self.problems = PkgProblems()
        self.place = PkgPlace()
        self.catalogues = PkgCatalogues()
        # As `PkgEvents` has them.
        self.failed = False
        self.itself_first = False
        self.at_second = False
        self.plans = (PkgPlan(), PkgPlan())
        # A plan was shown; "Your packages are up to date." was.
        self.planned = False
        self.up_to_date = False
        # How far the check for upgrades is, from 0 to 1.
        self.checked = 0.0
        self._line = bytearray()
        self._naming = False
        # What is under way, to know the same again; the package that is unpacked, if it is.
        self._doing = ("", 0, 0, "")
        self._unpacked = ""

    def feed(self, data: bytes) -> None:
        """More of the text."""
        *lines, rest = data.replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._keep(line)
            if self._line:
                self.end_line()
        self._keep(rest)
        if rest and len(self._line) <= _BAR_LINE:
            found = _BAR.match(self._line.decode(errors="replace"))
            if found is not None:
                self._bar(found, whole=False)

    def end_line(self) -> None:
        """What has come of the last line is all of it."""
        text = self._line.decode(errors="replace")
        self._line.clear()
        if text and not text.isspace():
            self.last = text
            self._whole(text)

    def end(self) -> None:
        """pkg has ended well: what it was at is behind it."""
        self._go_past()

    @property
    def plan(self) -> PkgPlan:
        """The one that is under way."""
        return self.plans[self.at_second]

    def _keep(self, data: bytes) -> None:
        self._line += data[: _LINE - len(self._line)]

    def _whole(self, text: str) -> None:
        if self._naming and text[0] == "\t":
            self._ledger.plan(_planned_name(text))
            return
        self._naming = False
        if text[0] not in _BEGINNINGS:
            self._package_message(text)
            return
        if text.endswith(_BROKEN) and _BAR.match(text) is None:
            text = text.removesuffix(" done").rstrip(".") + ": . done"
        if found := _BAR.match(text):
            self._bar(found, whole=True)
        elif found := _BEGUN.match(text):
            self._begun(found)
        elif found := _PLAN.match(text):
            self._new_plan(int(found["count"]))
        elif _NAMES.match(text):
            self._naming = True
        elif found := _COUNT.match(text):
            self.planned = True
            self.plan.count(int(found["count"]))
        elif found := _BYTES.match(text):
            size = _size(found["size"], found["unit"])
            self.plan.bytes = min(_FEW_BYTES, self.plan.bytes + size)
        elif not self._message(text):
            self._package_message(text)

    def _message(self, text: str) -> bool:
        if text.startswith("pkg: "):
            message = text.removeprefix("pkg: ")
            self.failed = self.failed or _PIPE.match(message) is None
            self.problems.add(message)
        elif text.startswith("Checking integrity"):
            self.place.go("check", "")
            self.plan.past_fetch = self.plan.past_fetch or self.plan.fetch[0] > 0
        elif text.startswith("==> Running trigger"):
            self._go_past()
            if self.place.phase != "triggers":
                self.place.go("triggers", "")
        elif text.startswith("Updating ") and text.rstrip(".").endswith(" catalogue"):
            self._go_past()
            self.place.rest("catalogue")
            self.catalogues.open()
        elif text.startswith("Unable to update repository "):
            self.failed = True
            self.catalogues.close()
        elif text.startswith("New version of pkg detected"):
            self.itself_first = True
        elif text.startswith("Your packages are up to date."):
            self.up_to_date = True
        else:
            return False
        return True

    def _package_message(self, text: str) -> None:
        """What begins with a package's or a repository's name."""
        if text.endswith(_LOCKED):
            name = without_version(as_name(text.removesuffix(_LOCKED)))
            self.problems.add(f"{name}{_LOCKED}")
        elif _CLOSED.match(text):
            self.catalogues.close()

    def _begun(self, found: re.Match[str]) -> None:
        at, of, name = int(found["at"]), int(found["of"]), found["name"].rstrip(".")
        if not found["rest"].startswith(" from "):
            name = without_version(name)
        self._begin(_PHASES.get(found["what"], "upgrade"), at, of, as_name(name))
        self.plan.step(at, of, 0.0)

    def _new_plan(self, count: int) -> None:
        self._go_past()
        self.planned = self.planned or count > 0
        if self.itself_first and self.plan.changed:
            self.at_second = True
        self.plan.renew(count)

    def _begin(self, what: str, at: int, of: int, name: str) -> None:
        """The first of the lines on a package in the fetch or the install part."""
        if self._doing != (what, at, of, name):
            self._doing = (what, at, of, name)
            self._go_past()
            self.place.go(what, name)

    def _go_past(self) -> None:
        if self._unpacked:
            self._ledger.go_past(self._unpacked)
        self._unpacked = ""

    def _bar(self, found: re.Match[str], *, whole: bool) -> None:
        """A bar. Before its line is whole, ` done` may be the beginning of something else."""
        what, bar = found["what"], found["bar"]
        done = whole and bar.rstrip().endswith(" done")
        share = 1.0 if done else _bar_share(bar)
        at, of = int(found["at"] or 0), int(found["of"] or 0)
        name = as_name((found["name"] or "").rstrip("."))
        if what == "Processing entries":
            self.place.rest("catalogue")
            self.catalogues.processed(share)
        elif what.endswith("candidates)"):
            self.place.rest("check")
            second = what.startswith("Processing")
            self.checked = max(self.checked, (second + share) / 2)
        elif what == "Fetching":
            self._fetch(name, at, of, share)
        elif at:
            self.plan.step(at, of, share)
            # On a terminal there is no ` done`, but 100 %.
            if share >= 1 and whole:
                self._unpacked = without_version(name)

    def _fetch(self, name: str, at: int, of: int, share: float) -> None:
        if at:
            self._begin("fetch", at, of, without_version(name))
            self.plan.fetched(at, of, share)
        elif "-" in name:
            # Once more, as the package was found damaged.
            self._begin("fetch", 0, 0, without_version(name))
        elif name.startswith("vuln"):
            self._begin("fetch", 0, 0, "")
            self.catalogues.fetch(name)
            self.catalogues.fetched(share)
        else:
            self.place.rest("catalogue")
            if not name.startswith("meta"):
                self.catalogues.fetch(name)
                self.catalogues.fetched(share)


def _bar_share(bar: str) -> float:
    if found := _PERCENT.match(bar):
        return min(_FULL, int(found[1])) / _FULL
    return min(10, len(bar) - len(bar.lstrip("."))) / 10


def _planned_name(line: str) -> str:
    """Of `name: 1.0 -> 1.1`, `name: 1.0 [repository]`, `name-1.0`, `name-1.0 (reason)`."""
    first = line.split(None, 1)[0]
    return as_name(first[:-1] if first.endswith(":") else without_version(first))


def _size(number: str, unit: str) -> int:
    """Bytes of a size as pkg prints it."""
    base = 1000 if len(unit) == len("kB") and "i" not in unit else 1024
    power = "BKMGTPE".index(unit[0].upper()) if unit != "B" else 0
    return int(float(number.replace(",", ".")) * base**power)
