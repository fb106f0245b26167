"""What `sysadmctl login` has kept in a home, read and written past it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def profiles_file(home: Path) -> Path:
    """Where it is."""
    return home / ".config" / "sysadmd" / "profiles.json"


def read_profiles(home: Path) -> dict[str, Any]:
    """All of it."""
    found: dict[str, Any] = json.loads(profiles_file(home).read_text())
    return found


def default_profile(home: Path) -> dict[str, Any]:
    """The one that is meant where none is named."""
    kept = read_profiles(home)
    found: dict[str, Any] = kept["profiles"][kept["default"]]
    return found


def change_default(home: Path, **values: Any) -> None:
    """Give it other values."""
    kept = read_profiles(home)
    kept["profiles"][kept["default"]] |= values
    profiles_file(home).write_text(json.dumps(kept))
