"""What happens to jobs, as changes of the tables: state and event always in one transaction.

All of it runs in the store's writer thread: no process, no waiting, of files at most a log's
size. The keepers' books are believed only of commands that were given to that very keeper and
have not ended: so reading a line twice does nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dispatcher.book import Line
from dispatcher.events import tell
from dispatcher.identity import TICK, Identity
from dispatcher.queue import Queues
from dispatcher.records import FINISHED, PENDING, RUNNING, SKIPPED
from sysadmd.journal import Transaction


@dataclass(frozen=True, slots=True)
class Now:
    """The moment of a change. wall: s since 1970; boot: s since boot."""

    wall: float
    boot: float
    boot_id: str

    @property
    def ms(self) -> int:
        return round(self.wall * 1000)


@dataclass(frozen=True, slots=True)
class Facts:
    """New lines of a keeper's book, and where it will have been read to.

    settle: the keeper starts nothing of what it has not yet written `next` for. over: guard and
    keeper are dead, the book is at its end.
    """

    keeper: str
    lines: Sequence[Line]
    generation: int
    position: int
    settle: bool = False
    over: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of a command of which no book can tell any more.

    started: False: it never was, and is to be started. size: of its log.
    """

    uid: int
    n: int
    started: bool
    size: int


@dataclass(frozen=True, slots=True)
class Start:
    """A command that may now be started: committed as running, given to a keeper."""

    uid: int
    n: int
    queue: str | None
    argv: list[str]
    env: dict[str, str]
    cwd: str
    deadline: float | None


@dataclass(frozen=True, slots=True)
class Orphan:
    """A command whose guard and keeper are dead.

    identity: None: it is not known if it ever began. since: it did not before this, by the boot
    clock.
    """

    uid: int
    n: int
    identity: Identity | None
    since: float


@dataclass(slots=True)
class Outcome:
    """What a change led to, for the memory of the daemon; true once it is committed."""

    starts: list[Start] = field(default_factory=list[Start])
    unsent: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    began: list[tuple[int, int, Identity]] = field(
        default_factory=list[tuple[int, int, Identity]]
    )
    finished: list[tuple[str | None, int]] = field(default_factory=list[tuple[str | None, int]])
    orphans: list[Orphan] = field(default_factory=list[Orphan])


def finish_job(
    change: Transaction, now: Now, uid: int, result: str, finished: int | None = None
) -> None:
    """The job's end; commands that were not run are skipped."""
    change.db.execute(
        "UPDATE commands SET state = ? WHERE job = ? AND state = ?", (SKIPPED, uid, PENDING)
    )
    seq = tell(change, now.wall, uid, "finished")
    change.db.execute(
        "UPDATE jobs SET state = ?, result = ?, finished = ?, last_seq = ? WHERE uid = ?",
        (FINISHED, result, finished or now.ms, seq, uid),
    )


def mark(change: Transaction, uid: int, ending: str) -> bool:
    """Decide, before the first signal, that a running job ends so. False: it is decided."""
    return (
        change.db.execute(
            "UPDATE jobs SET ending = ? WHERE uid = ? AND state = ? AND ending IS NULL",
            (ending, uid, RUNNING),
        ).rowcount
        == 1
    )


def progress(change: Transaction, now: Now, uid: int, n: int, end: int) -> bool:
    """Tell that a running command's log has grown to `end`. False: nothing to tell any more."""
    row = change.db.execute(
        "SELECT told FROM commands WHERE job = ? AND n = ? AND state = ?", (uid, n, RUNNING)
    ).fetchone()
    if row is None or row[0] >= end:
        return False
    change.db.execute("UPDATE commands SET told = ? WHERE job = ? AND n = ?", (end, uid, n))
    tell(change, now.wall, uid, "running", command=n, **{"from": row[0], "to": end})
    return True


