"""The state file seen from outside: what stands in it, and events put into it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path

from sysadmd import journal, schema
from sysadmd.events import SYSTEMS
from sysadmd.journal import Transaction
from sysadmd.schema import Step


@contextlib.contextmanager
def state_file(state_dir: Path) -> Generator[sqlite3.Connection]:
    """It, opened; committed and closed at the end."""
    connection = sqlite3.connect(state_dir / "state.db", timeout=30)
    with contextlib.closing(connection) as db, db:
        yield db


def tables(*schemas: Sequence[Step]) -> sqlite3.Connection:
    """The tables that these steps make, in memory."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    schema.migrate(db, Path(), {str(n): steps for n, steps in enumerate(schemas)})
    return db


def ended_twice(state_dir: Path) -> list[int]:
    """The jobs that were told as finished more than once; none if the file can't be read."""
    if not (state_dir / "state.db").exists():
        return []
    with contextlib.suppress(sqlite3.Error), state_file(state_dir) as db:
        # Tests put bodies in that are none.
        rows = db.execute(
            "SELECT job FROM (SELECT CASE WHEN json_valid(text) THEN text ->> 'job' END AS job,"
            " CASE WHEN json_valid(text) THEN text ->> 'state' END AS state"
            " FROM (SELECT CAST(body AS TEXT) AS text FROM events WHERE system = ?))"
            " WHERE state = 'finished' GROUP BY job HAVING count(*) > 1",
            (SYSTEMS.index("dispatcher"),),
        ).fetchall()
        return [job for (job,) in rows]
    return []


def append_events(state_dir: Path, events: Iterable[tuple[str, bytes, float]]) -> None:
    """Put events (system, body, time) into the journal of a daemon that does not run."""
    with state_file(state_dir) as db:
        change = Transaction(db)
        for system, body, at in events:
            journal.append(change, system, body, at)
            change.events.clear()


def line(number: int) -> bytes:
    """The body of a life-preserver event, whose message has this number."""
    return b'{"message":"m%d","priority":"1/Information","class":"snapshot"}' % number
