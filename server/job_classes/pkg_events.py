"""What the lines of pkg's event pipe say of a run. Pure: one line in, state changed.

Source: pkg 2.8.4, libpkg/pkg_event.c, and tests/corpus/pkg/README.md. Lines may be empty, may
be no JSON, and may be missing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, Final, cast
from urllib.parse import unquote

from server.job_classes.pkg_state import (
    MOST_NAMES,
    PackageLedger,
    PkgCatalogues,
    PkgPlace,
    PkgProblems,
    as_name,
    without_version,
)

# Bytes of a line that is still read: the longest recorded have some 600.
_LINE: Final = 64 * 1024
_MOST: Final = 2**63
_PHASES: Final = {"INSTALL": "install", "UPGRADE": "upgrade", "DEINSTALL": "remove"}

# Nearly all lines are of this kind, and this form, and a download has a hundred thousand.
_TICK: Final = re.compile(
    rb'\{ "type": "INFO_PROGRESS_TICK",'
    rb' "data": \{ "current": (\d{1,18}), "total" : (\d{1,18})\}\}'
)
_decode: Final = json.JSONDecoder(strict=False).decode


class PkgStage:
    """What was done for pkg itself, or for everything else."""

    def __init__(self) -> None:
        # Packages whose fetch was begun; bytes of all of them; of the last one the share.
        self.fetches = 0
        self.bytes = 0
        self.fetched = 0.0
        # The fetch part is over.
        self.past_fetch = False
        self.finished = 0
        # How far the package is that is unpacked or deleted now, from 0 to 1.
        self.share = 0.0


class PkgEvents:
    """The state of a run by its events."""

    def __init__(self, ledger: PackageLedger) -> None:
        self._ledger = ledger
        self.problems = PkgProblems()
        self.place = PkgPlace()
        self.catalogues = PkgCatalogues()
        # An error was told that is none of a package's lock.
        self.failed = False
        # pkg upgrades itself first and begins again: the second of the stages.
        self.itself_first = False
        self.stages = (PkgStage(), PkgStage())
        self.at_second = False
        # What ticks belong to by the last BEGIN: catalogue, entries, fetch, unpack, or nothing.
        self._ticking = ""
        self._fetching = ""
        self._sizes: dict[str, int] = {}
        self._handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            "INFO_FETCH_BEGIN": self._fetch_begin,
            "INFO_FETCH_FINISHED": self._fetch_finished,
            "INFO_PROGRESS_TICK": self._tick,
            "INFO_INCREMENTAL_UPDATE": self._catalogue_read,
            "INFO_INTEGRITYCHECK_BEGIN": self._check,
            "INFO_EXTRACT_BEGIN": self._extract_begin,
            "INFO_EXTRACT_FINISHED": self._extract_finished,
            "INFO_TRIGGERS_BEGIN": self._triggers,
            "INFO_TRIGGERS_FINISHED": self._triggers_finished,
            "INFO_NEWPKGVERSION": self._newer_pkg,
            "ERROR": self._error,
            "ERROR_LOCKED": self._locked,
        }
        for kind, phase in _PHASES.items():
            self._handlers[f"INFO_{kind}_BEGIN"] = self._begin(phase)
            self._handlers[f"INFO_{kind}_FINISHED"] = self._finished

    def line(self, line: bytes) -> None:
        """One line without its end."""
        if not line or len(line) > _LINE:
            return
        if found := _TICK.fullmatch(line):
            self._go_on(int(found[1]), int(found[2]))
            return
        try:
            value: object = _decode(line.decode(errors="replace"))
        except (ValueError, RecursionError):
            return
        if not isinstance(value, dict):
            return
        event = cast("dict[str, object]", value)
        kind, data = event.get("type"), event.get("data")
        handler = self._handlers.get(kind) if isinstance(kind, str) else None
        if handler is not None:
            handler(cast("dict[str, Any]", data) if isinstance(data, dict) else {})

    @property
    def stage(self) -> PkgStage:
        """The one that is under way."""
        return self.stages[self.at_second]

    def _fetch_begin(self, data: dict[str, Any]) -> None:
        name = _fetched_file(data.get("url"))
        self._fetching = ""
        if "-" not in name:
            self._ticking = "catalogue"
            self.catalogues.fetch(name)
            if name.startswith("vuln"):
                self.place.go("fetch", "")
            else:
                self.place.rest("catalogue")
            return
        self._ticking = "fetch"
        self._fetching = name
        self.place.go("fetch", without_version(name))
        if name not in self._sizes and len(self._sizes) < MOST_NAMES:
            self._sizes[name] = 0
            self.stage.fetches += 1

    def _fetch_finished(self, _data: dict[str, Any]) -> None:
        if self._ticking == "catalogue":
            self.catalogues.fetched(1.0)
        self._ticking = "entries" if self._ticking == "catalogue" else ""

    def _tick(self, data: dict[str, Any]) -> None:
        self._go_on(_number(data.get("current")), _number(data.get("total")))

    def _go_on(self, current: int, total: int) -> None:
        share = (
            0.0 if total <= 0 or current <= 0 else 1.0 if current >= total else current / total
        )
        if self._ticking == "catalogue":
            self.catalogues.fetched(share)
        elif self._ticking == "entries":
            self.catalogues.processed(share)
        elif self._ticking == "unpack":
            self.stage.share = share
        elif self._ticking == "fetch" and self._fetching in self._sizes:
            # A package may be fetched twice, from its beginning.
            size = max(0, min(current, total)) if total > 0 else 0
            more = max(0, size - self._sizes[self._fetching])
            self._sizes[self._fetching] += more
            self.stage.bytes = min(_MOST, self.stage.bytes + more)
            self.stage.fetched = max(self.stage.fetched, share)

    def _catalogue_read(self, _data: dict[str, Any]) -> None:
        self._ticking = ""
        self.catalogues.close()

    def _check(self, _data: dict[str, Any]) -> None:
        self._ticking = ""
        self.place.go("check", "")
        self.stage.past_fetch = self.stage.past_fetch or self.stage.fetches > 0

    def _begin(self, phase: str) -> Callable[[dict[str, Any]], None]:
        def begin(data: dict[str, Any]) -> None:
            name = as_name(data.get("pkgname"))
            self._ticking = "unpack"
            self.place.go(phase, name)
            self.stage.past_fetch = True
            self.stage.share = 0.0
            if name:
                self._ledger.begin(name)

        return begin

    def _finished(self, data: dict[str, Any]) -> None:
        name = as_name(data.get("pkgname"))
        self._ticking = ""
        self.stage.share = 0.0
        if name and self._ledger.finish(name):
            self.stage.finished += 1

    def _extract_begin(self, _data: dict[str, Any]) -> None:
        self._ticking = "unpack"

    def _extract_finished(self, _data: dict[str, Any]) -> None:
        # After a failed extraction too. Scripts may follow that take their time.
        self._ticking = ""
        self.stage.share = 1.0

    def _triggers(self, _data: dict[str, Any]) -> None:
        self._ticking = ""
        self.place.go("triggers", "")

    def _triggers_finished(self, _data: dict[str, Any]) -> None:
        self.at_second = self.itself_first

    def _newer_pkg(self, _data: dict[str, Any]) -> None:
        self.itself_first = True

    def _error(self, data: dict[str, Any]) -> None:
        self.failed = True
        message = data.get("msg")
        if isinstance(message, str):
            self.problems.add(message)

    def _locked(self, data: dict[str, Any]) -> None:
        name = as_name(data.get("pkgname"))
        if name:
            self.problems.add(f"{name} is locked and may not be modified")


def _number(value: object) -> int:
    """A whole number, 0 for what is none."""
    if isinstance(value, float):
        value = int(value) if math.isfinite(value) else 0
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return max(-_MOST, min(_MOST, value))


def _fetched_file(url: object) -> str:
    """`name-version` of a package's address; of other files a name without a dash.

    Packages may be kept as `name-version~hash.pkg`.
    """
    if not isinstance(url, str):
        return ""
    file = unquote(url[-1024:].rpartition("/")[2])
    return as_name(file.rpartition(".")[0].partition("~")[0])
