"""The truth as of one cursor: system state, last Life Preserver event, active jobs."""

from __future__ import annotations

import json
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from collectors import system_state
from dispatcher import records
from server.dialects.values import job_value, rfc3339
from server.wire.protocol import FRAME_LIMIT
from sysadmd import journal
from sysadmd.journal import Place, Transaction
from sysadmd.store import Store

# Of a frame, what is not the list of jobs and the states.
_ENVELOPE: Final = 2048


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Snapshot:
    """What was true at `place`. The three values are JSON texts."""

    epoch: str
    place: Place
    system_state: bytes
    life_preserver: bytes
    jobs: tuple[bytes, ...]

    def frames(self, event_id: str, prev: str) -> Iterator[bytes]:
        """JSON texts of frames named `snapshot`; all but the last say `"more": true`."""
        cursor = journal.format_cursor(self.epoch, str(self.place))
        now = rfc3339(round(time.time() * 1000))
        head = (
            f'{{"namespace":"events","name":"snapshot","id":{json.dumps(event_id)},'
            f'"cursor":"{cursor}","prev":"{prev}","time":"{now}",'
        ).encode()
        states = b'"system_state":%s,"life_preserver":%s,' % (
            self.system_state,
            self.life_preserver,
        )
        begin, end = 0, self._fitting(0, len(states))
        while True:
            more = b'"more":true,' if end < len(self.jobs) else b""
            args = b'"args":{"cursor":"%s",%s"jobs":[%s]}}' % (
                cursor.encode(),
                states,
                b",".join(self.jobs[begin:end]),
            )
            yield head + more + args
            if not more:
                return
            states = b""
            begin, end = end, self._fitting(end, 0)

    def _fitting(self, begin: int, states: int) -> int:
        """The end of the jobs from `begin` on that one frame takes beside the states' bytes."""
        end, size = begin, states
        while end < len(self.jobs):
            size += len(self.jobs[end]) + 1
            if size > FRAME_LIMIT - _ENVELOPE and (states or end > begin):
                break
            end += 1
        return end


class Snapshots:
    """Takes them; clients that ask while nothing changes share one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._newest: weakref.ref[Snapshot] | None = None

    async def take(self) -> Snapshot:
        """The truth as of the newest event, read between two changes so that it fits."""
        return await self._store.write(self._read)

    def _read(self, change: Transaction) -> Snapshot:
        place = journal.head(change.db)
        # A first reading is stored and not told; all else changes with an event.
        state = system_state.current(change.db) or b"{}"
        newest = self._newest() if self._newest is not None else None
        if newest is not None and (newest.place, newest.system_state) == (place, state):
            return newest
        last = journal.last_event(change.db, "life-preserver", place.seq)
        jobs = (msgspec.json.encode(job_value(job)) for job in records.active_jobs(change.db))
        taken = Snapshot(
            self._store.epoch,
            place,
            state,
            last.body if last else b"null",
            tuple(jobs),
        )
        self._newest = weakref.ref(taken)
        return taken
