"""Shapes of JSON values as docs/sysadmctl.md writes them, and whether a value has one.

string number boolean null time any "that text"      [SHAPE]
{"key": SHAPE, "may be missing"?: SHAPE, ...: SHAPE of all other keys}
SHAPE or SHAPE      NAME, which stands for another one
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

_TOKEN: Final = re.compile(r'\s*("(?:[^"\\]|\\.)*"|\.\.\.|[A-Za-z_]+|[{}\[\]:,?])')
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_WORDS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "time": lambda value: isinstance(value, str) and bool(_TIME.fullmatch(value)),
    "any": lambda _: True,
}


@dataclass(frozen=True, slots=True)
class Keys:
    """An object. rest: the shape of all keys without one of their own; None: there is none."""

    needed: Mapping[str, Shape]
    optional: Mapping[str, Shape]
    rest: Shape | None


@dataclass(frozen=True, slots=True)
class Shape:
    """One of several: a word, a name or a text (text), a list of one, an object."""

    either: tuple[str | tuple[Shape] | Keys, ...]


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = [found[1] for found in _TOKEN.finditer(text)]
        assert "".join(self._tokens) == "".join(
            part if part.startswith('"') else "".join(part.split())
            for part in re.split(r'("(?:[^"\\]|\\.)*")', text)
        ), f"no shape: {text}"

    def shape(self) -> Shape:
        found = [self._one()]
        while self._takes("or"):
            found.append(self._one())
        return Shape(tuple(found))

    def is_done(self) -> bool:
        return not self._tokens

    def _one(self) -> str | tuple[Shape] | Keys:
        if self._takes("["):
            inner = self.shape()
            self._want("]")
            return (inner,)
        return self._keys() if self._takes("{") else self._tokens.pop(0)

    def _keys(self) -> Keys:
        needed: dict[str, Shape] = {}
        optional: dict[str, Shape] = {}
        rest: Shape | None = None
        while not self._takes("}"):
            key = self._tokens.pop(0)
            into = optional if self._takes("?") else needed
            self._want(":")
            if key == "...":
                rest = self.shape()
            else:
                into[json.loads(key)] = self.shape()
            if not self._takes(","):
                self._want("}")
                break
        return Keys(needed, optional, rest)

    def _takes(self, token: str) -> bool:
        there = self._tokens[:1] == [token]
        if there:
            del self._tokens[0]
        return there

    def _want(self, token: str) -> None:
        assert self._takes(token), f"{token} is expected before {self._tokens}"


def read(text: str) -> Shape:
    """A shape by its text."""
    reader = _Reader(text)
    shape = reader.shape()
    assert reader.is_done(), text
    return shape


def _entries(value: Any) -> list[Any]:
    """A list, for who checks types."""
    found: list[Any] = value
    return found


class Shapes:
    """Those that have names."""

    def __init__(self, named: Mapping[str, Shape]) -> None:
        self._named = named

    def why_not(self, value: Any, shape: Shape, at: str = "it") -> str:
        """Where a value is of another shape; empty: nowhere."""
        found = [self._why_not(value, one, at) for one in shape.either]
        return "" if "" in found else found[0] if len(found) == 1 else f"{at}: {value!r}"

    def _why_not(self, value: Any, one: str | tuple[Shape] | Keys, at: str) -> str:
        if isinstance(one, Keys):
            return self._object(value, one, at)
        if isinstance(one, tuple):
            if not isinstance(value, list):
                return f"{at} is no list: {value!r}"
            listed = enumerate(_entries(value))
            found = (self.why_not(each, one[0], f"{at}[{n}]") for n, each in listed)
            return next(filter(None, found), "")
        if one in self._named:
            return self.why_not(value, self._named[one], at)
        fits = value == json.loads(one) if one.startswith('"') else _WORDS[one](value)
        return "" if fits else f"{at} is not {one}: {value!r}"

    def _object(self, value: Any, keys: Keys, at: str) -> str:
        if not isinstance(value, dict):
            return f"{at} is no object: {value!r}"
        fields = cast("dict[str, Any]", value)
        if lacking := keys.needed.keys() - fields.keys():
            return f"{at} lacks {sorted(lacking)}"
        known = {**keys.needed, **keys.optional}
        for key, each in fields.items():
            shape = known.get(key, keys.rest)
            if shape is None:
                return f"{at} has {key!r}, of which nothing is said"
            if why := self.why_not(each, shape, f"{at}.{key}"):
                return why
        return ""
