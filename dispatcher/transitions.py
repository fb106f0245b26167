"""What happens to jobs, as changes of the tables: state and event always in one transaction.

All of it runs in the store's writer thread: no process, no waiting, of files only whether a log
is there. What became of a command is decided in dispatcher/fate.py, of what the row and the
keeper's book say, and is done here, in the transaction in which the row was read: so what is
heard twice is done once. A book is believed only of commands that were given to its keeper.

What a state is compared with is written out, never a question mark: SQLite would prepare such a
statement anew each time, since one of the indices of some states might then be of use.
"""
# ruff: noqa: S608 - the texts of statements are put together of constants alone

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final

from dispatcher import lent, records
from dispatcher.events import tell
from dispatcher.fate import Ended, Known, Open, Pair, Skipped, judge
from dispatcher.lent import AHEAD, MOST, QUICK_MS, Terms
from dispatcher.logs import LogFiles
from dispatcher.queue import Queues
from dispatcher.records import FINISHED, PENDING, RUNNING, SKIPPED
from dispatcher.reports import Fields
from dispatcher.rows import (
    Program,
    RunningCommand,
    Spoken,
    program,
    running_command,
    sort_lines,
)
from dispatcher.steps import (
    NO_ENDINGS,
    Endings,
    Facts,
    Finding,
    Now,
    Orphan,
    Outcome,
    Promoted,
    Start,
)
from dispatcher.words import Dead, End, Fact, Job
from sysadmd.journal import Transaction

# Who keeps a command whose end nobody will tell, though its keeper may live.
NOBODY: Final = "nobody"


def finish_job(
    change: Transaction,
    now: Now,
    uid: int,
    result: str,
    finished: int | None = None,
    *,
    rest: bool = True,
    secrets: bool = True,
) -> None:
    """The job's end; commands that were not run are skipped.

    rest: there may be some; secrets: it may have brought any.
    """
    if rest:
        change.db.execute(
            f"UPDATE commands SET state = {SKIPPED} WHERE job = ? AND state = {PENDING}", (uid,)
        )
    seq = tell(change, now.wall, uid, "finished")
    change.db.execute(
        f"UPDATE jobs SET state = {FINISHED}, result = ?, finished = ?, last_seq = ?"
        " WHERE uid = ?",
        (result, finished or now.ms, seq, uid),
    )
    if secrets:
        records.forget_environment(change, uid)


def mark(change: Transaction, uid: int, ending: str) -> int | None:
    """Decide, before anything is done, that a running job ends so: its present command's
    number.

    That is the last one that can have begun. None: the job does not run. If it was decided
    before, it stays so.
    """
    change.db.execute(
        f"UPDATE jobs SET ending = ? WHERE uid = ? AND state = {RUNNING} AND ending IS NULL",
        (ending, uid),
    )
    row = change.db.execute(
        f"SELECT n FROM commands WHERE job = ? AND state = {RUNNING}", (uid,)
    ).fetchone()
    return int(row[0]) if row else None


def progress(
    change: Transaction, now: Now, uid: int, n: int, end: int, fields: Fields | None = None
) -> bool:
    """Tell that a running command's log has grown to `end`, or of what its class has to tell.
    False: nothing to tell any more."""
    row = change.db.execute(
        f"SELECT told FROM commands WHERE job = ? AND n = ? AND state = {RUNNING}", (uid, n)
    ).fetchone()
    if row is None or (row[0] >= end and fields is None):
        return False
    end = max(end, row[0])
    change.db.execute("UPDATE commands SET told = ? WHERE job = ? AND n = ?", (end, uid, n))
    more: dict[str, object] = {"from": row[0], "to": end}
    if fields is not None:
        before = records.keep_report(change.db, uid, fields)
        # What is long is told when it has changed; the record has it meanwhile.
        more["fields"] = {
            key: value
            for key, value in fields.items()
            if not isinstance(value, list) or value != before.get(key)
        }
    tell(change, now.wall, uid, "running", command=n, **more)
    return True


