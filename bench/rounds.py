"""Rows of what was found in rounds: each in turn in every one, and compared within it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from bench.table import Row

Figures = Mapping[str, Sequence[float]]
# So often somebody acts before it is the next one's turn.
_TURN = 10


def in_turn(count: int, acts: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds that each act took each time, of so many: a few of the one, a few of the next.

    What else the machine does comes in bursts, and would meet one of them alone.
    """
    found: dict[str, list[float]] = {name: [] for name in acts}
    while any(len(times) < count for times in found.values()):
        for name, act in acts.items():
            for _ in range(min(_TURN, count - len(found[name]))):
                begun = time.perf_counter()
                act()
                found[name].append(time.perf_counter() - begun)
    return found


def compared(
    name: str,
    unit: str,
    figures: Figures,
    ours: str,
    limit: str = "",
    *,
    beside: Sequence[str] = (),
    marks: tuple[float | None, float | None] = (None, None),
    higher: bool = False,
) -> Row:
    """The row of one of the figures: medians, and the median of the rounds' ratios.

    figures: one a round, by name; who could not be measured has none. ours: which of them is
    sysadmd's. limit: to which the ratio is. beside: whom to show apart from that. marks: floor
    and target. higher: that is better.
    """
    found = figures[ours]
    others = figures.get(limit, ()) if limit else ()
    ratios = [one / other for one, other in zip(found, others, strict=bool(others))]
    shown: list[str] = [limit, *(name for name in beside if name != limit)]
    return Row(
        name=name,
        unit=unit,
        now=median(found),
        beside={other: median(figures[other]) for other in shown if figures.get(other)},
        limit=limit,
        ratio=median(ratios) if ratios else None,
        spread=(min(ratios), max(ratios)) if ratios else None,
        floor=marks[0],
        target=marks[1],
        higher_is_better=higher,
    )
