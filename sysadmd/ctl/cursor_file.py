"""The file that keeps where a reader of events goes on. No connection, no clock."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

from sysadmd.copies import to_disk
from sysadmd.errors import BadRequest, SysadmdError
from sysadmd.machine import reason, write_private

# Cursors are opaque, but a word each.
_CURSOR: Final = re.compile(r"[!-~]{1,1024}")
# Bytes of a file that are looked at.
_LONGEST: Final = 4096


def read_cursor(file: Path) -> str | None:
    """The cursor in it; None: there is no such file yet.

    Raises: BadRequest if it can't be read, or holds something else.
    """
    try:
        text = _beginning(file).decode("ascii").removesuffix("\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadRequest(f"--cursor-file {file} can't be read: {reason(error)}") from error
    except UnicodeDecodeError:
        text = ""
    if not _CURSOR.fullmatch(text):
        raise BadRequest(
            f"--cursor-file {file} holds no cursor; name another file, or remove it to begin"
            " anew"
        )
    return text


def _beginning(file: Path) -> bytes:
    """Of a regular file: a pipe is waited for, and a device would be replaced."""
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise BadRequest(f"--cursor-file {file} is no regular file; name another one")
        return opened.read(_LONGEST)


def keep_cursor(file: Path, cursor: str) -> None:
    """Replace what is in it; it outlasts a power cut. Raises: SysadmdError."""
    try:
        write_private(file, cursor + "\n")
        to_disk(file.absolute().parent)
    except OSError as error:
        raise SysadmdError(f"--cursor-file {file} can't be written: {reason(error)}") from error
