"""Decide which job starts next. No clock, process, database or wire.

Jobs are known by their uids, which grow in the order of acceptance: that order is the queue.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

# Uids in one piece of a line: a change copies one piece and the list of pieces, so that joining
# a line of 100,000 costs some microseconds.
PIECE: Final = 512


class IllegalMove(Exception):
    """A move that the queue's rules don't have: the caller's mistake. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Line:
    """Waiting uids in ascending order, in pieces of at most PIECE."""

    pieces: tuple[tuple[int, ...], ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def __iter__(self) -> Iterator[int]:
        for piece in self.pieces:
            yield from piece

    def __contains__(self, uid: object) -> bool:
        return isinstance(uid, int) and self.index(uid) is not None

    def index(self, uid: int) -> int | None:
        """How many wait before this uid; None: it does not wait here."""
        number = self._piece_of(uid)
        if number is None:
            return None
        before = sum(map(len, self.pieces[:number]))
        return before + bisect_left(self.pieces[number], uid)

    def join(self, uids: Iterable[int]) -> Line:
        """With these behind. Raises: IllegalMove unless they ascend and are new."""
        pieces = list(self.pieces)
        last = list(pieces.pop()) if pieces else []
        newest = last[-1] if last else None
        for uid in uids:
            if newest is not None and uid <= newest:
                raise IllegalMove(f"job {uid} would wait behind the younger {newest}")
            if len(last) == PIECE:
                pieces.append(tuple(last))
                last = []
            last.append(uid)
            newest = uid
        return Line((*pieces, tuple(last))) if last else Line(tuple(pieces))

    def take(self) -> tuple[int, Line]:
        """The first, and the rest."""
        first, others = self.pieces[0], self.pieces[1:]
        left = first[1:]
        return first[0], Line((left, *others) if left else others)

    def without(self, uid: int) -> Line:
        """Raises: IllegalMove if it does not wait here."""
        number = self._piece_of(uid)
        if number is None:
            raise IllegalMove(f"job {uid} does not wait in this queue")
        piece = self.pieces[number]
        at = bisect_left(piece, uid)
        kept = piece[:at] + piece[at + 1 :]
        middle = (kept,) if kept else ()
        return Line(self.pieces[:number] + middle + self.pieces[number + 1 :])

    def _piece_of(self, uid: int) -> int | None:
        number = bisect_right(self.pieces, uid, key=lambda piece: piece[0]) - 1
        if number < 0:
            return None
        piece = self.pieces[number]
        at = bisect_left(piece, uid)
        return number if at < len(piece) and piece[at] == uid else None


@dataclass(frozen=True, slots=True)
class Lane:
    """One queue: `limit` jobs at once; `drains`: no longer configured, takes nothing new.

    lent: those of the waiting ones, the first, that the keeper has already: it starts them
    when others end.
    """

    limit: int
    paused: bool = False
    drains: bool = False
    waiting: Line = Line()
    running: frozenset[int] = frozenset()
    lent: frozenset[int] = frozenset()

    @property
    def has_room(self) -> bool:
        """May another one start? Where some are lent, the keeper uses what is free."""
        return not (self.paused or self.lent) and len(self.running) < self.limit

    def next_to_lend(self, most: int) -> tuple[int, ...]:
        """Of the first so many those that may be lent: while all places are taken."""
        if self.paused or self.drains or len(self.running) < self.limit:
            return ()
        return tuple(uid for uid in islice(self.waiting, most) if uid not in self.lent)

    def holding(self, waiting: Line, running: frozenset[int], lent: frozenset[int]) -> Lane:
        """With these jobs."""
        # With each move of a job: a fifth of what `replace` costs.
        return Lane(self.limit, self.paused, self.drains, waiting, running, lent)


@dataclass(frozen=True, slots=True)
class Queues:
    """All queues as one value; the name None is that of the jobs without a queue."""

    lanes: Mapping[str | None, Lane] = field(default_factory=dict[str | None, Lane])

    def configure(self, limits: Mapping[str | None, int]) -> Queues:
        """With these limits. A queue that is not among them drains, and goes when empty."""
        lanes: dict[str | None, Lane] = {}
        for name, limit in limits.items():
            lane = self.lanes.get(name, Lane(limit))
            lanes[name] = replace(lane, limit=limit, drains=False)
        for name, lane in self.lanes.items():
            if name not in limits and (lane.waiting.pieces or lane.running):
                lanes[name] = replace(lane, drains=True)
        return Queues(lanes)

    def adopt(
        self,
        queue: str | None,
        waiting: Iterable[int],
        running: Iterable[int],
        lent: Iterable[int] = (),
    ) -> Queues:
        """With accepted jobs; a queue that is not configured any more drains. lent: of those
        that wait."""
        lane = self.lanes.get(queue, Lane(1, drains=True))
        line = lane.waiting.join(waiting)
        return self._with(
            queue, lane.holding(line, lane.running.union(running), lane.lent.union(lent))
        )

    def remove(self, queue: str | None, uid: int) -> Queues:
        """Without a job that waited. Raises: IllegalMove if it does not."""
        lane = self._lane(queue)
        line = lane.waiting.without(uid)
        return self._with(queue, lane.holding(line, lane.running, lane.lent - {uid}))

    def begin(self, queue: str | None, uid: int) -> Queues:
        """With a job that waited running. Raises: IllegalMove if it did not wait."""
        lane = self._lane(queue)
        line = lane.waiting.without(uid)
        return self._with(queue, lane.holding(line, lane.running | {uid}, lane.lent - {uid}))

    def finish(self, queue: str | None, uid: int) -> Queues:
        """Without a job that ran. Raises: IllegalMove if it does not."""
        lane = self._lane(queue)
        if uid not in lane.running:
            raise IllegalMove(f"job {uid} does not run")
        return self._with(queue, lane.holding(lane.waiting, lane.running - {uid}, lane.lent))

    def lend(self, queue: str | None, uid: int) -> Queues:
        """With a job that waits lent. Raises: IllegalMove if it does not wait."""
        lane = self._lane(queue)
        if uid not in lane.waiting:
            raise IllegalMove(f"job {uid} does not wait in this queue")
        return self._with(queue, lane.holding(lane.waiting, lane.running, lane.lent | {uid}))

    def give_back(self, uids: Collection[int]) -> Queues:
        """Without any of these lent: they wait where they did."""
        queues = self
        for queue, lane in self.lanes.items():
            if not lane.lent.isdisjoint(uids):
                lent = lane.lent.difference(uids)
                queues = queues._with(queue, lane.holding(lane.waiting, lane.running, lent))
        return queues

    def pause(self, queue: str | None, paused: bool) -> Queues:
        """With a queue that starts nothing (running jobs go on), or starts again."""
        return self._with(queue, replace(self._lane(queue), paused=paused))

    def has_room(self, queue: str | None) -> bool:
        """Would a job that comes now start at once?"""
        lane = self.lanes.get(queue)
        return lane is not None and lane.has_room and not lane.waiting.pieces

    def start_ready(self) -> tuple[Queues, tuple[tuple[str | None, int], ...]]:
        """What may start now, first come first served, and the queues with those running."""
        starting: list[tuple[str | None, int]] = []
        queues = self
        for name, lane in self.lanes.items():
            if not (lane.waiting.pieces and lane.has_room):
                continue
            ready: list[int] = []
            line = lane.waiting
            while line.pieces and len(lane.running) + len(ready) < lane.limit:
                uid, line = line.take()
                ready.append(uid)
            running = lane.running.union(ready)
            queues = queues._with(name, lane.holding(line, running, lane.lent))
            starting += [(name, uid) for uid in ready]
        return queues, tuple(starting)

    def position(self, queue: str | None, uid: int) -> int | None:
        """Its place in the queue, from 0: those that run come first. None: it is not there."""
        lane = self.lanes.get(queue)
        if lane is None:
            return None
        if uid in lane.running:
            return sorted(lane.running).index(uid)
        index = lane.waiting.index(uid)
        return None if index is None else len(lane.running) + index

    def _lane(self, queue: str | None) -> Lane:
        lane = self.lanes.get(queue)
        if lane is None:
            raise IllegalMove(f"there is no queue {queue}")
        return lane

    def _with(self, queue: str | None, lane: Lane) -> Queues:
        lanes = {**self.lanes, queue: lane}
        if lane.drains and not lane.waiting.pieces and not lane.running:
            del lanes[queue]
        return Queues(lanes)
