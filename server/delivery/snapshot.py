"""The truth as of one cursor: system state, last Life Preserver event, active jobs.

A snapshot is a read transaction of the state file: however slowly a client takes it, it is the
truth as of its cursor, nobody waits for it, and no more of it is in memory than the frame that
is on its way. All but its taking happens in the store's reading thread.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Hashable, Mapping
from sqlite3 import Connection
from types import MappingProxyType
from typing import Final

import msgspec

from collectors import lp_events, system_state
from dispatcher import records
from dispatcher.records import JobRow
from server.dialects.values import job_value, rfc3339
from server.wire.protocol import FRAME_LIMIT, text_frame
from sysadmd import journal
from sysadmd.journal import Place, format_cursor
from sysadmd.store import Store

# Of a frame, what is not the list of jobs and the states.
_ENVELOPE: Final = 2048
# Snapshots of more than one frame that are under way at once: each holds a connection, that is
# three descriptors, which SQLite keeps for the next one as long as others use the file. For one
# more, one of whoever has most of them is cut: that which has waited longest for its client.
MOST: Final = 64
# Of SQLite's page cache, for each of them; KiB.
_CACHE: Final = 128

_encode: Final = msgspec.json.Encoder().encode


class SnapshotCut(Exception):
    """Others had need of its place."""


class Snapshot:
    """What was true at `place`; the jobs are read as they are taken."""

    def __init__(self, store: Store) -> None:
        self.epoch = store.epoch
        self._db = store.open_reader(_CACHE)
        try:
            self._begin()
        except BaseException:
            self._db.close()
            raise

    def _begin(self) -> None:
        self._db.execute("BEGIN")
        self.place: Place = journal.head(self._db)
        # A first reading is stored and not told; all else changes with an event.
        self.system_state = system_state.current(self._db) or b"{}"
        last = journal.last_event(self._db, "life-preserver", self.place.seq)
        self.states = b'"system_state":%s,"life_preserver":%s,' % (
            self.system_state,
            lp_events.documented(last.body) if last else b"null",
        )
        self._rows = records.active_jobs(self._db)
        # A job that was read and did not fit.
        self._left: list[bytes] = []
        self.closed = False
        # What the first frame holds of jobs is read at once: mostly that is all.
        self.first, more = self.portion(len(self.states))
        self.whole = not more
        if self.whole:
            self.close()

    def portion(self, beside: int = 0) -> tuple[bytes, bool]:
        """The jobs of the next frame, as JSON; and are there more?

        beside: bytes that the frame has beside them.
        """
        jobs: list[bytes] = []
        size = beside
        for job in itertools.chain(self._left, map(self._job, self._rows)):
            if size and size + len(job) + 1 > FRAME_LIMIT - _ENVELOPE:
                self._left = [job]
                return b",".join(jobs), True
            jobs.append(job)
            size += len(job) + 1
        return b",".join(jobs), False

    def _job(self, row: JobRow) -> bytes:
        return _encode(job_value(row, records.commands(self._db, row.uid)))

    def close(self) -> None:
        """End its transaction."""
        self.closed = True
        self._rows.close()
        self._db.close()


class SnapshotOpening:
    """The frames with which a snapshot is told to one client."""

    # The state file's WAL can but grow until they are taken.
    hurries = True
    # It tells no events.
    given: Mapping[int, Place] = MappingProxyType({})

    def __init__(self, snapshots: Snapshots, snapshot: Snapshot, id: str, prev: str) -> None:
        """id, prev: those of the client's events, and of its subscription."""
        self._snapshots = snapshots
        self._snapshot = snapshot
        self._cursor = cursor = format_cursor(snapshot.epoch, str(snapshot.place))
        now = rfc3339(round(time.time() * 1000))
        self._head = (
            f'{{"namespace":"events","name":"snapshot","id":{json.dumps(id)},'
            f'"cursor":"{cursor}","prev":"{prev}","time":"{now}",'
        ).encode()
        # Read and not taken yet: a read may be for a subscription that is replaced meanwhile.
        self._frame: bytes | None = None
        self._begun = self._complete = False

    @property
    def cut(self) -> bool:
        """It will not be completed: others had need of its place."""
        return self._snapshot.closed and not self._snapshot.whole and not self._complete

    def frame(self, db: Connection) -> bytes:
        """The next frame, as it is sent; all but the last say `"more": true`.

        In the reading thread; db: not used, it has its own. Raises: SnapshotCut.
        """
        if self._frame is None:
            self._frame = text_frame(self._read())
        return self._frame

    def taken(self) -> bool:
        """The client has the frame; was it the last one?"""
        self._frame = None
        return self._complete

    def _read(self) -> bytes:
        snapshot = self._snapshot
        if snapshot.closed and not snapshot.whole:
            raise SnapshotCut
        if self._begun:
            jobs, more = snapshot.portion()
            states = b""
        else:
            self._begun = True
            jobs, more, states = snapshot.first, not snapshot.whole, snapshot.states
            if more:
                # Nobody else begins it.
                snapshot.first = b""
        # First: the loop asks meanwhile whether it is cut.
        self._complete = not more
        self._snapshots.moved(snapshot, more=more)
        return b'%s%s"args":{"cursor":"%s",%s"jobs":[%s]}}' % (
            self._head,
            b'"more":true,' if more else b"",
            self._cursor.encode(),
            states,
            jobs,
        )

    def close(self) -> None:
        """Nobody wants it any more."""
        self._snapshots.drop(self._snapshot)


class Snapshots:
    """Takes them. Clients that ask while nothing changes share one, if it is a single frame."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Both are the reading thread's. Of those under way, that which moved last comes last.
        self._newest: Snapshot | None = None
        self._under_way: dict[Snapshot, Hashable] = {}

    async def take(self, asker: Hashable = None) -> Snapshot:
        """The truth as of the newest event. asker: whose turn it takes."""
        return await self._store.read(lambda db: self._take(db, asker), asker)

    def drop(self, snapshot: Snapshot) -> None:
        """It is not wanted any more."""
        if not snapshot.whole:
            self._store.read(lambda db: self.moved(snapshot, more=False))

    def moved(self, snapshot: Snapshot, *, more: bool) -> None:
        """A frame of it was taken; more: others follow. In the reading thread."""
        asker = self._under_way.pop(snapshot, None)
        if more:
            self._under_way[snapshot] = asker
        elif not snapshot.closed:
            snapshot.close()

    def _take(self, db: Connection, asker: Hashable) -> Snapshot:
        newest = self._newest
        if (
            newest is not None
            and newest.place == journal.head(db)
            and newest.system_state == (system_state.current(db) or b"{}")
        ):
            return newest
        taken = Snapshot(self._store)
        if taken.whole:
            self._newest = taken
            return taken
        while len(self._under_way) >= MOST:
            ((greediest, _),) = Counter(self._under_way.values()).most_common(1)
            slowest = next(s for s, whose in self._under_way.items() if whose == greediest)
            del self._under_way[slowest]
            slowest.close()
        self._under_way[taken] = asker
        return taken
