"""Jobs as rows and as values: the tables and how they are read. Decides and starts nothing.

What changes a job's state is in dispatcher/transitions.py. Times are whole milliseconds since
1970 by the wall clock, for people; what must not step is told by the boot clock (`_at`).
"""
# ruff: noqa: S608 - the texts of queries are put together of constants and question marks alone

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final

import msgspec

from dispatcher import logs
from sysadmd.journal import Transaction
from sysadmd.schema import Hiding, Step

# As they are in the column: small, and "not finished" is one comparison.
STATES: Final = ("pending", "running", "finished", "skipped")
PENDING: Final = 0
RUNNING: Final = 1
FINISHED: Final = 2
SKIPPED: Final = 3

SCHEMA: Final[tuple[Step, ...]] = (
    Hiding(
        """
    CREATE TABLE jobs (
        uid INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of acceptance; never used again
        id TEXT NOT NULL,               -- the client's word; free again when finished
        queue TEXT,                     -- NULL: waits for nobody
        state INTEGER NOT NULL,         -- 0 pending, 1 running, 2 finished
        result TEXT,                    -- succeeded, failed, killed, timed-out, lost
        ending TEXT,                    -- killed, timed-out: decided, before the first signal
        created INTEGER NOT NULL,
        started INTEGER,
        finished INTEGER,
        timeout REAL,                   -- s
        deadline REAL,                  -- by the boot clock
        boot TEXT,                      -- the boot that it was started in
        env TEXT,                       -- JSON object; all values are null
        cwd TEXT,
        key TEXT,
        event_system TEXT,
        fields TEXT,                    -- JSON object
        last_seq INTEGER                -- of its finished event: also the order of finishing
    );
    CREATE INDEX jobs_by_id ON jobs (id, uid);
    CREATE INDEX jobs_active ON jobs (uid) WHERE state < 2;
    CREATE INDEX jobs_finished ON jobs (last_seq) WHERE state = 2;
    CREATE UNIQUE INDEX jobs_by_key ON jobs (key) WHERE key IS NOT NULL;
    CREATE TABLE commands (
        job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
        n INTEGER NOT NULL,
        argv TEXT NOT NULL,             -- JSON list
        text TEXT NOT NULL,
        state INTEGER NOT NULL,         -- 0 pending, 1 running, 2 finished, 3 skipped
        return_code INTEGER,            -- NULL: not known (yet)
        started INTEGER,
        finished INTEGER,
        log_size INTEGER,               -- at its end; later bytes are not its own
        told INTEGER NOT NULL DEFAULT 0,-- bytes that progress has spoken of
        keeper TEXT,                    -- which was asked to start it
        next_at REAL,                   -- it was announced, then: its process made (boot clock)
        began_at REAL,                  -- its process wrote that it begins
        pid INTEGER,
        start REAL,                     -- of the process, as the system tells it; s since boot
        PRIMARY KEY (job, n)
    ) WITHOUT ROWID;
    CREATE INDEX commands_running ON commands (keeper, job) WHERE state = 1;
    CREATE TABLE books (                -- how far each keeper's book has been worked in
        keeper TEXT PRIMARY KEY,
        generation INTEGER NOT NULL,
        position INTEGER NOT NULL
    );
    CREATE TABLE queues (
        name TEXT PRIMARY KEY,          -- '': the jobs without a queue
        paused INTEGER NOT NULL DEFAULT 0,
        used INTEGER NOT NULL DEFAULT 0 -- it ever had a job
    );
    """,
        "UPDATE jobs SET env = NULL",
    ),
    """
    ALTER TABLE commands DROP COLUMN start;
    """,
    # Counted as they come and go: anybody on this machine may ask for /metrics, and the journal
    # keeps hundreds of thousands of small jobs.
    """
    CREATE TABLE results (              -- how many finished jobs are kept
        result TEXT PRIMARY KEY,
        jobs INTEGER NOT NULL
    ) WITHOUT ROWID;
    INSERT INTO results SELECT result, count(*) FROM jobs WHERE state = 2 GROUP BY result;
    CREATE TRIGGER job_finished AFTER UPDATE OF state ON jobs
    WHEN new.state = 2 AND old.state < 2 BEGIN
        INSERT INTO results VALUES (new.result, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    END;
    CREATE TRIGGER job_removed AFTER DELETE ON jobs WHEN old.state = 2 BEGIN
        UPDATE results SET jobs = jobs - 1 WHERE result = old.result;
    END;
    """,
    # As long as a command is to begin. The padding has each value in pages of its own: what
    # shares a page with others leaves copies there when these move.
    Hiding(
        """
    CREATE TABLE secrets (
        job INTEGER PRIMARY KEY,
        padding BLOB NOT NULL,
        env TEXT NOT NULL               -- JSON object
    );
    INSERT INTO secrets SELECT uid, zeroblob(page_size), env FROM jobs, pragma_page_size
    WHERE env IS NOT NULL AND state < 2;
    UPDATE jobs SET env = (SELECT json_group_object(key, NULL) FROM json_each(jobs.env))
    WHERE env IS NOT NULL;
    """,
        "DELETE FROM secrets",
    ),
    """
    ALTER TABLE commands ADD COLUMN reason TEXT;
    """,
    # Of jobs that a class has queued.
    """
    ALTER TABLE jobs ADD COLUMN setting TEXT;   -- JSON object: environment that is no secret
    ALTER TABLE jobs ADD COLUMN channel TEXT;   -- the variable that names a command's socket
    ALTER TABLE jobs ADD COLUMN log_field TEXT; -- under which its events have its log
    ALTER TABLE jobs ADD COLUMN report TEXT;    -- JSON object: what its class told last
    CREATE INDEX jobs_of_classes ON jobs (event_system, uid) WHERE event_system IS NOT NULL;
    """,
    # Who has queued it; of jobs from before this step nobody knows.
    """
    ALTER TABLE jobs ADD COLUMN account TEXT;
    """,
    # Waiting jobs that a keeper was given ahead of their time.
    """
    CREATE TABLE lent (
        job INTEGER PRIMARY KEY,
        keeper TEXT NOT NULL,
        boot TEXT NOT NULL,             -- in which that was
        mark INTEGER NOT NULL           -- of that one time: us since the boot
    );
    """,
)


