"""Which columns of a table have room, and how wide they are. Pure.

What gives way is said by who has the table: so on a narrow terminal the state of a job is still
there, and the end of its command is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def widths(
    wanted: Sequence[int],
    room: int,
    gives: Mapping[int, int],
    drops: Sequence[int] = (),
    between: int = 2,
) -> list[int | None]:
    """The width of each column, None where it is left out.

    wanted: as wide as its widest cell. gives: columns that may be shortened, in this order, and
    to what at least. drops: columns that may be left out, in this order, if that is not enough.
    What still does not fit goes on in the next line of the terminal.
    """
    shown = list(range(len(wanted)))

    def excess(sizes: Sequence[int]) -> int:
        return sum(sizes) + between * (len(sizes) - 1) - room

    for column in drops:
        if excess([min(wanted[n], gives.get(n, wanted[n])) for n in shown]) <= 0:
            break
        shown.remove(column)
    found = {n: wanted[n] for n in shown}
    for column, least in gives.items():
        over = excess(list(found.values()))
        if over <= 0:
            break
        if column in found:
            found[column] -= min(over, max(0, found[column] - least))
    return [found.get(n) for n in range(len(wanted))]
