"""The state file seen from outside: what stands in it, and events put into it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator, Iterable
from pathlib import Path

from sysadmd import journal
from sysadmd.journal import Transaction


@contextlib.contextmanager
def state_file(state_dir: Path) -> Generator[sqlite3.Connection]:
    """It, opened; committed and closed at the end."""
    connection = sqlite3.connect(state_dir / "state.db", timeout=30)
    with contextlib.closing(connection) as db, db:
        yield db


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