class Command(msgspec.Struct, frozen=True):
    """One command of a job. argv: a JSON list. state: pending, running, finished, skipped.

    return_code: 0..255, or minus the signal; None: not ended, never started, or not known.
    reason: what its log would say, if the disk had had room for that. told: bytes of its log
    that events have spoken of while it ran.
    """

    n: int
    argv: str
    text: str
    state: str
    return_code: int | None
    started: int | None
    finished: int | None
    log_size: int | None
    reason: str | None = None
    told: int = 0


class JobRow(msgspec.Struct, frozen=True):
    """What is known of a job but for its commands. env: names only, the values are nobody's
    business.

    fields: what the class that queued it told from the first; report: what it tells now, or
    told at the end, as the text of a JSON object. log_field: under which events have its log.
    account: who queued it; None: not known.
    """

    uid: int
    id: str
    queue: str | None
    state: str
    result: str | None
    created: int
    started: int | None
    finished: int | None
    timeout: float | None
    env: tuple[str, ...]
    cwd: str | None
    key: str | None
    event_system: str | None
    fields: Mapping[str, Any]
    log_field: str | None
    report: str
    account: str | None

    @property
    def reported(self) -> dict[str, Any]:
        """The report as values."""
        return dict(json.loads(self.report))


_ROW: Final = (
    "SELECT uid, id, queue, state, result, created, started, finished, timeout, env, cwd, key,"
    " event_system, fields, log_field, report, account FROM jobs"
)
_COMMAND: Final = (
    "SELECT n, argv, text, state, return_code, started, finished, log_size, reason,"
    " told FROM commands"
)
# Those of several jobs as one row, which is fetched in one go. A number that is no whole one
# may lose digits on its way through JSON.
_ROWS: Final = (
    "SELECT json_group_array(json_array(uid, id, queue, state, result, created, started,"
    " finished, timeout, env, cwd, key, event_system, fields, log_field, report, account))"
    " FROM jobs WHERE event_system IS NULL AND (timeout IS NULL OR timeout = round(timeout))"
    " AND uid IN"
)
_COMMANDS: Final = (
    "SELECT json_group_array(json_array(job, n, argv, text, state, return_code, started,"
    " finished, log_size, reason, told)) FROM (SELECT * FROM commands WHERE n <= ? AND job IN"
)
_decode_rows: Final = msgspec.json.Decoder(list[list[Any]]).decode
# Above any uid, seq and number.
_NO_END: Final = 2**62
# Bound of SQLite's variables in one statement.
_CHUNK: Final = 500


def is_announced(db: Connection, uid: int, n: int) -> bool:
    """Has a keeper taken this command?"""
    query = "SELECT 1 FROM commands WHERE job = ? AND n = ? AND next_at IS NOT NULL"
    return db.execute(query, (uid, n)).fetchone() is not None


def keep_report(db: Connection, uid: int, report: Mapping[str, Any]) -> dict[str, Any]:
    """Remember what is told of a job by its class; what was told before."""
    (before,) = db.execute("SELECT report FROM jobs WHERE uid = ?", (uid,)).fetchone()
    text = json.dumps(report, separators=(",", ":"), ensure_ascii=False)
    db.execute("UPDATE jobs SET report = ? WHERE uid = ?", (text, uid))
    return dict(json.loads(before)) if before else {}


