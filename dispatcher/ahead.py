"""What a keeper is lent: commands that it has begun by itself, as soon as others have ended.

Between two jobs of a queue then lies no word of the daemon's. Whose turn it is the daemon has
said by the order in which it lent them; how many may run at once it said with each. What is not
begun yet can be given back. Starts nothing itself, knows no process. Standard library only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from dispatcher.words import Commanded, Job


@dataclass(frozen=True, slots=True)
class Ordered:
    """A command, and the line in which the daemon asked for it."""

    line: bytes
    command: Commanded


@dataclass(slots=True)
class _Lane:
    """places: jobs that have one, until their last command has ended."""

    places: set[int] = field(default_factory=set[int])
    lent: deque[Ordered] = field(default_factory=deque[Ordered])


class Ahead:
    """The lanes of the daemon that calls, as far as it has said anything of them."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}

    def occupy(self, command: Commanded) -> None:
        """The daemon has it started: its job has a place."""
        if command.lane is not None:
            self._lanes.setdefault(command.lane, _Lane()).places.add(command.job[0])

    def lend(self, ordered: Ordered) -> list[Ordered]:
        """Keep this one until there is a place. Those that have one now."""
        name = ordered.command.lane or ""
        lane = self._lanes.setdefault(name, _Lane())
        lane.lent.append(ordered)
        return list(_begin(lane))

    def ended(self, command: Commanded) -> list[Ordered]:
        """Its job has no further one if this was its last. Those that have a place now."""
        if command.lane is None or not command.last:
            return []
        return self._leave(command.lane, command.job[0])

    def over(self, uid: int) -> list[Ordered]:
        """The daemon says that this job has ended. Those that have a place now."""
        for name, lane in self._lanes.items():
            if uid in lane.places:
                return self._leave(name, uid)
        return []

    def give_back(self, jobs: Collection[Job]) -> list[Commanded]:
        """Forget these, as far as they are still here: which ones those were."""
        back: list[Commanded] = []
        for lane in self._lanes.values():
            back += [one.command for one in lane.lent if one.command.job in jobs]
            lane.lent = deque(one for one in lane.lent if one.command.job not in jobs)
        return back

    def forget(self) -> list[Commanded]:
        """The daemon is gone, or nothing begins any more: what was here."""
        back = [one.command for lane in self._lanes.values() for one in lane.lent]
        self._lanes.clear()
        return back

    def _leave(self, name: str, uid: int) -> list[Ordered]:
        lane = self._lanes.get(name)
        if lane is None:
            return []
        lane.places.discard(uid)
        beginning = list(_begin(lane))
        if not (lane.places or lane.lent):
            del self._lanes[name]
        return beginning


def _begin(lane: _Lane) -> Iterator[Ordered]:
    while lane.lent and len(lane.places) < lane.lent[0].command.room:
        ordered = lane.lent.popleft()
        lane.places.add(ordered.command.job[0])
        yield ordered
