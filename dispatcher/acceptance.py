"""Taking orders and taking them back, as changes of the tables. Touches no process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from sqlite3 import Connection

from msgspec.structs import replace

from dispatcher import events, orders, records, transitions
from dispatcher.orders import Order, Origin
from dispatcher.records import PENDING, RUNNING, JobRow
from dispatcher.transitions import Now
from sysadmd.errors import Conflict
from sysadmd.journal import Transaction


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


def accept(change: Transaction, now: Now, wanted: Sequence[Order]) -> list[Accepted]:
    """All of these, or an error and none. Raises: Conflict."""
    return [_accept(change, now, order) for order in wanted]


def _accept(change: Transaction, now: Now, order: Order) -> Accepted:
    there = _same(change.db, order)
    if there is not None:
        job = records.row(change.db, there)
        assert job is not None
        return Accepted(job, waits=False)
    job = _insert(change.db, now, order)
    events.tell(change, now.wall, job.uid, "pending")
    if order.commands:
        return Accepted(job, waits=True)
    transitions.finish_job(change, now, job.uid, "succeeded")
    ended = replace(job, state="finished", result="succeeded", finished=now.ms)
    return Accepted(ended, waits=False)


def _same(db: Connection, order: Order) -> int | None:
    """The job that this order has led to already. Raises: Conflict."""
    if order.key is not None:
        row = db.execute("SELECT uid FROM jobs WHERE key = ?", (order.key,)).fetchone()
        if row is not None:
            if _commands(db, row[0]) == _argvs(order):
                return int(row[0])
            raise Conflict(
                f"key {order.key!r} belongs to a job with other commands; take a new key"
            )
    if order.id is None:
        return None
    row = db.execute(
        "SELECT uid FROM jobs WHERE id = ? AND state < 2 ORDER BY uid DESC LIMIT 1", (order.id,)
    ).fetchone()
    if row is None:
        return None
    if order.key is None and _commands(db, row[0]) == _argvs(order):
        return int(row[0])
    raise Conflict(
        f"id {order.id!r} is in use by an active job{' with other commands' * (not order.key)};"
        " wait for its end, or take another id"
    )


def _commands(db: Connection, uid: int) -> list[str]:
    return [
        argv
        for (argv,) in db.execute("SELECT argv FROM commands WHERE job = ? ORDER BY n", (uid,))
    ]


def _argvs(order: Order) -> list[str]:
    return [_json(spec.argv) for spec in order.commands]


def _insert(db: Connection, now: Now, order: Order) -> JobRow:
    id = order.id if order.id is not None else orders.new_id()
    cursor = db.execute(
        "INSERT INTO jobs (id, queue, state, created, timeout, env, cwd, key, event_system,"
        " fields, setting, channel, log_field, account)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            id,
            order.queue,
            PENDING,
            now.ms,
            order.timeout,
            _json(dict.fromkeys(order.env)) if order.env else None,
            order.cwd,
            order.key,
            *_origin(order.origin),
            order.account,
        ),
    )
    uid = cursor.lastrowid
    assert uid is not None
    if order.env:
        records.keep_environment(db, uid, order.env)
    db.executemany(
        "INSERT INTO commands (job, n, argv, text, state) VALUES (?, ?, ?, ?, ?)",
        [
            (uid, n, _json(spec.argv), spec.text, PENDING)
            for n, spec in enumerate(order.commands)
        ],
    )
    origin = order.origin
    return JobRow(
        uid=uid,
        id=id,
        queue=order.queue,
        state="pending",
        result=None,
        created=now.ms,
        started=None,
        finished=None,
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


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
