"""What benches tell: rows of one table, with the floor and the target that were set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of sysadmd, and those of others from the same run.

    now: sysadmd's, in the unit. beside: the others' by name, in the same unit.
    limit: to what the ratio is; empty where floor and target are about now itself.
    ratio: now, divided by the limit's figure; None if that could not be measured.
    spread: lowest and highest ratio over the rounds, where there were rounds.
    """

    name: str
    unit: str
    now: float
    beside: Mapping[str, float] = field(default_factory=dict[str, float])
    limit: str = ""
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    floor: float | None = None
    target: float | None = None
    higher_is_better: bool = False

    @property
    def judged(self) -> float | None:
        """What is compared with floor and target; None: it could not be measured here."""
        return self.ratio if self.limit else self.now

    def reaches(self, mark: float | None) -> bool | None:
        """None: nothing is set, or nothing was measured."""
        if mark is None or self.judged is None:
            return None
        return self.judged >= mark if self.higher_is_better else self.judged <= mark

    @property
    def verdict(self) -> str:
        if self.reaches(self.target):
            return "target"
        if self.reaches(self.floor):
            return "floor"
        return "" if self.reaches(self.floor) is None else "below"


def markdown(rows: Iterable[Row]) -> str:
    """The rows as a table; others than sysadmd stand in a column each."""
    rows = list(rows)
    others = list(dict.fromkeys(name for row in rows for name in row.beside))
    head = ["", "unit", "sysadmd", *others, "ratio", "floor", "target", "reached"]
    under = ["---", "---", *["--:"] * (len(head) - 3), "---"]
    return "\n".join(map(_line, [head, under, *(list(_figures(row, others)) for row in rows)]))


def _figures(row: Row, others: Sequence[str]) -> Iterable[str]:
    yield row.name
    yield row.unit
    yield _short(row.now)
    for name in others:
        yield _short(row.beside.get(name))
    ratio = _short(row.ratio)
    if row.spread is not None:
        ratio += f" [{_short(row.spread[0])}-{_short(row.spread[1])}]"
    yield f"{ratio} x {row.limit}" if row.ratio is not None else ratio
    mark = "≥ " if row.higher_is_better else "≤ "
    for bound in (row.floor, row.target):
        yield "" if bound is None else mark + _short(bound)
    yield row.verdict


def _short(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return ""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if size < 10 else f"{value:.1f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
