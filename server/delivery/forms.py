"""In which form a client hears events: the name of a dialect, the extension, the systems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dialect = Literal["documented", "sysadm-client"]


@dataclass(frozen=True, slots=True)
class Form:
    """All clients of one form get the same bytes."""

    dialect: Dialect
    extended: bool
    systems: frozenset[int]
