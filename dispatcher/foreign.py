"""After `state.db` was moved away, or an older one put back: parts what was there from it.

By hand, that is found at the start; by `sysadmd restore`, before it is put back.
"""

from __future__ import annotations

import logging
from sqlite3 import Connection

from dispatcher import lent, logs, transitions
from dispatcher.records import FINISHED, RUNNING
from dispatcher.site import Site
from dispatcher.steps import Now
from sysadmd.journal import Transaction

log = logging.getLogger(__name__)


async def part_from_another_state(site: Site) -> None:
    """Move aside the logs of jobs that this state knows nothing of. Before anything else.

    A keeper may still tell of jobs whose numbers this file has not given yet; they are passed
    over. Raises: OSError, StoreFull.
    """
    last = _last(site.store.reader)
    foreign = [uid for uid in logs.uids(site.state_dir) if uid > last]
    if not foreign:
        return

    await site.store.write(lambda change: _pass_over(change, max(foreign)))
    aside = logs.set_aside(site.state_dir, foreign)
    log.warning(
        "state.db knows nothing of %d jobs that have logs: it is another one than theirs. Their"
        " logs were moved to %s; what of them still runs goes on, but is not followed",
        len(foreign),
        aside,
    )


def lose_active(change: Transaction, now: Now, last: int) -> list[str]:
    """In a state that is to be put back: no job of it goes on. Their ids.

    What ran or waited then has run since, as far as anybody knows, and nothing runs twice. The
    next job gets a uid above `last`, the highest one there are traces of.
    """
    db = change.db
    active = db.execute("SELECT uid, id FROM jobs WHERE state < 2 ORDER BY uid").fetchall()
    for uid, _ in active:
        # Its log is not known: as much as was told of it.
        db.execute(
            "UPDATE commands SET state = ?, finished = ?, log_size = told"
            " WHERE job = ? AND state = ?",
            (FINISHED, now.ms, uid, RUNNING),
        )
        transitions.finish_job(change, now, uid, "lost")
    db.execute("DELETE FROM books")
    lent.forget_all(db)
    if last > _last(db):
        _pass_over(change, last)
    return [id for _, id in active]


def _last(db: Connection) -> int:
    """The highest number that a job of this file has had; 0: it has had none."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchone()
    return row[0] if row else 0


def _pass_over(change: Transaction, last: int) -> None:
    """Give no job a number up to this one."""
    change.db.execute("DELETE FROM sqlite_sequence WHERE name = 'jobs'")
    change.db.execute("INSERT INTO sqlite_sequence VALUES ('jobs', ?)", (last,))