class Advance:
    """One step forward of everything: book what the keepers wrote, start what may start."""

    def __init__(
        self,
        change: Transaction,
        now: Now,
        keeper: str | None,
        log_size: Callable[[int, int], int | None],
    ) -> None:
        self._change = change
        self._db = change.db
        self._now = now
        # Who starts the commands; None: nobody can just now.
        self._keeper = keeper
        self._log_size = log_size
        self.outcome = Outcome()

    def facts(self, facts: Facts) -> None:
        """Book the lines of one keeper and how far its book is worked in."""
        ended = {tuple(line["end"]) for line in facts.lines if "end" in line}
        for line in facts.lines:
            self._line(facts.keeper, line, ended)
        if facts.settle:
            self._settle(facts.keeper)
        if facts.over:
            self._give_up(facts.keeper)
            self._db.execute("DELETE FROM books WHERE keeper = ?", (facts.keeper,))
        else:
            self._db.execute(
                "INSERT OR REPLACE INTO books VALUES (?, ?, ?)",
                (facts.keeper, facts.generation, facts.position),
            )

    def verdict(self, verdict: Verdict) -> None:
        """Book what was found without a book."""
        if verdict.started:
            self._end(verdict.uid, verdict.n, None, self._now.ms, verdict.size)
        else:
            self.again(verdict.uid, verdict.n)

    def again(self, uid: int, n: int) -> None:
        """Start a running command that no keeper has started."""
        row = self._db.execute(
            "SELECT ending, queue FROM jobs JOIN commands ON job = uid"
            " WHERE uid = ? AND n = ? AND commands.state = ?",
            (uid, n, RUNNING),
        ).fetchone()
        if row is None:
            return
        ending, queue = row
        if ending:
            # That it was about to start has been told: its time stays.
            self._db.execute(
                "UPDATE commands SET state = ? WHERE job = ? AND n = ?", (SKIPPED, uid, n)
            )
            self._finish(uid, queue, ending)
            return
        self._db.execute(
            "UPDATE commands SET keeper = ?, next_at = NULL, began_at = NULL, pid = NULL,"
            " start = NULL WHERE job = ? AND n = ?",
            (self._keeper, uid, n),
        )
        self._hand_over(uid, n)

    def start(self, queues: Queues, starting: Iterable[tuple[str | None, int]]) -> None:
        """Start these jobs, and those that may start once the ones just finished are gone.

        queues: with `starting` running already.
        """
        for _, uid in starting:
            self._start_job(uid)
        if self._keeper is None or not self.outcome.finished:
            return
        for queue, uid in self.outcome.finished:
            queues = queues.finish(queue, uid)
        for _, uid in queues.start_ready()[1]:
            self._start_job(uid)

    def _line(self, keeper: str, line: Line, ended: set[tuple[int, ...]]) -> None:
        if "end" in line:
            uid, n = line["end"]
            if self._is_running_at(keeper, uid, n):
                self._end(uid, n, line["code"], round(line["time"] * 1000), line["size"])
        elif "next" in line:
            uid, n = line["next"]
            if (uid, n) not in ended:
                self._db.execute(
                    "UPDATE commands SET next_at = ? WHERE job = ? AND n = ? AND keeper = ?"
                    " AND state = ?",
                    (line["at"], uid, n, keeper, RUNNING),
                )
        elif "began" in line:
            uid, n = line["began"]
            if (uid, n) not in ended:
                self._began(keeper, uid, n, line["pid"], line["start"], line["at"])
        elif "orphan" in line:
            self._orphan_end(keeper, line)
        elif "dead" in line:
            self._dead(keeper, line)

    def _is_running_at(self, keeper: str, uid: int, n: int) -> bool:
        return (
            self._db.execute(
                "SELECT 1 FROM commands WHERE job = ? AND n = ? AND keeper = ? AND state = ?",
                (uid, n, keeper, RUNNING),
            ).fetchone()
            is not None
        )

    def _began(
        self, keeper: str, uid: int, n: int, pid: int, start: float | None, at: float
    ) -> None:
        row = self._db.execute(
            "UPDATE commands SET pid = ?, start = ?, began_at = ?"
            " WHERE job = ? AND n = ? AND keeper = ? AND state = ? RETURNING next_at",
            (pid, start, at, uid, n, keeper, RUNNING),
        ).fetchone()
        if row is not None:
            self.outcome.began.append((uid, n, Identity(pid, start, row[0], at)))

    def _orphan_end(self, keeper: str, line: Line) -> None:
        row = self._db.execute(
            "SELECT job, n, start FROM commands WHERE keeper = ? AND state = ? AND pid = ?",
            (keeper, RUNNING, line["orphan"]),
        ).fetchone()
        if row is None:
            return
        uid, n, start = row
        if start is None or line["start"] is None or abs(start - line["start"]) < TICK / 2:
            self._end(uid, n, line["code"], round(line["time"] * 1000), self._log_size(uid, n))

    def _dead(self, keeper: str, line: Line) -> None:
        """The guard's list of what the dead keeper left: which of it was being started?"""
        if line["children"] is None:
            return
        rows = self._db.execute(
            "SELECT job, n, next_at, pid FROM commands WHERE keeper = ? AND state = ?"
            " AND next_at IS NOT NULL",
            (keeper, RUNNING),
        ).fetchall()
        known = {pid for _, _, _, pid in rows if pid is not None}
        for uid, n, next_at, pid in rows:
            if pid is not None:
                continue
            found = candidates(line["children"], known, next_at, f"/jobs/{uid}/{n}.log")
            if not found:
                self.again(uid, n)
            elif len(found) == 1:
                self._began(keeper, uid, n, *found[0], line["at"])
            # Else nobody can say which one it is: its code will not be known.

    def _settle(self, keeper: str) -> None:
        """Take back what this keeper was given and will never start."""
        for uid, n in self._db.execute(
            "SELECT job, n FROM commands WHERE keeper = ? AND state = ? AND next_at IS NULL",
            (keeper, RUNNING),
        ).fetchall():
            self.again(uid, n)

    def _give_up(self, keeper: str) -> None:
        """Nobody writes in this book any more: what runs has to be looked after directly."""
        self.outcome.orphans += orphans(self._change, keeper)

    def _end(self, uid: int, n: int, code: int | None, at: int, size: int | None) -> None:
        """A command's end. code: None: not known. size: None: its log is gone."""
        ending, queue, told = self._db.execute(
            "SELECT ending, queue, told FROM jobs JOIN commands ON job = uid"
            " WHERE uid = ? AND n = ?",
            (uid, n),
        ).fetchone()
        self._db.execute(
            "UPDATE commands SET state = ?, return_code = ?, finished = ?, log_size = ?"
            " WHERE job = ? AND n = ?",
            (FINISHED, code, at, told if size is None else size, uid, n),
        )
        if code == 0 and not ending and self._start_command(uid, n + 1):
            return
        result = "lost" if code is None else "succeeded" if code == 0 else "failed"
        self._finish(uid, queue, ending or result, at)

    def _finish(
        self, uid: int, queue: str | None, result: str, finished: int | None = None
    ) -> None:
        finish_job(self._change, self._now, uid, result, finished)
        self.outcome.finished.append((queue, uid))

    def _start_job(self, uid: int) -> None:
        now = self._now
        started = self._db.execute(
            "UPDATE jobs SET state = ?, started = ?, boot = ?, deadline = timeout + ?"
            " WHERE uid = ? AND state = ?",
            (RUNNING, now.ms, now.boot_id, now.boot, uid, PENDING),
        ).rowcount
        if started:
            self._start_command(uid, 0)

    def _start_command(self, uid: int, n: int) -> bool:
        """False: the job has no such command."""
        started = self._db.execute(
            "UPDATE commands SET state = ?, started = ?, keeper = ? WHERE job = ? AND n = ?",
            (RUNNING, self._now.ms, self._keeper, uid, n),
        ).rowcount
        if started:
            tell(self._change, self._now.wall, uid, "running", command=n)
            self._hand_over(uid, n)
        return bool(started)

    def _hand_over(self, uid: int, n: int) -> None:
        if self._keeper is None:
            self.outcome.unsent.append((uid, n))
            return
        argv, env, cwd, queue, deadline = self._db.execute(
            "SELECT argv, env, cwd, queue, deadline FROM jobs JOIN commands ON job = uid"
            " WHERE uid = ? AND n = ?",
            (uid, n),
        ).fetchone()
        self.outcome.starts.append(
            Start(
                uid,
                n,
                queue,
                json.loads(argv),
                json.loads(env) if env else {},
                cwd or "/",
                deadline,
            )
        )


