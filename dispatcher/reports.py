"""What a class makes of what its job says: shared with dispatcher. No file, no wire.

A job says something by its output and, where its tool can, by events: lines on a socket beside
the output. Of both a report makes fields, which are told with the job's events. It is made anew
by each daemon, and fed all that the job has said from the beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

Fields = Mapping[str, Any]


class Report(Protocol):
    """What is known of one job by what it has said. Used by one thread at a time.

    Output and events come in order each, but how they lie to each other is not known. Whatever
    is fed, nothing is raised, and what is kept is bounded. Fields are JSON values.
    """

    def output(self, command: int, data: bytes) -> None:
        """More output of the job's command of this number, from 0; cut anywhere."""
        ...

    def event(self, line: bytes) -> None:
        """One line from the job's socket, without its end. It may be empty or no JSON."""
        ...

    @property
    def watched(self) -> str | None:
        """A file of the job's that grows as it goes on, as an absolute path; None: there is
        none (yet)."""
        ...

    def grown(self, size: int, at: float) -> None:
        """The watched file had `size` bytes at `at`, s by a clock that does not step."""
        ...

    def fields(self) -> Fields:
        """What is told while the job runs."""
        ...

    def ended(self, result: str) -> Fields:
        """What is told at its end, which is its record. result: succeeded, failed, killed,
        timed-out, lost."""
        ...


# A report on a job: of the fields that it was accepted with, and of those that were told last.
Reporter = Callable[[Fields, Fields], Report]
