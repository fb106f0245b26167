"""How a command writes its output, and when to wait for more of it. Pure.

Standard library only: starters use it.
"""

from __future__ import annotations

from typing import Final

# Who writes little at a time, and so often in a row at once again, is given so long for more,
# s: nobody sees that a line is later by that, and of lines tens of kilobytes come meanwhile.
_IN_A_ROW: Final = 4
PAUSE: Final = 0.0003


class Pace:
    """How a command writes: is it worth a pause before it is polled for again?

    To be woken for each line costs the writer and us more than the line does.
    """

    def __init__(self) -> None:
        self._in_a_row = 0
        self._at = 0.0

    def is_pause_due(self) -> bool:
        """Once for each count: does it write little at a time, time and again?"""
        if self._in_a_row < _IN_A_ROW:
            return False
        self._in_a_row -= 1
        return True

    def count(self, taken: int, most: int, now: float) -> None:
        """taken: of most that could be taken at once. now: by the monotonic clock, s."""
        # Who fills its pipe by half would only wait for us.
        is_little = 0 < taken < most // 2
        is_soon = now - self._at < 2 * PAUSE
        in_a_row = self._in_a_row + 1 if is_little and is_soon else 0
        self._in_a_row = min(in_a_row, _IN_A_ROW)
        self._at = now
