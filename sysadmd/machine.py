"""What this machine is called, where things are on it. Standard library only."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Final

SYSTEM_STATE_DIR: Final = "/var/db/sysadmd"
# In the state directory: the daemon's door for programs of this machine.
LOCAL_SOCKET: Final = "sysadmd.sock"
# Where commands are looked for: those of jobs, and those that the daemon itself runs.
COMMAND_PATH: Final = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
# The portable ways are taken even where there are better ones: for tests, and for trouble.
FORCED_PORTABLE: Final = os.environ.get("SYSADMD_PORTABLE") == "1"


def default_state_dir() -> Path:
    """`/var/db/sysadmd` for root, `~/.local/state/sysadmd` for others."""
    if os.geteuid() == 0:
        return Path(SYSTEM_STATE_DIR)
    return Path.home() / ".local" / "state" / "sysadmd"


def default_config() -> Path:
    """The configuration file, which need not be there."""
    prefix = "/usr/local/etc" if sys.platform.startswith("freebsd") else "/etc"
    return Path(prefix) / "sysadmd" / "sysadmd.toml"


def host_name() -> str:
    """What gethostname(3) says; it need not be UTF-8, nor anything at all."""
    return os.fsencode(socket.gethostname()).decode("utf-8", "replace")


def write_private(path: Path, text: str) -> None:
    """Replace a file, whole or not at all, readable by its owner only. Raises: OSError."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        # Else a crash may leave the new name with nothing in it.
        os.fsync(out.fileno())
    new.replace(path)
