"""Which part of a path is missing or wrong, in words. Looks, and changes nothing."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from sysadmd.machine import plainly, reason


def obstacle(directory: Path) -> str:
    """What keeps a directory from being used, or made with those above it, and what to do.

    directory: absolute. Empty: nothing that can be seen, for the account that we are.
    """
    above = directory
    for part in (*reversed(directory.parents), directory):
        try:
            mode = part.stat().st_mode
        except FileNotFoundError:
            return _link_to_nothing(part) or _not_to_be_made(part, above)
        except PermissionError:
            return f"{above} can't be entered by {_account()}; let it pass (chmod, chown)"
        except OSError as error:
            if error.errno == errno.ELOOP:
                return f"{part} is a link that leads to itself; remove it"
            return f"{part}: {reason(error)}"
        if not stat.S_ISDIR(mode):
            return f"{part} is a file, not a directory; move it away"
        above = part
    return ""


def why_not_made(directory: Path, error: OSError) -> str:
    """Why a directory could not be made, or opened, when this came of it, and what to do."""
    if seen := obstacle(directory):
        return seen
    if error.errno == errno.ENOENT and error.filename:
        # As of what the kernel shows as files: root may write there, and it takes nothing.
        part = Path(os.fsdecode(error.filename))
        return f"{part} can't be made, {part.parent} takes no directories; choose another place"
    return reason(error)


def unreadable(file: Path, error: OSError) -> str:
    """Why a file that was named can't be read, as what is said of it."""
    if isinstance(error, FileNotFoundError):
        with suppress(OSError):
            return f"is a link to {file.readlink()}, which is not there"
        gone = [part for part in file.absolute().parents if not os.path.lexists(part)]
        return f"is not there: there is no directory {gone[-1]}" if gone else "is not there"
    if isinstance(error, IsADirectoryError):
        return "is a directory, not a file"
    if isinstance(error, NotADirectoryError):
        files = [part for part in reversed(file.absolute().parents) if not part.is_dir()]
        return f"is not there: {files[0]} is a file" if files else "is not there"
    if isinstance(error, PermissionError):
        return f"can't be read by {_account()}"
    return f"can't be read: {plainly(error)}"


def cannot_read(config: Path, error: OSError) -> str:
    """That a configuration can't be read, as one of its mistakes is told, and what to do."""
    remedy = "name another one with --config"
    if isinstance(error, PermissionError):
        remedy = "run as the daemon's account, or give it to that"
    return f"{config}: {unreadable(config, error)}; {remedy}"


def _link_to_nothing(part: Path) -> str:
    if not part.is_symlink():
        return ""
    return (
        f"{part} is a link to {part.readlink()}, which is not there; make that directory, or"
        " remove the link"
    )


def _not_to_be_made(part: Path, above: Path) -> str:
    if os.access(above, os.W_OK | os.X_OK):
        return ""
    with suppress(OSError):
        if os.statvfs(above).f_flag & os.ST_RDONLY:
            return (
                f"{part} is not there, and {above} can only be read; mount its file system"
                " writable"
            )
    return (
        f"{part} is not there, and {_account()} may not make it in {above}; make it for that"
        " account (mkdir, chown)"
    )


def _account() -> str:
    return f"uid {os.geteuid()}"
