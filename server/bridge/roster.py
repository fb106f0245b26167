"""Who is at a bridge, and who sees whom: servers and clients that share a key. Pure.

What is to be told is worked out by key and not by peer: of a hundred that come or go at once,
each of the others is told once, and all that have the same keys the same text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from sysadmd.keys import Side

OTHER: Final[dict[Side, Side]] = {"client": "server", "server": "client"}


@dataclass(slots=True)
class _There:
    """A peer. keys: what it shares by; told: the list that it was told last."""

    side: Side
    keys: frozenset[str]
    told: tuple[str, ...] = ()


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

    def __len__(self) -> int:
        return len(self._there)

    def enter(self, id: str, side: Side, keys: Collection[str]) -> None:
        """It is here; or it was, and has other keys now."""
        if id in self._there:
            self._lay_down(id)
            self._there[id].keys = frozenset(keys)
        else:
            self._there[id] = _There(side, frozenset(keys))
        self._moved[id] = None
        for key in self._there[id].keys:
            self._having.setdefault(key, _Having()).of(side)[id] = None
            self._touched[OTHER[side], key] = None

    def leave(self, id: str) -> None:
        """It is gone, if it was here."""
        if id in self._there:
            self._lay_down(id)
            del self._there[id]
            self._moved.pop(id, None)

    def _lay_down(self, id: str) -> None:
        """It has no keys any more."""
        there = self._there[id]
        for key in there.keys:
            having = self._having[key]
            del having.of(there.side)[id]
            self._touched[OTHER[there.side], key] = None
            if not having.server and not having.client:
                del self._having[key]

    def is_seen(self, id: str, by: str) -> bool:
        """Is there one of this id, and does the other see it?"""
        one, other = self._there.get(id), self._there.get(by)
        if one is None or other is None or one.side == other.side:
            return False
        return not one.keys.isdisjoint(other.keys)

    def seen_by(self, id: str) -> tuple[str, ...]:
        """Whom it sees, in order; nobody, if it is not here."""
        there = self._there.get(id)
        return () if there is None else self._list(OTHER[there.side], there.keys)

    def news(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Peers whose lists have changed since they were told, with the new ones."""
        moved, touched = self._moved, self._touched
        self._moved, self._touched = {}, {}
        for side, key in touched:
            if key in self._having:
                moved |= self._having[key].of(side)
        lists: dict[tuple[Side, frozenset[str]], tuple[str, ...]] = {}
        for id in moved:
            there = self._there.get(id)
            if there is None:
                # Gone while others were told.
                continue
            which = there.side, there.keys
            if which not in lists:
                lists[which] = self._list(OTHER[there.side], there.keys)
            if lists[which] != there.told:
                there.told = lists[which]
                yield id, there.told

    def _list(self, side: Side, keys: frozenset[str]) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for key in keys:
            if key in self._having:
                found |= self._having[key].of(side)
        return tuple(sorted(found))
