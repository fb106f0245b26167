"""What this machine is called, where things are on it. Standard library only."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

SYSTEM_STATE_DIR: Final = "/var/db/sysadmd"
SYSTEM_BRIDGE_DIR: Final = "/var/db/sysadmd-bridge"
# In the state directory: the daemon's door for programs of this machine.
LOCAL_SOCKET: Final = "sysadmd.sock"
# Where commands are looked for: those of jobs, and those that the daemon itself runs.
COMMAND_PATH: Final = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
_SEE: Final = "see that it is there, and that the daemon's account may write in it"
_HELP: Final = {
    errno.ENOSPC: "free some space, or inodes, on its disk",
    errno.EDQUOT: "raise the quota, or free some space",
    errno.EIO: "its disk fails: the system's log says what it, or its cable, reports",
    errno.EROFS: "mount its file system writable",
    errno.EACCES: "make it writable for the daemon's account",
    errno.EBUSY: "unmount it, or end who uses it",
    errno.EPERM: "give it to the daemon's account, without flags (chflags, chattr)",
}
# What Python and OpenSSL put around an error's words: number, code, line of C.
_NOISE: Final = re.compile(r"^\[(?:Errno -?\d+|[A-Z0-9]+(?:: \w+)?)\] ?| ?\(_\w+\.c:\d+\)$")
# The portable ways are taken even where there are better ones: for tests, and for trouble.
FORCED_PORTABLE: Final = os.environ.get("SYSADMD_PORTABLE") == "1"


def default_state_dir() -> Path:
    """`/var/db/sysadmd` for root, `~/.local/state/sysadmd` for others."""
    if os.geteuid() == 0:
        return Path(SYSTEM_STATE_DIR)
    return Path.home() / ".local" / "state" / "sysadmd"


def default_bridge_dir() -> Path:
    """The same of a bridge: `/var/db/sysadmd-bridge`, or beside the other."""
    if os.geteuid() == 0:
        return Path(SYSTEM_BRIDGE_DIR)
    return Path.home() / ".local" / "state" / "sysadmd-bridge"


def default_config() -> Path:
    """The configuration file, which need not be there."""
    prefix = "/usr/local/etc" if sys.platform.startswith("freebsd") else "/etc"
    return Path(prefix) / "sysadmd" / "sysadmd.toml"


def host_name() -> str:
    """What gethostname(3) says, as text that can be shown; it may be empty.

    The system takes any bytes: what is not UTF-8 is U+FFFD, control characters are escaped.
    """
    # Guard and keeper have this module, and not what that one needs.
    from sysadmd.text import printable

    return printable(os.fsencode(socket.gethostname()).decode("utf-8", "replace"))


def plainly(error: BaseException) -> str:
    """What an error of the system or a library says, in words alone; behind it the file.

    Whoever tells people of an OSError has it from here: its str() names a number.
    """
    if not isinstance(error, OSError):
        return _NOISE.sub("", str(error)) or type(error).__name__
    text = _NOISE.sub("", error.strerror or str(error)) or type(error).__name__
    return f"{text} ({os.fsdecode(error.filename)})" if error.filename else text


def reason(error: OSError) -> str:
    """Why a file can't be used, and what to do about it."""
    return f"{plainly(error)}; {_HELP.get(error.errno or 0, _SEE)}"


def make_parents(path: Path) -> None:
    """Make the directories above that are missing, for everybody to pass: they are not only
    ours, whatever our umask. Raises: OSError."""
    missing: list[Path] = []
    for parent in path.parents:
        if parent.exists():
            break
        missing.append(parent)
    for parent in reversed(missing):
        # Somebody else may have been faster.
        with suppress(FileExistsError):
            parent.mkdir()
            parent.chmod(0o755)


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
