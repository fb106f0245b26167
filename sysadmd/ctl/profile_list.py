"""`sysadmctl profiles`: which servers are kept, and which is meant where none is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import click

from sysadmd.ctl import profile
from sysadmd.ctl.output import Printer
from sysadmd.ctl.profiles import LOCAL, Profile

# Characters of a key's SHA-256 that tell one server from another at a glance.
SHORT: Final = 12


@dataclass(frozen=True, slots=True)
class _ProfileRow:
    name: str
    kept: Profile
    is_default: bool

    @property
    def login(self) -> str:
        return "token" if self.kept.key is None else "key"

    def value(self) -> dict[str, object]:
        kept = self.kept
        return {
            "name": self.name,
            "default": self.is_default,
            "url": kept.url,
            "bridge": kept.bridge,
            "login": self.login,
            "key": kept.key,
            "pin": kept.pin,
        }

    def cells(self) -> list[tuple[str, str | None]]:
        what = f"{self.kept.url} (a bridge)" if self.kept.bridge else self.kept.url
        mark = "*" if self.is_default else ""
        words = (mark, self.name, self.login, self.kept.pin[:SHORT], what)
        return [(word, None) for word in words]


def list_profiles(printer: Printer) -> int:
    """A line each; the default one is marked."""
    profiles = profile.load()
    rows = [
        _ProfileRow(name, kept, name == profiles.default)
        for name, kept in profiles.kept.items()
    ]
    rows.sort(key=lambda row: row.name)
    if printer.as_json:
        for row in rows:
            printer.value(row.value())
        return 0
    if not rows:
        printer.note("not logged in anywhere; `sysadmctl login HOST` is how")
        return 0
    printer.table(["", "NAME", "LOGIN", "SERVER KEY", "URL"], [row.cells() for row in rows])
    if profiles.default == LOCAL:
        printer.note("where none is named, the daemon of this machine is meant")
    elif profiles.default is None:
        printer.note("none is the default one: `sysadmctl profiles use NAME` makes it that")
    return 0


def use_profile(printer: Printer, name: str) -> int:
    """Mean this one where none is named."""
    profiles = profile.load()
    if name != LOCAL and name not in profiles.kept:
        raise click.UsageError(f"there is no profile {name!r}; {profiles.listed()}")
    profile.use(name)
    if printer.as_json:
        printer.value({"default": name})
    return 0
