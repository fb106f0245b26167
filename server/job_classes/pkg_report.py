"""Stand-in."""

from __future__ import annotations

from dispatcher.reports import Fields
from server.job_classes.progress import JobProgress


class PkgReport:
    """S."""

    def __init__(self, accepted: Fields, told: Fields) -> None:
        self.p = JobProgress(told)
        self.n = 0

    watched: str | None = None

    def output(self, command: int, data: bytes) -> None:
        """o"""

    def event(self, line: bytes) -> None:
        """e"""
        self.n += 1

    def grown(self, size: int, at: float) -> None:
        """g"""

    def fields(self) -> Fields:
        """f"""
        return {"progress": self.p.value(), "lines": self.n}

    def ended(self, result: str) -> Fields:
        """e"""
        if result == "succeeded":
            self.p.succeeded()
        return self.fields()
