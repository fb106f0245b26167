"""Which waiting jobs a keeper was lent: it may begin their first command by itself. One table.

Written before the keeper is told, so a job may have begun if it stands here, and if it does not
it has not. A row goes when the job runs as far as the tables know, or waits again. When the
machine loses its power nobody can tell which of them have begun, and they end as `lost`; so
only where a job has just ended quickly is anything lent, and not for long.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Final

# How many jobs of a queue are lent for each that may run at once, and at most: as many short
# ones as end until the daemon has heard of it and has committed that.
AHEAD: Final = 16
MOST: Final = 64
# A job that took longer lends nothing at its end, ms: to send the next one costs a millisecond,
# which there matters no more.
QUICK_MS: Final = 50


@dataclass(frozen=True, slots=True)
class Terms:
    """What a turn may lend. given: jobs that the keeper knows to have a place; held: queues of
    which nothing is to be lent now."""

    given: frozenset[int]
    held: frozenset[str | None]

    def allow(self, queue: str | None, running: Collection[int], new: Collection[int]) -> bool:
        """May jobs of this queue be lent while these run? new: those that start now."""
        if queue in self.held:
            return False
        return all(uid in self.given or uid in new for uid in running)


def lend(db: Connection, uid: int, keeper: str, boot: str, mark: int) -> None:
    """Write down that this keeper is going to have it, in this boot. mark: by which this
    lending is known from another one of this job's."""
    query = "INSERT INTO lent (job, keeper, boot, mark) VALUES (?, ?, ?, ?)"
    db.execute(query, (uid, keeper, boot, mark))


def take_back(db: Connection, uid: int, keeper: str, mark: int | None = None) -> str | None:
    """It is lent no more: the boot in which it was. None: this keeper does not have it, or not
    by this mark."""
    query = "SELECT boot, mark FROM lent WHERE job = ? AND keeper = ?"
    found = db.execute(query, (uid, keeper)).fetchone()
    if found is None or mark not in (None, found[1]):
        return None
    db.execute("DELETE FROM lent WHERE job = ?", (uid,))
    return str(found[0])


def of_keeper(db: Connection, keeper: str) -> list[tuple[int, str]]:
    """What this keeper has: uids in their order, and the boots in which they were lent."""
    rows = db.execute("SELECT job, boot FROM lent WHERE keeper = ? ORDER BY job", (keeper,))
    return rows.fetchall()


def everything(db: Connection) -> dict[int, str]:
    """All uids, and their keepers."""
    return dict(db.execute("SELECT job, keeper FROM lent").fetchall())


def queues(db: Connection, ids: Sequence[str]) -> frozenset[str | None]:
    """The queues of which jobs with these ids are lent."""
    found: set[str | None] = set()
    query = (
        "SELECT queue FROM jobs WHERE id = ? AND state < 2"
        " AND EXISTS (SELECT 1 FROM lent WHERE job = uid)"
    )
    for id in ids:
        found.update(queue for (queue,) in db.execute(query, (id,)))
    return frozenset(found)


def forget_all(db: Connection) -> None:
    """Of a state that is put back: no keeper has any of it."""
    db.execute("DELETE FROM lent")
