"""What guard, keeper and starters say of trouble: in `keeper.log`, their standard error.

Standard library only.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

# Above this it is begun anew: trouble may go on and on.
LOG_SIZE: Final = 1024 * 1024


def complain(text: str) -> None:
    """Say it, if there is room for it: a disk that is full is no reason to die."""
    with suppress(OSError):
        if os.fstat(2).st_size > LOG_SIZE:
            os.ftruncate(2, 0)
        os.write(2, text.encode(errors="replace") + b"\n")