class Advance:
    """One step forward of everything: book what the keepers wrote, start what may start."""

    def __init__(
        self,
        change: Transaction,
        now: Now,
        keeper: str | None,
        logs: LogFiles,
        is_this_boot: Callable[[str], bool],
        endings: Endings = NO_ENDINGS,
    ) -> None:
        """keeper: who starts commands; None: nobody can just now."""
        self._change = change
        self._db = change.db
        self._now = now
        self._keeper = keeper
        self._logs = logs
        self._is_this_boot = is_this_boot
        self._endings = endings
        self._paused: frozenset[str | None] | None = None
        # Queues of which a job has just ended that did not run long.
        self._quick: set[str | None] = set()
        self.outcome = Outcome()

    def facts(self, facts: Facts) -> None:
        """Book the lines of one keeper and how far its book is worked in."""
        said, pair = sort_lines(facts.lines, facts.pair)
        # The guard says that the keeper is dead when it has looked for what may have begun.
        sought = pair is not facts.pair
        for job, is_first, is_last in _words(facts.lines):
            lines = said[job]
            if is_first and job[1] == 0:
                self._hear_of_lent(job[0], facts.keeper, lines)
            row = running_command(self._db, *job) if is_last else None
            if row is not None and row.keeper == facts.keeper:
                self._weigh(row, lines, pair, alive=facts.alive, sought=sought)
        if pair is not Pair.STARTS:
            for uid, boot in lent.of_keeper(self._db, facts.keeper):
                # It was not announced; after a loss of power that says nothing.
                if (facts.alive or self._is_this_boot(boot)) and not (
                    pair is Pair.OVER and self._logs.may_have_begun(uid, 0)
                ):
                    self._give_back(uid, facts.keeper)
                else:
                    self._promote(uid, facts.keeper, Spoken())
            for uid, n in self._db.execute(
                f"SELECT job, n FROM commands WHERE keeper = ? AND state = {RUNNING}"
                " ORDER BY job",
                (facts.keeper,),
            ).fetchall():
                row = running_command(self._db, uid, n)
                if row is not None and row.keeper == facts.keeper:
                    self._weigh(row, Spoken(), pair, alive=facts.alive, sought=sought)
        if pair is Pair.OVER:
            self._db.execute("DELETE FROM books WHERE keeper = ?", (facts.keeper,))
        else:
            place = (facts.generation, facts.position, facts.keeper)
            # Most of the time it is there: to replace it would change its index, too.
            update = "UPDATE books SET generation = ?, position = ? WHERE keeper = ?"
            if not self._db.execute(update, place).rowcount:
                self._db.execute(
                    "INSERT INTO books (generation, position, keeper) VALUES (?, ?, ?)", place
                )

    def finding(self, finding: Finding) -> None:
        """Book what was found without a book."""
        row = running_command(self._db, finding.uid, finding.n)
        if row is not None:
            pair = Pair.OVER if finding.gone else Pair.STARTS
            said = Spoken(barred=finding.barred)
            self._weigh(row, said, pair, gone=finding.gone)

    def unsent(self, uid: int, n: int) -> None:
        """Start a running command that no keeper was given."""
        row = running_command(self._db, uid, n)
        if row is not None and row.keeper is None:
            self._weigh(row, Spoken(), Pair.OVER)

    def start(self, queues: Queues, terms: Terms | None = None) -> None:
        """Start the jobs that may start once those just finished are gone, and lend those
        behind them; none of a queue whose pause is committed before, though nobody was told.

        queues: before any of this. terms: None: nothing can be lent.
        """
        if self._keeper is None:
            return
        outcome = self.outcome
        for command in outcome.promoted:
            queues = queues.begin(command.queue, command.uid)
        if outcome.returned:
            queues = queues.give_back(outcome.returned)
        for queue, uid in outcome.finished:
            queues = queues.finish(queue, uid)
        queues, ready = queues.start_ready()
        for queue, uid in ready:
            self._start_job(queue, uid)
        if terms is not None:
            self._lend(queues, terms)

    def _weigh(
        self,
        row: RunningCommand,
        said: Spoken,
        pair: Pair,
        *,
        alive: bool = False,
        gone: bool = False,
        sought: bool = False,
    ) -> None:
        """Have a command judged, and do what follows."""
        told, row = row, row.with_lines(said)
        begun = row.identity is not None
        end = said.end
        has_ended = end is not None and (begun or end.begun)
        fate = judge(
            Known(
                pair=pair,
                announced=row.next_at is not None,
                begun=begun,
                code=end.code if end is not None and has_ended else None,
                unknown=end is not None and has_ended and end.code is None,
                unbegun=end is not None and not has_ended,
                barred=said.barred,
                left=said.left,
                gone=gone,
                log=pair in (Pair.DEAD, Pair.OVER)
                and not sought
                and self._logs.may_have_begun(row.uid, row.n),
                ending=row.ending,
                same_boot=alive or self._is_this_boot(row.boot),
                last=row.last,
                forgotten=row.secrets and records.is_forgotten(self._db, row.uid),
            )
        )
        if isinstance(fate, Ended):
            self._end(row, fate, end)
        elif isinstance(fate, Skipped):
            # That it was about to start has been told: its time stays.
            self._db.execute(
                f"UPDATE commands SET state = {SKIPPED} WHERE job = ? AND n = ?",
                (row.uid, row.n),
            )
            self._finish(row, fate.result)
            self.outcome.cut.append(row.uid)
        elif fate is Open.AGAIN:
            self._again(row)
        elif row != told:
            self._remember_process(row)
        if fate is Open.WATCH and row.identity is not None:
            self.outcome.orphans.append(Orphan(row.uid, row.n, row.identity))
            # Remembered, for who comes after us.
            self._db.execute(
                "UPDATE commands SET keeper = ? WHERE job = ? AND n = ?",
                (NOBODY, row.uid, row.n),
            )

    def _remember_process(self, row: RunningCommand) -> None:
        self._db.execute(
            "UPDATE commands SET next_at = ?, began_at = ?, pid = ? WHERE job = ? AND n = ?",
            (row.next_at, row.began_at, row.pid, row.uid, row.n),
        )
        if row.identity is not None:
            self.outcome.began.append((row.uid, row.n, row.identity))
            if row.last and row.secrets:
                records.forget_environment(self._change, row.uid)

    def _again(self, row: RunningCommand) -> None:
        """Start it once more: nothing of it has begun."""
        # A log of it was made by a process that then died. A kill's can't be meant: its mark
        # comes before it, and is none of this row's.
        self._logs.forget(row.uid, row.n)
        self._db.execute(
            "UPDATE commands SET keeper = ?, next_at = NULL, began_at = NULL, pid = NULL"
            " WHERE job = ? AND n = ?",
            (self._keeper, row.uid, row.n),
        )
        again = program(self._db, row.uid, row.n)
        assert again is not None
        self._hand_over(again, again.deadline)

    def _end(self, row: RunningCommand, fate: Ended, end: End | None) -> None:
        at = self._now.ms if end is None or end.time is None else round(end.time * 1000)
        size = None if end is None else end.size
        if size is None:
            size = self._logs.size(row.uid, row.n)
        if size is None:
            size = row.told
        self._db.execute(
            f"UPDATE commands SET state = {FINISHED}, return_code = ?, finished = ?,"
            " log_size = ?, reason = ? WHERE job = ? AND n = ?",
            (fate.code, at, size, end and end.reason, row.uid, row.n),
        )
        if fate.result is None:
            following = program(self._db, row.uid, row.n + 1)
            assert following is not None
            self._start_command(following, following.deadline)
        else:
            self._finish(row, fate.result, at)
            if end is None or not (end.begun and row.last):
                self.outcome.cut.append(row.uid)
            elif row.next_at is not None and at - self._wall_ms(row.next_at) < QUICK_MS:
                self._quick.add(row.queue)

    def _finish(self, row: RunningCommand, result: str, at: int | None = None) -> None:
        ending = self._endings.get(row.uid)
        if ending is not None:
            records.keep_report(self._db, row.uid, ending(result))
        finish_job(
            *(self._change, self._now, row.uid, result, at),
            rest=not row.last,
            secrets=row.secrets,
        )
        self.outcome.finished.append((row.queue, row.uid))

    def _start_job(self, queue: str | None, uid: int) -> None:
        if self._is_paused(queue):
            self.outcome.paused.add(queue)
            return
        first = program(self._db, uid, 0)
        if first is None or first.state != PENDING:
            return
        deadline = self._begin_job(first, self._now.boot, self._now.boot_id)
        if first.secrets and records.is_forgotten(self._db, uid):
            finish_job(self._change, self._now, uid, "lost")
            self.outcome.withdrawn.append((queue, uid))
        else:
            self._start_command(first, deadline)

    def _is_paused(self, queue: str | None) -> bool:
        if self._paused is None:
            self._paused = records.paused_queues(self._db)
        return queue in self._paused

    def _begin_job(self, first: Program, at: float, boot_id: str) -> float | None:
        """Its job runs, since `at` by the boot clock; until when it may."""
        deadline = None if first.timeout is None else first.timeout + at
        self._db.execute(
            f"UPDATE jobs SET state = {RUNNING}, started = ?, boot = ?, deadline = ?"
            " WHERE uid = ?",
            (self._wall_ms(at), boot_id, deadline, first.uid),
        )
        return deadline

    def _start_command(self, command: Program, deadline: float | None) -> None:
        self._begin_command(command, self._now.boot, self._keeper)
        self._hand_over(command, deadline)

    def _begin_command(self, command: Program, at: float, keeper: str | None) -> None:
        """It runs, and this keeper has it."""
        self._db.execute(
            f"UPDATE commands SET state = {RUNNING}, started = ?, keeper = ?"
            " WHERE job = ? AND n = ?",
            (self._wall_ms(at), keeper, command.uid, command.n),
        )
        tell(self._change, self._now.wall, command.uid, "running", command=command.n)

    def _hand_over(self, command: Program, deadline: float | None) -> None:
        if self._keeper is None:
            self.outcome.unsent.append((command.uid, command.n))
            return
        env = records.environment(self._db, command.uid) if command.secrets else {}
        if command.setting:
            env = {**json.loads(command.setting), **env}
        self.outcome.starts.append(_order(command, env, deadline))

    def _lend(self, queues: Queues, terms: Terms) -> None:
        """Give the keeper what comes next where jobs are short."""
        new = {start.uid for start in self.outcome.starts}
        for queue in self._quick:
            lane = queues.lanes.get(queue)
            if lane is None or not terms.allow(queue, lane.running, new):
                continue
            uids = lane.next_to_lend(min(AHEAD * lane.limit, MOST))
            if not uids or self._is_paused(queue):
                continue
            for uid in uids:
                first = program(self._db, uid, 0)
                if first is None or first.state != PENDING or not _is_plain(first):
                    break
                assert self._keeper is not None
                now = self._now
                moment = round(now.boot * 1e6)
                lent.lend(self._db, uid, self._keeper, now.boot_id, moment)
                self.outcome.lent.append(replace(_order(first, {}, None), mark=moment))

    def _hear_of_lent(self, uid: int, keeper: str, said: Spoken) -> None:
        """A book speaks of a job's first command: if that is lent to its keeper, it waits as
        before, or has its turn. One that could not be begun has an end alone."""
        if said.returned is not None:
            self._give_back(uid, keeper, said.returned.mark)
        if said.has_turn:
            self._promote(uid, keeper, said)

    def _give_back(self, uid: int, keeper: str, mark: int | None = None) -> None:
        """It waits as before."""
        if lent.take_back(self._db, uid, keeper, mark) is not None:
            self.outcome.returned.append(uid)

    def _promote(self, uid: int, keeper: str, said: Spoken) -> None:
        """If it is lent to this keeper, that has begun it, or may have: it runs."""
        boot = lent.take_back(self._db, uid, keeper)
        first = None if boot is None else program(self._db, uid, 0)
        if boot is None or first is None or first.state != PENDING:
            return
        at, now = self._now.boot, self._now
        if said.following is not None and self._is_this_boot(boot):
            at = min(at, said.following.at)
        elif said.end is not None and said.end.time is not None:
            # That may be long ago, before this boot.
            at = min(at, now.boot - (now.wall - said.end.time))
        deadline = self._begin_job(first, at, boot)
        self._begin_command(first, at, keeper)
        self.outcome.promoted.append(Promoted(uid, first.queue, deadline))

    def _wall_ms(self, at: float) -> int:
        """A time of the boot clock, ms since 1970."""
        return round((self._now.wall - (self._now.boot - at)) * 1000)


def _words(lines: Iterable[Fact]) -> Iterator[tuple[Job, bool, bool]]:
    """The commands of which a book speaks: is it the first time, the last? In that order they
    begin and end."""
    named = [line.job for line in lines if not isinstance(line, Dead)]
    last = {job: place for place, job in enumerate(named)}
    known: set[Job] = set()
    for place, job in enumerate(named):
        yield job, job not in known, last[job] == place
        known.add(job)


def _is_plain(first: Program) -> bool:
    """May it be lent? It brings no secret, and no class hears what it says."""
    return not (first.secrets or first.event_system or first.channel)


def _order(command: Program, env: dict[str, str], deadline: float | None) -> Start:
    return Start(
        *(command.uid, command.n, command.queue, json.loads(command.argv), env),
        *(command.cwd or "/", deadline, command.event_system, command.channel, command.last),
    )
