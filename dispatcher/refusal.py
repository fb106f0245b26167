"""Why a program can't be started, as a shell has it. Starts nothing.

Standard library only: starters use it.
"""

from __future__ import annotations

import errno
import os
from typing import Final

# Not found, and found but not to be run.
NOT_FOUND: Final = 127
CANNOT_RUN: Final = 126


def explain(error: OSError, program: str, cwd: str) -> tuple[int, str]:
    """Return code and reason, as a shell has them."""
    name = str(error.filename or program)
    if error.errno != errno.ENOENT or name == cwd:
        return CANNOT_RUN, f"{name}: {error.strerror}"
    interpreter = _interpreter(name)
    if interpreter is None:
        return NOT_FOUND, f"{name}: {error.strerror}"
    # What is not there is not the program, but what it asks for.
    return CANNOT_RUN, f"{name}: its interpreter {interpreter!r} is not there"


def _interpreter(program: str) -> str | None:
    """What a script names in its first line, or a binary's loader; None: it is not there."""
    try:
        with open(program, "rb") as file:  # noqa: PTH123 - the path is not ours to change
            first = file.readline(4096)
    except OSError:
        return None
    if not first.startswith(b"#!"):
        return "(the loader that it was linked for)"
    words = first[2:].strip(b" \t\n").split(None, 1)
    # A carriage return is shown: it is what makes most such names wrong.
    return os.fsdecode(words[0] + b"\r" * first.endswith(b"\r\n")) if words else ""