def keep_environment(db: Connection, uid: int, env: Mapping[str, str]) -> None:
    """Remember what a job adds to the environment of its commands; none has yet begun."""
    db.execute(
        "INSERT INTO secrets SELECT ?, zeroblob(page_size), ? FROM pragma_page_size",
        (uid, json.dumps(dict(env))),
    )


def environment(db: Connection, uid: int) -> dict[str, str]:
    """What the job adds to the environment of its commands, until it is forgotten."""
    found = db.execute("SELECT env FROM secrets WHERE job = ?", (uid,)).fetchone()
    return {} if found is None else dict(json.loads(found[0]))


def is_forgotten(db: Connection, uid: int) -> bool:
    """Had the job an environment that is not there any more?

    Where a command of it is still to begin the file is a copy, which never has it.
    """
    query = (
        "SELECT 1 FROM jobs WHERE uid = ? AND env IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM secrets WHERE job = uid)"
    )
    return db.execute(query, (uid,)).fetchone() is not None


def forget_environment(change: Transaction, uid: int) -> None:
    """Nothing of the job begins any more: what it brought as a secret is wiped."""
    change.wiped |= change.db.execute("DELETE FROM secrets WHERE job = ?", (uid,)).rowcount > 0


def row(db: Connection, uid: int) -> JobRow | None:
    """The job of this uid."""
    found = db.execute(f"{_ROW} WHERE uid = ?", (uid,)).fetchone()
    return None if found is None else _row(found)


def small(db: Connection, uids: Sequence[int], most: int) -> list[tuple[JobRow, list[Command]]]:
    """Those of these jobs, at most some hundred, that no class has queued and that have at most
    so many commands; of one with another timeout than whole seconds nothing."""
    marks = _marks(uids)
    (text,) = db.execute(f"{_ROWS} ({marks})", tuple(uids)).fetchone()
    jobs = [_row(found) for found in _decode_rows(text)]
    (text,) = db.execute(f"{_COMMANDS} ({marks}) ORDER BY job, n)", (most, *uids)).fetchone()
    commands: dict[int, list[Command]] = {job.uid: [] for job in jobs}
    for uid, *found in _decode_rows(text):
        if uid in commands:
            commands[uid].append(_command(found))
    # Numbers begin at 0: of one with more commands there is one too many.
    return [(job, commands[job.uid]) for job in jobs if len(commands[job.uid]) <= most]


def newest(db: Connection, id: str) -> JobRow | None:
    """The youngest job that has, or had, this id."""
    found = db.execute(f"{_ROW} WHERE id = ? ORDER BY uid DESC LIMIT 1", (id,)).fetchone()
    return None if found is None else _row(found)


def commands(db: Connection, uid: int, first: int = 0, last: int = -1) -> list[Command]:
    """A job's commands from number `first` to `last`, -1: to its last one."""
    rows = db.execute(
        f"{_COMMAND} WHERE job = ? AND n BETWEEN ? AND ? ORDER BY n",
        (uid, first, last if last >= 0 else _NO_END),
    )
    return [_command(found) for found in rows]


def _command(found: Sequence[Any]) -> Command:
    n, argv, text, state, *rest = found
    return Command(n, argv, text, STATES[int(state)], *rest)


def texts(db: Connection, uid: int) -> list[str]:
    """The texts of a job's commands."""
    rows = db.execute("SELECT text FROM commands WHERE job = ? ORDER BY n", (uid,))
    return [text for (text,) in rows]


def active_jobs(db: Connection, after: int | None = None) -> Generator[JobRow]:
    """Jobs that are not finished, oldest first, read as they are taken.

    after: the uid of the last one seen.
    """
    yield from map(
        _row, db.execute(f"{_ROW} WHERE state < 2 AND uid > ? ORDER BY uid", (after or 0,))
    )


def finished_jobs(db: Connection, after: int | None = None) -> Generator[JobRow]:
    """Finished jobs, the last to finish first, read as they are taken.

    after: the uid of the last one seen.
    """
    before = _NO_END
    if after is not None:
        found = db.execute("SELECT last_seq FROM jobs WHERE uid = ?", (after,)).fetchone()
        # A job that retention has taken meanwhile was the oldest: nothing is behind it.
        before = found[0] if found and found[0] is not None else 0
    query = f"{_ROW} WHERE state = 2 AND last_seq < ? ORDER BY last_seq DESC"
    yield from map(_row, db.execute(query, (before,)))


