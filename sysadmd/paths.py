"""Where state and configuration are when nobody says otherwise. Reads and makes nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

SYSTEM_STATE_DIR: Final = "/var/db/sysadmd"


def default_state_dir() -> Path:
    """`/var/db/sysadmd` for root, `~/.local/state/sysadmd` for others."""
    if os.geteuid() == 0:
        return Path(SYSTEM_STATE_DIR)
    return Path.home() / ".local" / "state" / "sysadmd"


def default_config() -> Path:
    """The configuration file, which need not be there."""
    prefix = "/usr/local/etc" if sys.platform.startswith("freebsd") else "/etc"
    return Path(prefix) / "sysadmd" / "sysadmd.toml"
