"""Where `sysadmctl login` keeps what it was given: one file, readable by its owner only."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from sysadmd.client import Target
from sysadmd.machine import write_private


@dataclass(frozen=True, slots=True)
class Profile:
    """A server that was logged in to. name: of the token there."""

    url: str
    token: str
    pin: str
    name: str

    def target(self) -> Target:
        return Target(self.url, self.token, pin=self.pin)


def path() -> Path:
    """`$XDG_CONFIG_HOME/sysadmd/profile.json`, or below ~/.config."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "sysadmd" / "profile.json"


def load() -> Profile | None:
    """The profile; None: not logged in anywhere, or the file can't be used."""
    try:
        values = json.loads(path().read_text(encoding="utf-8"))
        return Profile(*(str(values[key]) for key in ("url", "token", "pin", "name")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(profile: Profile) -> None:
    """Keep it, in a file of mode 0600. Raises: OSError."""
    file = path()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(file, json.dumps(asdict(profile)) + "\n")


def remove() -> None:
    """Forget it, if there is one."""
    path().unlink(missing_ok=True)
