"""What guard, keeper and starters say of trouble: in `keeper.log`, their standard error.

Standard library only.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

# Above this it is begun anew: trouble may go on and on.
LOG_SIZE: Final = 1024 * 1024
# Characters of one line: a path may have tens of thousands, which nobody reads.
_LINE: Final = 2000


def complain(text: str) -> None:
    """Say it, if there is room for it: a disk that is full is no reason to die.

    One line, whatever is in it: names come from jobs, and terminals obey what they are shown.
    """
    with suppress(OSError):
        if os.fstat(2).st_size > LOG_SIZE:
            os.ftruncate(2, 0)
        os.write(2, printable(text[:_LINE]).encode() + b"\n")


def printable(text: str) -> str:
    """What does not print, as its escape."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
