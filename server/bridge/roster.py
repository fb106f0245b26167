"""Who is at a bridge, and who sees whom: servers and clients that share a key. Pure.

What is to be told is worked out by key and not by peer: of a hundred that come or go at once,
each of the others is told once, and all that have the same keys the same text. A list is worked
out when it is told, so that it is none of before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from sysadmd.keys import Side

OTHER: Final[dict[Side, Side]] = {"client": "server", "server": "client"}


@dataclass(slots=True)
class _There:
    """A peer. keys: what it shares by; told: the list that it was told last; as_of: when that
    was held against what there is, as a version of the roster."""

    side: Side
    keys: frozenset[str]
    told: tuple[str, ...] = ()
    as_of: int = -1


@dataclass(slots=True)
class _Having:
    """Who has a key: ids, the keys of mappings."""

    server: dict[str, None] = field(default_factory=dict[str, None])
    client: dict[str, None] = field(default_factory=dict[str, None])

    def of(self, side: Side) -> dict[str, None]:
        return self.server if side == "server" else self.client


class Roster:
    """Peers by id."""

    def __init__(self) -> None:
        self._there: dict[str, _There] = {}
        self._having: dict[str, _Having] = {}
        # Sides of keys whose peers may have another list by now, and peers that may.
        self._touched: dict[tuple[Side, str], None] = {}
        self._moved: dict[str, None] = {}
        # It is another one with each change; lists as of this one, by who sees them.
        self.version = 0
        self._lists: dict[tuple[Side, frozenset[str]], tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._there)

    def enter(self, id: str, side: Side, keys: Collection[str]) -> None:
        """It is here; or it was, and has other keys now."""
        there = self._there.setdefault(id, _There(side, frozenset()))
        old, there.keys = there.keys, frozenset(keys)
        self._lay_down(id, side, old - there.keys)
        for key in there.keys - old:
            self._having.setdefault(key, _Having()).of(side)[id] = None
            self._touched[OTHER[side], key] = None
        self._moved[id] = None
        self._changed()

    def leave(self, id: str) -> None:
        """It is gone, if it was here."""
        there = self._there.pop(id, None)
        if there is not None:
            self._lay_down(id, there.side, there.keys)
            self._moved.pop(id, None)
            self._changed()

    def _lay_down(self, id: str, side: Side, keys: Collection[str]) -> None:
        """It has not these keys any more."""
        for key in keys:
            having = self._having[key]
            del having.of(side)[id]
            self._touched[OTHER[side], key] = None
            if not having.server and not having.client:
                del self._having[key]

    def _changed(self) -> None:
        self.version += 1
        self._lists.clear()

    def is_seen(self, id: str, by: str) -> bool:
        """Is there one of this id, and does the other see it?"""
        one, other = self._there.get(id), self._there.get(by)
        if one is None or other is None or one.side == other.side:
            return False
        return not one.keys.isdisjoint(other.keys)

    def seen_by(self, id: str) -> tuple[str, ...]:
        """Whom it sees, in order; nobody, if it is not here."""
        there = self._there.get(id)
        if there is None:
            return ()
        which = there.side, there.keys
        if which not in self._lists:
            self._lists[which] = self._list(OTHER[there.side], there.keys)
        return self._lists[which]

    def due(self) -> Iterator[str]:
        """Peers whose lists may have changed, as far as is known now, some of them again and
        again; to be gone through in as many turns as it takes, while others come and go."""
        moved, touched = self._moved, self._touched
        self._moved, self._touched = {}, {}
        yield from moved
        for side, key in touched:
            if key in self._having:
                yield from tuple(self._having[key].of(side))

    def news(self, id: str) -> tuple[str, ...] | None:
        """The list that it is to be told, and counts as told from now on; None: none, it knows
        it, or is not here."""
        there = self._there.get(id)
        if there is None or there.as_of == self.version:
            return None
        there.as_of = self.version
        seen = self.seen_by(id)
        if seen == there.told:
            return None
        there.told = seen
        return seen

    def _list(self, side: Side, keys: frozenset[str]) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for key in keys:
            if key in self._having:
                found |= self._having[key].of(side)
        return tuple(sorted(found))
