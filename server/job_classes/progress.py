"""How far a job is: a value that only grows, whatever its tool says. No class, no file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

# Until the job's end says that it has succeeded.
ALMOST: Final = 99
# Characters of a package's or a file's name.
_NAME: Final = 256
_MOST: Final = 10**9


class JobProgress:
    """The field `progress`. percent and done never fall; 100 % is a success alone."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        """told: the fields that were told last; from there on it goes up."""
        value = told.get("progress")
        last = cast("dict[str, object]", value) if isinstance(value, dict) else {}
        self.phase = "start"
        self.package = ""
        self.percent = min(ALMOST, _whole(last.get("percent")))
        self.done = _whole(last.get("done"))
        self.total = _whole(last.get("total"))

    def at(self, share: float) -> None:
        """The job is that far, from 0 to 1."""
        self.percent = max(self.percent, min(ALMOST, int(100 * max(0.0, min(1.0, share)))))

    def count(self, done: int, total: int) -> None:
        """So many of so many things are dealt with."""
        self.done = max(self.done, min(_MOST, done))
        self.total = max(self.done, min(_MOST, total))

    def value(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "phase": self.phase,
            "package": self.package[:_NAME],
            "percent": self.percent,
            "done": self.done,
            "total": self.total,
        }

    def succeeded(self) -> None:
        """The job has ended, and well."""
        self.phase, self.percent = "done", 100


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return max(0, min(_MOST, value))
