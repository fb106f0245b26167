"""After `state.db` was moved away, or an older one put back: parts what was there from it."""

from __future__ import annotations

import logging

from dispatcher import logs
from dispatcher.site import Site
from sysadmd.journal import Transaction

log = logging.getLogger(__name__)


async def part_from_another_state(site: Site) -> None:
    """Move aside the logs of jobs that this state knows nothing of. Before anything else.

    A keeper may still tell of jobs whose numbers this file has not given yet; they are passed
    over. Raises: OSError, StoreFull.
    """
    row = site.store.reader.execute(
        "SELECT seq FROM sqlite_sequence WHERE name = 'jobs'"
    ).fetchone()
    last = row[0] if row else 0
    foreign = [uid for uid in logs.uids(site.state_dir) if uid > last]
    if not foreign:
        return

    def pass_over(change: Transaction) -> None:
        change.db.execute("DELETE FROM sqlite_sequence WHERE name = 'jobs'")
        change.db.execute("INSERT INTO sqlite_sequence VALUES ('jobs', ?)", (max(foreign),))

    await site.store.write(pass_over)
    aside = logs.set_aside(site.state_dir, foreign)
    log.warning(
        "state.db knows nothing of %d jobs that have logs: it is another one than theirs. Their"
        " logs were moved to %s; what of them still runs goes on, but is not followed",
        len(foreign),
        aside,
    )
