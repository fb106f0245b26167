"""Taking orders and taking them back, as changes of the tables. Touches no process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Final

from dispatcher import events, orders, records, transitions
from dispatcher.orders import Order, Origin
from dispatcher.records import PENDING, RUNNING, JobRow
from dispatcher.steps import Now
from sysadmd.errors import Conflict
from sysadmd.journal import Transaction, append_many

_json: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that an order led to. waits: it is new, and to be queued."""

    job: JobRow
    waits: bool


@dataclass(frozen=True, slots=True)
class Doomed:
    """A job that is killed. n: its running command; None: it waited, and now never starts."""

    uid: int
    id: str
    queue: str | None
    n: int | None


@dataclass(frozen=True, slots=True)
class Bundle:
    """What one request asks for: all of it, or nothing. note: committed together with it."""

    orders: Sequence[Order]
    note: Callable[[Transaction, Sequence[JobRow]], object]


def accept_all(
    change: Transaction, now: Now, asked: Sequence[Bundle]
) -> list[list[Accepted] | Conflict]:
    """What became of each request, in this order; a conflict is that request's alone.

    However many there are, they are a few statements.
    """
    batch = _Batch(change.db, now)
    found = [batch.take(each.orders) for each in asked]
    batch.insert(change)
    for each, jobs in zip(asked, found, strict=True):
        if not isinstance(jobs, Conflict):
            each.note(change, [one.job for one in jobs])
    return found


class _Batch:
    """New jobs, gathered to be written down together."""

    def __init__(self, db: Connection, now: Now) -> None:
        self._db = db
        self._now = now
        row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchone()
        self._next: int = row[0] + 1 if row else 1
        self._new: list[tuple[Order, JobRow]] = []
        # Of them, by key, and by id while that is in use.
        self._by_key: dict[str, tuple[Order, JobRow]] = {}
        self._by_id: dict[str, tuple[Order, JobRow]] = {}

    def take(self, wanted: Sequence[Order]) -> list[Accepted] | Conflict:
        """All of these, or none."""
        before = len(self._new)
        try:
            return [self._same(order) or self._add(order) for order in wanted]
        except Conflict as error:
            for order, job in self._new[before:]:
                self._by_key.pop(order.key or "", None)
                self._by_id.pop(job.id, None)
            self._next -= len(self._new) - before
            del self._new[before:]
            # A value: it keeps nothing of the group in memory.
            return error.with_traceback(None)

    def _add(self, order: Order) -> Accepted:
        job = _job(self._next, order, self._now)
        self._next += 1
        self._new.append((order, job))
        if order.key is not None:
            self._by_key[order.key] = order, job
        if order.commands:
            self._by_id[job.id] = order, job
        return Accepted(job, waits=bool(order.commands))

    def _same(self, order: Order) -> Accepted | None:
        """The job that this order has led to already. Raises: Conflict."""
        if order.key is not None:
            query = "SELECT uid FROM jobs WHERE key = ?"
            there = self._there(self._by_key, order.key, query)
            if there is not None:
                if there[0] == _argvs(order):
                    return Accepted(there[1], waits=False)
                raise Conflict(
                    f"key {order.key!r} belongs to a job with other commands; take a new key"
                )
        if order.id is None:
            return None
        query = "SELECT uid FROM jobs WHERE id = ? AND state < 2 ORDER BY uid DESC LIMIT 1"
        there = self._there(self._by_id, order.id, query)
        if there is None:
            return None
        if order.key is None and there[0] == _argvs(order):
            return Accepted(there[1], waits=False)
        raise Conflict(
            f"id {order.id!r} is in use by an active job"
            f"{' with other commands' * (not order.key)}; wait for its end, or take another id"
        )

    def _there(
        self, known: Mapping[str, tuple[Order, JobRow]], word: str, query: str
    ) -> tuple[list[str], JobRow] | None:
        """Commands and row of the job that has this key or id."""
        if word in known:
            order, job = known[word]
            return _argvs(order), job
        found = self._db.execute(query, (word,)).fetchone()
        row = None if found is None else records.row(self._db, found[0])
        return None if row is None else (_commands(self._db, row.uid), row)

    def insert(self, change: Transaction) -> None:
        """Write them down, and tell of them."""
        new, now = self._new, self._now
        if not new:
            return
        change.db.executemany(
            "INSERT INTO jobs (uid, id, queue, state, created, timeout, env, cwd, key,"
            " event_system, fields, setting, channel, log_field, account)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_columns(order, job) for order, job in new],
        )
        change.db.executemany(
            "INSERT INTO commands (job, n, argv, text, state) VALUES (?, ?, ?, ?, ?)",
            [
                (job.uid, n, _json(spec.argv), spec.text, PENDING)
                for order, job in new
                for n, spec in enumerate(order.commands)
            ],
        )
        bodies = [events.body(job.uid, "pending") for _, job in new]
        append_many(change, events.SYSTEM, bodies, now.wall)
        for order, job in new:
            if order.env:
                records.keep_environment(change.db, job.uid, order.env)
            if not order.commands:
                transitions.finish_job(change, now, job.uid, "succeeded")