def of_class(db: Connection, event_system: str, most: int) -> list[JobRow]:
    """Jobs that this class has queued, the newest first, at most so many."""
    query = f"{_ROW} WHERE event_system = ? ORDER BY uid DESC LIMIT ?"
    return [_row(found) for found in db.execute(query, (event_system, most))]


def waiting_of_classes(db: Connection, most: int) -> list[JobRow]:
    """Jobs of classes that were not started, oldest first, at most so many."""
    query = (
        f"{_ROW} WHERE state < 2 AND state = 0 AND event_system IS NOT NULL"
        " ORDER BY uid LIMIT ?"
    )
    return [_row(found) for found in db.execute(query, (most,))]


def results(db: Connection) -> dict[str, int]:
    """How many finished jobs are kept, by result."""
    return dict(db.execute("SELECT result, jobs FROM results WHERE jobs > 0"))


def ended_after(db: Connection, seq: int, most: int) -> list[tuple[str | None, str, int]]:
    """Queue, result and last seq of jobs that finished after this seq, in order, and no more
    than so many."""
    rows = db.execute(
        "SELECT queue, result, last_seq FROM jobs WHERE state = 2 AND last_seq > ?"
        " ORDER BY last_seq LIMIT ?",
        (seq, most),
    )
    return rows.fetchall()


def queue_marks(db: Connection) -> dict[str | None, tuple[bool, bool]]:
    """For every queue that was ever used or paused: is it paused, was it used."""
    rows = db.execute("SELECT name, paused, used FROM queues")
    return {name or None: (bool(paused), bool(used)) for name, paused, used in rows}


def paused_queues(db: Connection) -> frozenset[str | None]:
    """Those that start nothing, whatever may still be on its way into memory."""
    rows = db.execute("SELECT name FROM queues WHERE paused")
    return frozenset(name or None for (name,) in rows)


def excess(db: Connection, most: int) -> int:
    """Up to which seq events are the last ones of finished jobs beyond the newest `most`; -1:
    there are no more of them."""
    query = "SELECT last_seq FROM jobs WHERE state = 2 ORDER BY last_seq DESC LIMIT 1 OFFSET ?"
    row = db.execute(query, (most,)).fetchone()
    return int(row[0]) if row else -1


def prune_finished(change: Transaction, most: int, pruned_seq: int, old_seq: int) -> list[int]:
    """Take records of finished jobs that are too old or too many; returns their uids.

    most: how many are kept. old_seq: up to which seq events are as old as jobs may become. Of
    those only whose last event is gone from the journal (seq <= pruned_seq), and at most some
    hundred; call again until none is left. The caller deletes the logs (remove_logs).
    """
    upto = min(pruned_seq, max(excess(change.db, most), old_seq))
    rows = change.db.execute(
        "SELECT uid FROM jobs WHERE state = 2 AND last_seq <= ? ORDER BY last_seq LIMIT ?",
        (upto, _CHUNK),
    ).fetchall()
    uids = [uid for (uid,) in rows]
    change.db.execute(f"DELETE FROM commands WHERE job IN ({_marks(uids)})", uids)
    change.db.execute(f"DELETE FROM jobs WHERE uid IN ({_marks(uids)})", uids)
    return uids


def remove_logs(state_dir: Path, uids: Iterable[int]) -> None:
    """Delete the logs of jobs whose records are gone. For a thread: it may be slow."""
    logs.remove(state_dir, uids)


def unknown(db: Connection, uids: Iterable[int]) -> list[int]:
    """Those of these uids that no record has (any more)."""
    gone = set(uids)
    wanted = sorted(gone)
    for at in range(0, len(wanted), _CHUNK):
        some = wanted[at : at + _CHUNK]
        query = f"SELECT uid FROM jobs WHERE uid IN ({_marks(some)})"
        gone.difference_update(uid for (uid,) in db.execute(query, some))
    return sorted(gone)


def _row(found: Sequence[Any]) -> JobRow:
    """A job's row. Raises: msgspec.DecodeError if it is not as it was written: the state file
    is damaged then, and is told to be."""
    try:
        return _read(found)
    except (TypeError, ValueError, LookupError) as error:
        raise msgspec.DecodeError(f"the row of a job makes no sense: {error}") from error


def _read(found: Sequence[Any]) -> JobRow:
    uid, id, queue, state, result, created, started, finished, timeout = found[:9]
    env, cwd, key, event_system, fields, log_field, report, account = found[9:]
    return JobRow(
        uid=uid,
        id=id,
        queue=queue,
        state=STATES[int(state)],
        result=result,
        created=created,
        started=started,
        finished=finished,
        timeout=timeout,
        env=tuple(json.loads(env)) if env else (),
        cwd=cwd,
        key=key,
        event_system=event_system,
        fields=json.loads(fields) if fields else {},
        log_field=log_field,
        report=report or "{}",
        account=account,
    )


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))
