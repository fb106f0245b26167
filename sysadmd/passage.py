"""How much time has passed, told by uptime and wall clock together. No clock, no table.

Within a boot the uptime alone counts. Over a boot the wall clock has to say for how long the
machine was off. It is believed at once for less than a day, and for more when it has agreed
with the uptime for a day: by then a clock that was wrong at the boot has been set right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DAY: Final = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """What the clocks have told, up to the last look at them; times in s.

    passed: since the first look, as far as it is believed. boot: which it is, empty where the
    system does not say. uptime: since boot. wall: since 1970. strayed: how far the wall clock
    went ahead of the uptime since they began to agree. steady: uptime for which they have, at
    most DAY. leap: how far the wall clock leapt when that began, 0: it did not. ahead: how far
    the wall clock was ahead of `passed`, at most, when it was believed; None: it never was.
    owed: the machine was off for a time that is not believed yet.
    """

    passed: float = 0.0
    boot: str
    uptime: float
    wall: float
    strayed: float = 0.0
    steady: float = 0.0
    leap: float = 0.0
    ahead: float | None = None
    owed: bool = False

    @property
    def is_waiting(self) -> bool:
        """Is the clock not to be believed yet?"""
        return self.steady < DAY

    def seen(self, boot: str, uptime: float, wall: float) -> Passage:
        """The same after one more look at the clocks."""
        # Where the system does not say, the uptime has to do: two boots as one count less.
        other = uptime < self.uptime or (boot != self.boot and bool(boot and self.boot))
        up = uptime if other else uptime - self.uptime
        by_wall = wall - self.wall
        # Small steps add up, but for what the machine was off.
        strayed = by_wall - up + (0.0 if other else self.strayed)
        leapt = abs(strayed) > DAY
        passed = self.passed
        # Else not even the uptime counts: the file may have come from another machine, or that
        # clock is the wrong one. Between two looks of one boot it is next to nothing.
        if not leapt:
            passed += max(up, by_wall) if other else up
        steady = 0.0 if leapt else min(DAY, self.steady + up)
        ahead, owed = self.ahead, self.owed or (leapt and other)
        if steady == DAY:
            if owed and ahead is not None:
                passed = max(passed, wall - ahead)
            # The most: if one clock was wrong for a day and another right, it credits less.
            ahead, owed = max(wall - passed, wall - passed if ahead is None else ahead), False
        return Passage(
            passed=passed,
            boot=boot,
            uptime=uptime,
            wall=wall,
            strayed=0.0 if leapt else self.strayed if other else strayed,
            steady=steady,
            leap=strayed if leapt else 0.0 if steady == DAY else self.leap,
            ahead=ahead,
            owed=owed,
        )