def candidates(
    children: Iterable[Sequence[Any]], known: set[int], next_at: float, log: str
) -> list[tuple[int, float | None]]:
    """Which of a dead keeper's children may be the command that it was about to start.

    It leads its group from the exec on, is not another known command, is not older than the
    keeper's word that it comes next, and does not write to the log of another command.
    """
    possible: list[tuple[int, float | None]] = []
    certain: list[tuple[int, float | None]] = []
    for pid, start, leads, output, _ in children:
        if not leads or pid in known or (start is not None and start < next_at - 2 * TICK):
            continue
        path = (output or "").removesuffix(" (deleted)")
        if path.endswith(log):
            certain.append((pid, start))
        elif "/jobs/" not in path or not path.endswith(".log"):
            possible.append((pid, start))
    return certain or possible


def orphans(change: Transaction, keeper: str | None) -> list[Orphan]:
    """Commands that run, as far as the tables know, given to this keeper."""
    found: list[Orphan] = []
    for uid, n, pid, start, next_at, began_at in change.db.execute(
        "SELECT job, n, pid, start, next_at, began_at FROM commands"
        " WHERE keeper IS ? AND state = ?",
        (keeper, RUNNING),
    ):
        identity = None if pid is None else Identity(pid, start, next_at, began_at)
        found.append(Orphan(uid, n, identity, next_at or 0.0))
    return found