def _commands(db: Connection, uid: int) -> list[str]:
    return [
        argv
        for (argv,) in db.execute("SELECT argv FROM commands WHERE job = ? ORDER BY n", (uid,))
    ]


def _argvs(order: Order) -> list[str]:
    return [_json(spec.argv) for spec in order.commands]


def _job(uid: int, order: Order, now: Now) -> JobRow:
    """As it is told to who asked; one without commands has ended."""
    origin, waits = order.origin, bool(order.commands)
    return JobRow(
        uid=uid,
        id=order.id if order.id is not None else orders.new_id(),
        queue=order.queue,
        state="pending" if waits else "finished",
        result=None if waits else "succeeded",
        created=now.ms,
        started=None,
        finished=None if waits else now.ms,
        timeout=order.timeout,
        env=tuple(order.env),
        cwd=order.cwd,
        key=order.key,
        event_system=None if origin is None else origin.system,
        fields={} if origin is None else origin.fields,
        log_field=None if origin is None else origin.log_field,
        report="{}",
        account=order.account,
    )


def _columns(order: Order, job: JobRow) -> tuple[object, ...]:
    """Its columns, of a job that waits."""
    return (
        job.uid,
        job.id,
        job.queue,
        PENDING,
        job.created,
        job.timeout,
        _json(dict.fromkeys(order.env)) if order.env else None,
        job.cwd,
        job.key,
        *_origin(order.origin),
        job.account,
    )


def _origin(origin: Origin | None) -> tuple[str | None, ...]:
    """Its columns."""
    if origin is None:
        return (None,) * 5
    return (
        origin.system,
        _json(origin.fields) if origin.fields else None,
        _json(origin.setting) if origin.setting else None,
        origin.channel,
        origin.log_field,
    )


def kill(change: Transaction, now: Now, ids: Sequence[str]) -> list[Doomed]:
    """End the active jobs of these ids: at once those that wait, by decision the others."""
    doomed: list[Doomed] = []
    for id in dict.fromkeys(ids):
        row = change.db.execute(
            "SELECT uid, queue, state FROM jobs WHERE id = ? AND state < 2"
            " ORDER BY uid DESC LIMIT 1",
            (id,),
        ).fetchone()
        if row is None:
            continue
        uid, queue, state = row
        n = None
        if state == RUNNING:
            n = transitions.mark(change, uid, "killed")
        else:
            transitions.finish_job(change, now, uid, "killed")
        doomed.append(Doomed(uid, id, queue, n))
    return doomed


def running(db: Connection, ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Of the running jobs among these ids: uid and present command."""
    found: dict[str, tuple[int, int]] = {}
    for id in ids:
        row = db.execute(
            "SELECT uid, n FROM jobs JOIN commands ON job = uid WHERE id = ? AND jobs.state = ?"
            " AND commands.state = ?",
            (id, RUNNING, RUNNING),
        ).fetchone()
        if row is not None:
            found[id] = (row[0], row[1])
    return found
