"""The servers that were logged in to, by name: values, and as a text. Touches no file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

from sysadmd.ctl.address import names
from sysadmd.errors import BadRequest
from sysadmd.target import Target

# The daemon of this machine: no profile is called so.
LOCAL: Final = "local"
_LONGEST: Final = 255
# What reading a text raises that is none of ours.
DAMAGED: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError, BadRequest)


@dataclass(frozen=True, slots=True)
class Profile:
    """A server that was logged in to. name: of the token there; empty if it was given to us.

    key: the absolute path of the private key by which we log in; then there is no token, and
    name is the key's fingerprint. bridge: it is none, but a bridge to servers.
    """

    url: str
    token: str
    pin: str
    name: str
    key: str | None = None
    bridge: bool = False

    def target(self) -> Target:
        key = None if self.key is None else Path(self.key)
        return Target(self.url, self.token, pin=self.pin, key=key)

    @property
    def is_ours(self) -> bool:
        """Is its token one that was made for us alone?"""
        return self.key is None and bool(self.name)


@dataclass(frozen=True, slots=True)
class Profiles:
    """All of them by name. default: which one is meant where none is named.

    It may be LOCAL; None: none is, and with profiles there one has to be named.
    """

    default: str | None = None
    kept: Mapping[str, Profile] = field(default_factory=dict[str, Profile])

    def having(self, name: str, profile: Profile) -> Profiles:
        """With one more, or in place of the one of that name; it is the default one then."""
        return Profiles(name, {**self.kept, name: profile})

    def without(self, name: str) -> Profiles:
        """Without one. No other becomes the default one: that is for people to say."""
        rest = {other: profile for other, profile in self.kept.items() if other != name}
        default = self.default if rest and self.default != name else None
        return Profiles(default, rest)

    def using(self, name: str) -> Profiles:
        """With another default one. name: of one that is there, or LOCAL."""
        return replace(self, default=name)

    def at(self, url: str) -> str | None:
        """The name of a profile for that URL: the default one, if it is."""
        there = [name for name, profile in self.kept.items() if profile.url == url]
        return self.default if self.default in there else next(iter(there), None)

    def name_for(self, url: str) -> str:
        """What a login there is called, if nobody says: as before, or as nobody is yet."""
        known = self.at(url)
        if known is not None:
            return known
        possible = [name for name in names(url) if is_name(name)]
        # A host that begins with a - gives none: that is for the caller to refuse.
        last = possible[-1] if possible else names(url)[-1]
        return next((name for name in possible if name not in self.kept), last)

    def listed(self) -> str:
        """For an error: which there are."""
        if not self.kept:
            return f"there is none yet; `sysadmctl login HOST` makes one, {LOCAL!r} is here"
        return f"there are {', '.join([*sorted(self.kept), LOCAL])}"


def is_name(text: str) -> bool:
    """May a profile be called so?"""
    fits = text.isprintable() and not any(c.isspace() for c in text)
    return 0 < len(text) <= _LONGEST and fits and text[0] != "-" and text != LOCAL


def as_text(profiles: Profiles) -> str:
    """As they are kept."""
    kept = {name: asdict(profile) for name, profile in profiles.kept.items()}
    return json.dumps({"default": profiles.default, "profiles": kept}, indent=1) + "\n"


def read_text(text: str) -> Profiles:
    """From what is kept. Raises: one of DAMAGED."""
    values = json.loads(text)
    given = cast("dict[str, Any]", values["profiles"])
    kept = {name: _profile(profile) for name, profile in given.items()}
    default = values["default"]
    if not all(map(is_name, kept)) or not (default in (None, LOCAL) or default in kept):
        raise ValueError("no names of profiles")
    return Profiles(default, kept)


def read_old_text(text: str) -> Profiles:
    """From a file of before there were several. Raises: one of DAMAGED."""
    profile = _profile(json.loads(text))
    none = Profiles()
    return none.having(none.name_for(profile.url), profile)


def _profile(values: Any) -> Profile:
    words = {word: str(values[word]) for word in ("url", "token", "pin", "name")}
    # Profiles of before there were keys have none.
    key = None if values.get("key") is None else str(values["key"])
    profile = Profile(**words, key=key, bridge=values.get("bridge") is True)
    # No address, no server.
    profile.target()
    return profile
