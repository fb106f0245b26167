"""A job as the state file has it, with its commands."""

from __future__ import annotations

from sqlite3 import Connection
from typing import Any

import msgspec

from dispatcher import records
from dispatcher.records import Command, JobRow


class Job(JobRow, frozen=True):
    """All that is known of a job."""

    commands: tuple[Command, ...]


def job_of(db: Connection, uid: int) -> Job | None:
    """The job of this uid."""
    row = records.row(db, uid)
    if row is None:
        return None
    head: Any = msgspec.structs.asdict(row)
    return Job(**head, commands=tuple(records.commands(db, uid)))
