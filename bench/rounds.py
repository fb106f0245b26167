"""Rows of what was found in rounds: each in turn in every one, and compared within it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from bench.table import Row

Figures = Mapping[str, Sequence[float]]


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
