"""What becomes of a command: the rule alone, and the tables in a small world where all may die.

Real are the tables and all that changes them. The world around is played, a step at a time and
in any order: a daemon that takes turns; keepers, guards and starters that write books;
commands; a machine that goes down. It knows what truly happened, so it can tell if the tables
ever say, or lead to, anything else. Left out are generations of books, starters that serve one
command after another, keepers that can't make one, and what is peculiar to a full disk: endings
that can't be written, a keeper before all old books are read.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
)

from dispatcher import acceptance, book, lent, records, transitions, words
from dispatcher.ahead import Ahead, Ordered
from dispatcher.commandline import Spec
from dispatcher.fate import Ended, Known, Open, Pair, Skipped, judge
from dispatcher.lent import Terms
from dispatcher.logs import LogFiles
from dispatcher.orders import Order
from dispatcher.queue import Queues
from dispatcher.steps import Facts, Finding, Now, Outcome, Start
from dispatcher.transitions import Advance
from dispatcher.words import Commanded, Dead, Fact, Job
from sysadmd import journal
from sysadmd.journal import Transaction
from tests.kit.accepting import accept
from tests.kit.state_file import tables

T = TypeVar("T")

# --- the rule alone: few enough values to try them all

FLAGS = (
    *("announced", "begun", "unknown", "unbegun", "barred", "left"),
    *("gone", "log", "same_boot", "last", "forgotten"),
)
ALL = [
    Known(pair=pair, code=code, ending=ending, **dict(zip(FLAGS, flags, strict=True)))
    for pair in Pair
    for code in (None, 0, 3, -15)
    for ending in (None, "killed", "timed-out")
    for flags in itertools.product((False, True), repeat=len(FLAGS))
]


def test_a_known_code_is_kept_and_an_unknown_one_is_not_made_up() -> None:
    for known in ALL:
        fate = judge(known)
        if known.code is not None:
            assert isinstance(fate, Ended), known
        if isinstance(fate, Ended):
            assert fate.code == known.code, known


def test_what_has_ended_nobody_knows_how_is_lost() -> None:
    for known in ALL:
        if known.unknown and known.code is None:
            assert judge(known) == Ended(None, known.ending or "lost"), known


def test_what_has_begun_is_neither_started_again_nor_skipped() -> None:
    for known in ALL:
        if known.begun:
            fate = judge(known)
            assert fate is not Open.AGAIN, known
            assert not isinstance(fate, Skipped), known


def test_what_may_still_begin_is_not_started_again() -> None:
    for known in ALL:
        may_begin = known.pair is Pair.STARTS or (
            known.pair is Pair.SETTLED and known.announced
        )
        if may_begin and not known.unbegun:
            assert judge(known) is not Open.AGAIN, known
        if known.barred or known.ending:
            assert judge(known) is not Open.AGAIN, known


def test_what_may_have_begun_is_not_started_again() -> None:
    for known in ALL:
        if known.log and known.pair in (Pair.DEAD, Pair.OVER) and not known.unbegun:
            assert judge(known) is not Open.AGAIN, known


def test_nothing_is_started_without_its_environment() -> None:
    for known in ALL:
        if known.forgotten:
            fate = judge(known)
            assert fate is not Open.AGAIN, known
            assert isinstance(fate, Open) or fate.result is not None, known


def test_nothing_of_another_boot_is_waited_for() -> None:
    for known in ALL:
        if not known.same_boot and known.code is None:
            assert judge(known) == Ended(None, known.ending or "lost"), known


def test_what_runs_is_lost_only_when_nobody_tells_of_it_and_it_is_gone() -> None:
    for known in ALL:
        ended = known.code is not None or known.unknown
        if known.begun and known.same_boot and not ended:
            alone = known.left or known.pair is Pair.OVER
            if not (alone and known.gone):
                assert judge(known) is (Open.WATCH if alone else Open.WAIT), known


def test_a_job_ends_as_it_was_to_end_and_succeeds_only_as_a_whole() -> None:
    for known in ALL:
        fate = judge(known)
        if isinstance(fate, Open):
            continue
        if known.ending:
            assert fate.result == known.ending, known
        elif isinstance(fate, Skipped):
            assert fate.result == ("killed" if known.barred else "lost"), known
        elif known.code is None:
            assert fate.result == "lost", known
        elif known.code:
            assert fate.result == "failed", known
        elif known.last:
            assert fate.result == "succeeded", known
        else:
            goes_on = known.same_boot and not known.forgotten
            assert fate.result == (None if goes_on else "lost"), known


# --- the world

Command = tuple[int, int]
LIMITS: dict[str | None, int] = {None: 2, "serial": 1}
JOBS = 8
ROUNDS = 100
# Those with the most to do come twice.
ACTORS = (
    *("daemon", "tender", "killer", "watcher", "keeper", "guard", "starter", "process"),
    *("daemon", "keeper", "starter"),
)
EVENTS = (
    *("daemon", "accept", "kill", "time_out"),
    *("daemon_dies", "keeper_dies", "guard_dies", "starter_dies", "both_die", "all_die"),
    *("guard_is_left", "machine_crashes"),
)


class Phase(Enum):
    """How far a starter is.

    ANNOUNCED: its command stands in the book. ORDERED: it knows. MADE: the log is there.
    MARKED: as that of a command that may have begun. SPAWNED: it has. TOLD: it said so.
    OVER: it said the last of it.
    """

    ANNOUNCED = auto()
    ORDERED = auto()
    MADE = auto()
    MARKED = auto()
    SPAWNED = auto()
    TOLD = auto()
    OVER = auto()


@dataclass(eq=False)
class Starter:
    """A starter and its command.

    told: lines that nobody has acknowledged; the keeper has read the first `heard`. parted: it
    writes the book itself, and begins nothing more. booked: words that the book has of it.
    sought: it is dead, and its command was looked for. process: the command's; code: it has
    ended.
    """

    duo: Duo
    order: Commanded
    pid: int
    since: float
    alive: bool = True
    phase: Phase = Phase.ANNOUNCED
    told: list[book.Line] = field(default_factory=list[book.Line])
    heard: int = 0
    parted: bool = False
    booked: set[str] = field(default_factory=set[str])
    sought: bool = False
    process: int | None = None
    code: int | None = None

    @property
    def command(self) -> Command:
        return self.order.job

    @property
    def is_through(self) -> bool:
        """Stands the last of its command in the book?"""
        return not self.booked.isdisjoint(("end", "barred", "left"))


@dataclass(eq=False)
class Duo:
    """A keeper and its guard, both alive or not, and what the daemon has in mind of them.

    reaps: orphans fall to them. recognizes: they can tell who these are.
    """

    id: str
    keeper: bool = True
    guard: bool = True
    reaps: bool = True
    recognizes: bool = True
    drains: bool = False
    # What the daemon has said and the keeper has not heard yet; what that is to begin.
    said: list[Word] = field(default_factory=list["Word"])
    orders: list[Ordered] = field(default_factory=list[Ordered])
    ahead: Ahead = field(default_factory=Ahead)
    starters: list[Starter] = field(default_factory=list[Starter])
    lines: list[bytes] = field(default_factory=list[bytes])
    said_dead: bool = False
    # The daemon's; `read`: how many lines of the book it has worked in.
    read: int = 0
    linked: bool = False
    takes: bool = False
    settle: bool = False
    dead: bool = False
    knows_it_is_dead: bool = False
    knows_it_drains: bool = False
    given: set[int] = field(default_factory=set[int])

    def hear(self) -> None:
        """As Keeper._obey: the next thing that the daemon has said."""
        word = self.said.pop(0)
        if isinstance(word, list):
            self.give_back(self.ahead.give_back(word))
        elif isinstance(word, int):
            self.orders += self.ahead.over(word)
        elif not self.drains and word.room:
            self.orders += self.ahead.lend(Ordered(b"", word))
        elif not self.drains:
            self.ahead.occupy(word)
            self.orders.append(Ordered(b"", word))

    def give_back(self, lent: Sequence[Commanded]) -> None:
        for one in lent:
            self.write({"returned": one.job, "mark": one.mark})

    def drop(self) -> None:
        """As Keeper._forget: nothing of what is wanted is to begin."""
        back = [one.command for one in self.orders if one.command.room]
        self.orders.clear()
        self.give_back(back + self.ahead.forget())

    def write(self, line: book.Line, of: Starter | None = None) -> None:
        self.lines.append(book.encode(line))
        if of is not None:
            of.booked |= line.keys()
            if of.is_through and not (self.keeper and of.alive):
                # Nobody has to be told.
                self.starters.remove(of)

    @property
    def begins(self) -> bool:
        """May it still begin anything?"""
        return self.keeper or self.guard or any(not one.parted for one in self.serving)

    @property
    def tells(self) -> bool:
        """May anything still be written into its book?"""
        return self.keeper or self.guard or bool(self.serving)

    @property
    def serving(self) -> list[Starter]:
        return [starter for starter in self.starters if starter.alive]

    def forget(self) -> None:
        """What the daemon has in mind; the keeper notices that nobody is there."""
        self.linked = self.takes = self.settle = self.dead = False
        self.knows_it_is_dead = self.knows_it_drains = False
        self.given.clear()
        self.said.clear()
        if self.keeper:
            self.drop()


# What a daemon says: an order; jobs that it calls back; a job that has ended.
Word = Commanded | list[Job] | int


@dataclass(frozen=True)
class Disk(LogFiles):
    """The logs: who made each, None for a kill, and which are marked."""

    made: dict[Command, Starter | None] = field(default_factory=dict[Command, "Starter | None"])
    marked: set[Command] = field(default_factory=set[Command])

    def make(self, command: Command, by: Starter | None) -> bool:
        """False: somebody else has done it."""
        return self.made.setdefault(command, by) is by

    def size(self, uid: int, n: int) -> int | None:
        return 0 if (uid, n) in self.made else None

    def may_have_begun(self, uid: int, n: int) -> bool:
        return (uid, n) in self.marked

    def forget(self, uid: int, n: int) -> None:
        self.made.pop((uid, n), None)
        self.marked.discard((uid, n))


@dataclass(eq=False)
class Turn:
    """One step of the daemon; outcome: it is committed; wakes: another one is to follow."""

    facts: list[Facts]
    findings: list[Finding]
    unsent: list[Command]
    queues: Queues
    taker: Duo | None
    outcome: Outcome | None = None
    wakes: bool = False


NUMBER = st.integers(0, 14)
EVENT = st.sampled_from(EVENTS)


def facts_of(lines: Sequence[bytes]) -> list[Fact]:
    """All of them are facts."""
    facts = [fact for line in lines if (fact := words.fact(line)) is not None]
    assert len(facts) == len(lines)
    return facts


def pick(among: Sequence[T], number: int) -> T | None:
    return among[number % len(among)] if among else None


class World(RuleBasedStateMachine):
    """The truth, and beside it what the tables have of it."""

    def __init__(self) -> None:
        super().__init__()
        self.db = tables(journal.SCHEMA, records.SCHEMA)
        self.disk = Disk(Path("/nowhere"))
        self.time = 1000.0
        self.boot = 0
        self.numbers = itertools.count(1)
        self.duos: dict[str, Duo] = {}
        # What commands became, by pid.
        self.processes: dict[int, Starter] = {}
        # What truly happened. Of each command: how it ended, in which boot.
        self.begun: set[Command] = set()
        self.ended: dict[Command, tuple[int, int]] = {}
        # Jobs of which nothing may begin any more, but for what was on its way.
        self.killed: dict[int, Starter | None] = {}
        self.marked: set[int] = set()
        # Commands of which nobody can tell how they ended.
        self.unseen: set[Command] = set()
        self.start_daemon()
        for number in range(6):
            self.accept(number)

    @rule(steps=st.binary(min_size=20, max_size=100), event=EVENT, number=NUMBER)
    def life_goes_on(self, steps: bytes, event: str, number: int) -> None:
        """All do their next steps, in any order; then something comes between.

        steps: in each byte who of them, and how: to draw these one by one takes far longer.
        """
        for step in steps:
            how, actor = divmod(step, len(ACTORS))
            getattr(self, ACTORS[actor])(how)
        getattr(self, event)(number)

    # --- the daemon

    def start_daemon(self) -> None:
        """As Mover.load, Tender.find and Killer.resume do it."""
        self.up, self.settled = True, False
        self.turn: Turn | None = None
        self.findings: list[Finding] = []
        self.unsent: list[Command] = []
        self.watched: dict[Command, int] = {}
        positions = dict(self.db.execute("SELECT keeper, position FROM books").fetchall())
        for duo in self.duos.values():
            duo.read = positions.get(duo.id, 0)
        self.queues = Queues().configure(LIMITS)
        for uid, queue, state in self.db.execute(
            "SELECT uid, queue, state FROM jobs WHERE state < 2 ORDER BY uid"
        ):
            waits = state == records.PENDING
            away = [uid] * (uid in lent.everything(self.db))
            self.queues = self.queues.adopt(queue, [uid] * waits, [uid] * (not waits), away)
        for id in lent.everything(self.db).values():
            if id not in self.duos:
                self.duos[id] = Duo(id, keeper=False, guard=False)
        for uid, n, keeper in self.running():
            if keeper is None:
                self.unsent.append((uid, n))
            elif keeper not in self.duos:
                self.duos[keeper] = Duo(keeper, keeper=False, guard=False)
        self.to_bar: list[Command] = self.db.execute(
            "SELECT job, n FROM commands JOIN jobs ON uid = job"
            " WHERE commands.state = 1 AND ending IS NOT NULL"
        ).fetchall()

    def daemon_dies(self, _: int = 0) -> None:
        self.up, self.turn = False, None
        for duo in self.duos.values():
            duo.forget()

    def accept(self, number: int) -> None:
        if not self.up or len(self.jobs()) == JOBS:
            return
        commands, queue = 1 + number % 3, "serial" if number % 2 else None
        order = Order(commands=(Spec(("true",), "true"),) * commands, queue=queue)
        (accepted,) = self.write(lambda db: accept(db, self.now(), [order]))
        self.queues = self.queues.adopt(queue, (accepted.job.uid,), ())

    def kill(self, number: int) -> None:
        uid = 1 + number % JOBS
        if not self.up:
            return
        ids = [id for (id,) in self.db.execute("SELECT id FROM jobs WHERE uid = ?", (uid,))]
        if lent.queues(self.db, ids):
            self.recall(number)
            return
        for job in self.write(lambda db: acceptance.kill(db, self.now(), ids)):
            self.marked.add(uid)
            if job.n is None:
                self.queues = self.queues.remove(job.queue, uid)
                self.killed[uid] = None
                if self.turn is not None:
                    # As Mover.withdrawn.
                    self.turn.wakes = True
            else:
                self.to_bar.append((uid, job.n))

    def recall(self, number: int) -> None:
        """All that is lent, some of it perhaps no more."""
        jobs = [(uid, 0) for lane in self.queues.lanes.values() for uid in lane.lent]
        taker = next((duo for duo in self.duos.values() if duo.takes), None)
        if self.up and taker is not None and jobs:
            taker.said.append(jobs[number % 2 :])

    def time_out(self, number: int) -> None:
        uid = 1 + number % JOBS
        if not self.up:
            return
        n = self.write(lambda db: transitions.mark(db, uid, "timed-out"))
        if n is not None:
            self.marked.add(uid)
            self.to_bar.append((uid, n))

    def killer(self, number: int) -> None:
        """What was marked does not begin any more; if it has, it is ended."""
        if not self.up or not self.to_bar:
            return
        command = self.to_bar.pop()
        barred = self.disk.make(command, None)
        starter = self.disk.made[command]
        self.killed.setdefault(command[0], starter)
        if starter is None:
            self.findings.append(Finding(*command, barred=barred))
        elif starter.process is None and starter.alive and number % 2:
            # It hangs.
            self.bury(starter.duo, starter)
        elif starter.process is not None and starter.code is None:
            self.end(starter, -15)

    def tender(self, number: int) -> None:
        """Notices what became of a keeper, or starts one."""
        if not self.up:
            return
        duo = pick(list(self.duos.values()), number)
        if duo is not None and duo.linked and not duo.keeper:
            duo.linked = duo.takes = False
        elif duo is not None and duo.linked and duo.drains and not duo.knows_it_drains:
            duo.knows_it_drains, duo.takes, duo.settle = True, False, True
        elif duo is not None and not duo.linked and duo.keeper:
            # It has nothing left of an earlier daemon.
            duo.linked, duo.settle, duo.knows_it_drains = True, True, duo.drains
        elif duo is not None and duo.tells and not duo.begins and not duo.knows_it_is_dead:
            duo.knows_it_is_dead = duo.dead = True
        elif (
            self.settled
            and number % 5 < 3
            and not any(one.linked and not one.knows_it_drains for one in self.duos.values())
        ):
            id = f"keeper{next(self.numbers)}"
            reaps, recognizes = number % 4 > 0, number % 4 > 1
            self.duos[id] = Duo(id, reaps=reaps, recognizes=recognizes, linked=True, takes=True)

    def watcher(self, _: int) -> None:
        """Finds whose process is gone, when nobody tells of it."""
        for command, pid in list(self.watched.items()):
            if self.processes[pid].code is not None:
                del self.watched[command]
                self.findings.append(Finding(*command, gone=True))

    def daemon(self, number: int) -> None:
        """The next part of a turn: reads, commits, remembers; anything may be in between."""
        if not self.up:
            self.start_daemon()
        elif self.turn is None:
            self.begin_turn(2 * (number % 5))
        elif self.turn.outcome is None:
            self.commit(self.turn, fails=number % 5 == 4)
        else:
            self.remember(self.turn, self.turn.outcome)

    def begin_turn(self, portion: int) -> None:
        """As Mover._turn begins, with so many lines of each book."""
        facts = [one for duo in self.duos.values() if (one := self.read(duo, portion))]
        taker = next((duo for duo in self.duos.values() if duo.takes), None)
        starts = taker is not None and bool(self.queues.start_ready()[1])
        unsent = self.unsent[:] if taker else []
        if facts or self.findings or unsent or starts:
            self.turn = Turn(facts, self.findings[:], unsent, self.queues, taker)
        elif not any(len(duo.lines) > duo.read for duo in self.duos.values()):
            self.settled = True

    def read(self, duo: Duo, portion: int) -> Facts | None:
        """As Mover._read."""
        state = Pair.SETTLED if duo.settle else Pair.STARTS
        if duo.dead:
            state = Pair.DEAD
        if not duo.linked and not duo.tells:
            state = Pair.OVER
        lines = facts_of(duo.lines[duo.read :][:portion])
        if lines:
            if Dead() in lines:
                duo.takes = False
            alive = state is not Pair.OVER
            return Facts(duo.id, lines, 1, duo.read + len(lines), alive=alive)
        if len(duo.lines) > duo.read or state is Pair.STARTS:
            return None
        duo.settle = duo.dead = False
        return Facts(duo.id, (), 1, duo.read, state, alive=state is not Pair.OVER)

    def commit(self, turn: Turn, fails: bool) -> None:
        """fails: the disk is full; later all is read once more."""
        self.db.execute("BEGIN")
        step = self.work_in(turn)
        taker = turn.taker
        terms = Terms(frozenset(taker.given), frozenset()) if taker and taker.linked else None
        step.start(turn.queues, terms)
        if fails:
            self.db.execute("ROLLBACK")
            for facts in turn.facts:
                duo = self.duos[facts.keeper]
                duo.settle |= facts.pair is not Pair.STARTS
                duo.dead |= facts.pair is Pair.DEAD
            self.turn = None
            return
        self.db.execute("COMMIT")
        turn.outcome = step.outcome
        self.tables_are_true()
        self.hear_again(replace(turn, facts=turn.facts[:]))

    def work_in(self, turn: Turn) -> Advance:
        taker = turn.taker.id if turn.taker else None
        boot = str(self.boot)
        change = Transaction(self.db)
        step = Advance(change, self.now(), taker, self.disk, lambda mark: mark == boot)
        for facts in turn.facts:
            step.facts(facts)
        for finding in turn.findings:
            step.finding(finding)
        for command in turn.unsent:
            step.unsent(*command)
        return step

    def hear_again(self, turn: Turn) -> None:
        """What is known already changes nothing, nor does an old book read anew."""
        before = self.dump()
        for facts in [one for one in turn.facts if one.pair is Pair.OVER]:
            # As when the daemon dies before it has removed the book.
            lines = facts_of(self.duos[facts.keeper].lines)
            turn.facts.insert(0, Facts(facts.keeper, lines, 1, len(lines), alive=False))
        self.db.execute("BEGIN")
        again = self.work_in(turn).outcome
        taker = turn.taker.id if turn.taker else None
        assert self.dump() == before
        assert not again.finished
        assert not again.began
        if all(facts.keeper != taker for facts in turn.facts):
            assert not again.starts
        self.db.execute("ROLLBACK")

    def remember(self, turn: Turn, outcome: Outcome) -> None:
        """As Mover.remember and Tender.worked_in."""
        self.turn = None
        del self.findings[: len(turn.findings)]
        del self.unsent[: len(turn.unsent)]
        for job in outcome.promoted:
            self.queues = self.queues.begin(job.queue, job.uid)
        self.queues = self.queues.give_back(outcome.returned)
        for queue, uid in outcome.finished:
            self.queues = self.queues.finish(queue, uid)
        for start in outcome.starts:
            if start.uid not in self.queues.lanes[start.queue].running:
                self.queues = self.queues.begin(start.queue, start.uid)
        for start in outcome.lent:
            self.queues = self.queues.lend(start.queue, start.uid)
        if turn.taker is not None and not turn.wakes:
            # With what comes meanwhile comes another turn, but for nobody else.
            ready = self.queues.start_ready()[1]
            assert all(turn.queues.position(*one) is None for one in ready)
        if turn.taker is not None and turn.taker.linked:
            self.say(turn.taker, outcome)
        assert turn.taker is not None or not (outcome.starts or outcome.lent)
        self.unsent += outcome.unsent
        for orphan in outcome.orphans:
            self.watched[orphan.uid, orphan.n] = orphan.identity.pid
        for facts in turn.facts:
            duo = self.duos[facts.keeper]
            duo.read = facts.position
            if facts.pair is Pair.OVER:
                del self.duos[facts.keeper]
            elif facts.pair is Pair.SETTLED and duo.linked and not duo.knows_it_drains:
                if any(one.takes for one in self.duos.values() if one is not duo):
                    duo.drains = duo.knows_it_drains = True
                else:
                    duo.takes = True

    def say(self, taker: Duo, outcome: Outcome) -> None:
        """As `handing_over.hand_over`."""
        said: list[Word] = [uid for uid in outcome.cut if uid in taker.given]
        said += [self.order(start, 0) for start in outcome.starts]
        said += [self.order(start, LIMITS[start.queue]) for start in outcome.lent]
        taker.given.difference_update(uid for _, uid in outcome.finished)
        taker.given |= {start.uid for start in (*outcome.starts, *outcome.lent)}
        if taker.keeper:
            taker.said += said

    def order(self, start: Start, room: int) -> Commanded:
        return Commanded(
            *((start.uid, start.n), start.argv, start.env, start.cwd, 1),
            lane=start.queue or "",
            last=start.last,
            room=room,
            mark=start.mark,
        )

    # --- keepers, guards, starters, commands, the machine

    def keeper(self, number: int) -> None:
        """A keeper's next step."""
        duo = pick([duo for duo in self.duos.values() if duo.keeper], number)
        if duo is None:
            return
        starters = duo.starters[:: 1 if number % 2 else -1]
        if not duo.guard and not duo.drains:
            duo.drains = True
            duo.drop()
        elif duo.said and number % 3:
            duo.hear()
        elif any(self.attend(duo, starter) for starter in starters):
            pass
        elif duo.orders:
            order, now = duo.orders.pop(0).command, self.now().boot
            starter = Starter(duo, order, next(self.numbers), now)
            duo.starters.append(starter)
            duo.write({"next": order.job, "at": now, "pid": starter.pid})
        elif duo.said:
            duo.hear()
        elif not duo.starters and (duo.drains or not duo.linked):
            # It owes nothing, so its guard goes, too.
            duo.keeper = duo.guard = False

    def attend(self, duo: Duo, starter: Starter) -> bool:
        """What its keeper does next for a command; False: nothing just now."""
        if starter.alive and starter.phase is Phase.ANNOUNCED:
            starter.phase = Phase.ORDERED
        elif starter.heard < len(starter.told):
            starter.heard += 1
            line = starter.told[starter.heard - 1]
            duo.write(line, starter)
            if "began" not in line:
                duo.orders += duo.ahead.ended(starter.order)
        elif starter.is_through:
            # It hears that, and would serve another one.
            duo.starters.remove(starter)
        elif starter.alive:
            return False
        elif not starter.sought:
            self.seek(duo, starter)
        elif starter.process is None or starter.code is not None:
            # Of whom it does not recognize it sees that nobody holds the log.
            code = starter.code if "began" in starter.booked else None
            duo.write(self.end_of(starter, code), starter)
            duo.orders += duo.ahead.ended(starter.order)
        else:
            return False
        return True

    def seek(self, duo: Duo, starter: Starter) -> None:
        """As Keeper._adopt and guard._look_for_begun: its starter is dead."""
        starter.sought = True
        if "began" in starter.booked:
            if not duo.reaps:
                self.unseen.add(starter.command)
                duo.write({"left": starter.command}, starter)
        elif not self.disk.may_have_begun(*starter.command) or (
            duo.recognizes and starter.process is None
        ):
            if duo.keeper:
                duo.write(self.end_of(starter, 126, begun=False), starter)
        elif duo.recognizes:
            duo.write(self.beginning_of(starter), starter)
        else:
            self.unseen.add(starter.command)
            if not duo.keeper:
                duo.write(self.end_of(starter, None), starter)

    def guard(self, number: int) -> None:
        """The next step of a guard whose keeper is dead."""
        duo = pick([d for d in self.duos.values() if not d.keeper and d.guard], number)
        if duo is None or any(not starter.parted for starter in duo.serving):
            return
        dead = [starter for starter in duo.starters if not starter.alive]
        if not duo.said_dead:
            unsought = [starter for starter in dead if not starter.sought]
            if unsought:
                self.seek(duo, unsought[0])
                return
            duo.said_dead = True
            duo.starters = [one for one in duo.starters if "began" in one.booked]
            duo.write({"dead": True})
        elif not duo.reaps or not duo.starters:
            duo.guard = False
        elif ended := [starter for starter in dead if starter.code is not None]:
            duo.write(self.end_of(ended[0], ended[0].code), ended[0])

    def starter(self, number: int) -> None:
        """A starter's next step."""
        starter = pick([one for duo in self.duos.values() for one in duo.serving], number)
        if starter is None:
            return
        duo, command = starter.duo, starter.command
        if starter.told and not duo.keeper:
            line = starter.told.pop(0)
            starter.parted = not starter.told
            duo.write(line, starter)
        elif starter.phase is Phase.ORDERED:
            if self.disk.make(command, starter):
                starter.phase = Phase.MADE
            else:
                self.tell(starter, {"barred": command}, Phase.OVER)
        elif starter.phase is Phase.MADE:
            self.disk.marked.add(command)
            starter.phase = Phase.MARKED
        elif starter.phase is Phase.MARKED and number % 7 == 6:
            # There is no such program.
            self.ended[command] = (127, self.boot)
            self.tell(starter, self.end_of(starter, 127), Phase.OVER)
        elif starter.phase is Phase.MARKED:
            self.begin(starter)
        elif starter.phase is Phase.SPAWNED:
            self.tell(starter, self.beginning_of(starter), Phase.TOLD)
        elif starter.phase is Phase.TOLD and starter.code is not None:
            self.tell(starter, self.end_of(starter, starter.code), Phase.OVER)

    def tell(self, starter: Starter, line: book.Line, phase: Phase) -> None:
        starter.phase = phase
        if starter.parted:
            starter.duo.write(line, starter)
        else:
            starter.told.append(line)

    def beginning_of(self, starter: Starter) -> book.Line:
        times = {"since": starter.since, "at": self.now().boot}
        return {"began": starter.command, "pid": starter.process, **times}

    def end_of(self, starter: Starter, code: int | None, *, begun: bool = True) -> book.Line:
        end = {"end": starter.command, "code": code, "begun": begun}
        return {**end, "time": self.now().wall, "size": 0}

    def begin(self, starter: Starter) -> None:
        uid, n = starter.command
        assert (uid, n) not in self.begun, "it runs twice"
        assert self.killed.get(uid, starter) is starter, "it was kept from beginning"
        if n:
            assert self.ended.get((uid, n - 1)) == (0, self.boot), "the one before did not"
        self.begun.add((uid, n))
        starter.phase, starter.process = Phase.SPAWNED, next(self.numbers)
        self.processes[starter.process] = starter

    def process(self, number: int) -> None:
        """A command ends, by itself or by a signal; or takes its time."""
        which, how = divmod(number, 16)
        starter, codes = pick(self.alive(), which), (0, 0, 0, 3, -9)
        if starter is not None and how < len(codes):
            self.end(starter, codes[how])

    def end(self, starter: Starter, code: int) -> None:
        starter.code = code
        self.ended[starter.command] = (code, self.boot)

    def keeper_dies(self, number: int) -> None:
        duo = pick([duo for duo in self.duos.values() if duo.keeper], number)
        if duo is not None:
            duo.keeper = False
            self.bury(duo)

    def guard_dies(self, number: int) -> None:
        duo = pick([duo for duo in self.duos.values() if duo.guard], number)
        if duo is not None:
            duo.guard = False
            self.bury(duo)

    def starter_dies(self, number: int) -> None:
        starter = pick([one for duo in self.duos.values() for one in duo.serving], number)
        if starter is not None:
            self.bury(starter.duo, starter)

    def both_die(self, number: int) -> None:
        """Keeper and guard."""
        duo = pick(list(self.duos.values()), number)
        if duo is not None:
            duo.keeper = duo.guard = False
            self.bury(duo)

    def all_die(self, number: int) -> None:
        """These and the starters, all or all but one."""
        duo = pick(list(self.duos.values()), number)
        if duo is not None:
            duo.keeper = duo.guard = False
            self.bury(duo, *duo.serving[number % 2 :])

    def guard_is_left(self, number: int) -> None:
        """Keeper and starters die, of these all or all but one."""
        duo = pick([duo for duo in self.duos.values() if duo.keeper], number)
        if duo is not None:
            duo.keeper = False
            self.bury(duo, *duo.serving[number % 2 :])

    def bury(self, duo: Duo, *starters: Starter) -> None:
        """What follows from deaths; starters: of these."""
        for starter in starters:
            starter.alive = False
        if duo.keeper:
            return
        duo.orders.clear()
        duo.said.clear()
        duo.ahead.forget()
        for starter in duo.starters:
            starter.sought = False
            if starter.phase is Phase.ANNOUNCED:
                # It hears that it hears no more.
                starter.alive = False
        duo.starters = [one for one in duo.starters if one.alive or not one.is_through]
        if not (duo.guard and duo.reaps):
            left = {starter.command for starter in duo.starters if not starter.alive}
            self.unseen |= left & self.disk.marked

    def machine_crashes(self, number: int) -> None:
        """Of each book some lines are left that were not worked in."""
        if self.up:
            self.daemon_dies()
        self.boot += 1
        positions = dict(self.db.execute("SELECT keeper, position FROM books").fetchall())
        for duo in self.duos.values():
            duo.keeper = duo.guard = False
            duo.orders.clear()
            duo.said.clear()
            duo.ahead.forget()
            duo.starters.clear()
            del duo.lines[positions.get(duo.id, 0) + number :]
        for starter in self.alive():
            starter.code = -9
        for uid, _, _ in self.running():
            self.unseen |= {(uid, n) for n in range(3)}
        # Nobody knows which of them had begun.
        self.unseen |= {(uid, 0) for uid in lent.everything(self.db)}

    # --- what always holds

    @invariant()
    def tables_are_true(self) -> None:
        results = {uid: (state, result) for uid, state, result in self.jobs()}
        alive = [starter.command for starter in self.known()]
        states: dict[int, list[int]] = {uid: [] for uid in results}
        for uid, n, state, code in self.db.execute(
            "SELECT job, n, state, return_code FROM commands ORDER BY job, n"
        ):
            states[uid].append(state)
            if code is not None:
                assert self.ended[uid, n][0] == code
            if state == records.SKIPPED:
                assert (uid, n) not in self.begun
            if state == records.FINISHED:
                assert code is not None or (uid, n) in self.unseen
                assert (uid, n) not in alive
        for uid, (state, result) in results.items():
            self.job_is_whole(uid, state, result, states[uid])

    def job_is_whole(
        self, uid: int, state: int, result: str | None, commands: list[int]
    ) -> None:
        finished = commands.count(records.FINISHED)
        rest = commands[finished:]
        if state == records.RUNNING:
            assert rest[0] == records.RUNNING
            del rest[0]
        left = records.SKIPPED if state == records.FINISHED else records.PENDING
        assert rest == [left] * len(rest)
        codes = [self.ended.get((uid, n), (None,))[0] for n in range(len(commands))]
        if result in ("killed", "timed-out"):
            assert uid in self.marked
        if result == "succeeded":
            assert codes == [0] * len(commands)
        if result == "failed":
            assert codes[finished - 1]

    @invariant()
    def events_are_in_order(self) -> None:
        told: dict[int, list[Any]] = {}
        for (body,) in self.db.execute("SELECT body FROM events ORDER BY seq"):
            event = json.loads(body)
            told.setdefault(event["job"], []).append(event.get("command", event["state"]))
        for uid, state, _ in self.jobs():
            running = [word for word in told[uid] if isinstance(word, int)]
            finished = ["finished"] * (state == records.FINISHED)
            assert running == list(range(len(running)))
            assert told[uid] == ["pending", *running, *finished]

    @invariant()
    def queues_are_kept(self) -> None:
        lane_of = dict(self.db.execute("SELECT uid, queue FROM jobs").fetchall())
        jobs = {uid for uid, state, _ in self.jobs() if state == records.RUNNING}
        alive = {starter.command[0] for starter in self.known()}
        for uids in (jobs, alive):
            lanes = Counter(lane_of[uid] for uid in uids)
            assert all(lanes[queue] <= limit for queue, limit in LIMITS.items())
        if self.up and self.turn is None:
            remembered = [lane.running for lane in self.queues.lanes.values()]
            assert jobs == frozenset[int]().union(*remembered)

    def teardown(self) -> None:
        """The world comes to rest: all go on with what they do, and nobody dies any more."""
        if next(self.numbers) % 2:
            # In some worlds: what it has in mind must neither be needed nor be in the way.
            self.daemon_dies()
        try:
            for _ in range(ROUNDS):
                if all(state == records.FINISHED for _, state, _ in self.jobs()):
                    break
                for actor in ACTORS:
                    starters = sum(len(duo.starters) for duo in self.duos.values())
                    for which in range(len(self.duos) + starters + len(self.alive()) + 1):
                        getattr(self, actor)(which * 16 if actor == "process" else which)
                # As much of the books as there is.
                self.daemon(3)
            self.tables_are_true()
            self.events_are_in_order()
            self.queues_are_kept()
            assert all(state == records.FINISHED for _, state, _ in self.jobs())
        finally:
            self.db.close()

    # --- small helpers

    def write(self, change: Callable[[Transaction], T]) -> T:
        self.db.execute("BEGIN")
        result = change(Transaction(self.db))
        self.db.execute("COMMIT")
        return result

    def now(self) -> Now:
        # So that some jobs are quick, and some are not.
        self.time += 0.002
        return Now(self.time, self.time, str(self.boot))

    def alive(self) -> list[Starter]:
        return [starter for starter in self.processes.values() if starter.code is None]

    def known(self) -> list[Starter]:
        """Those alive of which somebody knows, or will: others may be lost while they run."""
        return [
            one for one in self.alive() if one.alive or one.duo.keeper or "began" in one.booked
        ]

    def jobs(self) -> list[tuple[int, int, str | None]]:
        """Uid, state, result."""
        return self.db.execute("SELECT uid, state, result FROM jobs").fetchall()

    def running(self) -> list[tuple[int, int, str | None]]:
        return self.db.execute("SELECT job, n, keeper FROM commands WHERE state = 1").fetchall()

    def dump(self) -> list[list[Any]]:
        tables = ("jobs", "commands", "events", "books", "lent")
        return [self.db.execute(f"SELECT * FROM {table}").fetchall() for table in tables]


class LongWorld(World):
    """The same, looked at for longer."""


# Without a type in the hypothesis that we use.
test_the_tables_tell_the_truth_whoever_dies = cast("Any", World).TestCase
test_the_tables_tell_the_truth_whoever_dies.settings = settings(
    max_examples=150, stateful_step_count=12
)
test_they_do_so_however_long_one_looks = pytest.mark.long(cast("Any", LongWorld).TestCase)
test_they_do_so_however_long_one_looks.settings = settings(
    max_examples=4_000, stateful_step_count=15
)
