"""Mixed jobs under a hail of kills, stops and crashes, and the proof of what became of them.

Every command signs a ledger when it runs, so that the world outside the store says how often it
did. Clients ask again, with the same key, until they have a reply: what was acknowledged must
have run exactly once, with the right result, codes and log, and must have been told in order. A
job that a crash of the machine caught may be lost instead: at one command, none behind it run.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dispatcher import logs
from tests.kit.crash import Machine, machine_crash
from tests.kit.jobs import Job, job_of
from tests.kit.processes import end, holders, starters
from tests.kit.state_file import state_file
from tests.kit.waiting import wait_for

# Long enough that nobody waits for it to end by itself.
FOREVER = "sleep 300"
SERIAL = "pkg_queue"
CRASH = "crash"


@dataclass
class Planned:
    """A job, and what must become of it."""

    id: str
    commands: list[list[str]]
    result: str
    codes: list[int | None]
    # The whole log of each command; None: it has none. `grows`: its beginning only.
    logs: list[bytes | None]
    grows: bool = False
    kill: bool = False
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    uid: int | None = None


@dataclass
class Tally:
    """What the proof found.

    crashed: jobs that are lost since a crash caught them. unknown: other commands whose code
    nobody knows, openly said.
    """

    jobs: int = 0
    kills: int = 0
    crashes: int = 0
    lost: list[str] = field(default_factory=list[str])
    doubled: list[str] = field(default_factory=list[str])
    wrong: list[str] = field(default_factory=list[str])
    unknown: int = 0
    crashed: int = 0

    def __str__(self) -> str:
        return (
            f"jobs {self.jobs}, kills {self.kills}, crashes {self.crashes}: lost"
            f" {len(self.lost)}, doubled {len(self.doubled)}, wrong {len(self.wrong)}, unknown"
            f" {self.unknown}, lost by crashes {self.crashed}"
        )


def plan(seed: int, count: int, ledger: Path) -> list[Planned]:
    """`count` jobs of all kinds, in an order that the seed decides."""
    rng = random.Random(seed)
    kinds = [
        _short,
        _short,
        _long,
        _chatty,
        _chain,
        _failing,
        _background,
        _killed,
        _timed,
        _none,
    ]
    return [rng.choice(kinds)(f"job-{seed}-{number}", ledger, rng) for number in range(count)]


def _command(id: str, n: int, ledger: Path, script: str) -> list[str]:
    sign = f"echo {id} {n} begins >>{ledger}"
    return ["sh", "-c", f"{sign}; {script}"]


def _last(id: str, n: int, ledger: Path) -> str:
    return f"echo {id} {n} ends >>{ledger}"


def _queue(rng: random.Random) -> dict[str, Any]:
    return {"queue": rng.choice([None, None, SERIAL, SERIAL, "iocage_queue"])}


def _short(id: str, ledger: Path, rng: random.Random) -> Planned:
    script = f"echo {id}; {_last(id, 0, ledger)}"
    command = _command(id, 0, ledger, script)
    return Planned(id, [command], "succeeded", [0], [f"{id}\n".encode()], more=_queue(rng))


def _long(id: str, ledger: Path, rng: random.Random) -> Planned:
    script = f"for i in 1 2 3 4 5; do echo {id} $i; sleep 0.{rng.randint(1, 3)}; done"
    command = _command(id, 0, ledger, f"{script}; {_last(id, 0, ledger)}; exit 7")
    log = "".join(f"{id} {i}\n" for i in range(1, 6)).encode()
    return Planned(id, [command], "failed", [7], [log])


def _chatty(id: str, ledger: Path, rng: random.Random) -> Planned:
    count = rng.randint(500, 3000)
    command = _command(id, 0, ledger, f"seq 1 {count}; {_last(id, 0, ledger)}")
    log = "".join(f"{i}\n" for i in range(1, count + 1)).encode()
    return Planned(id, [command], "succeeded", [0], [log], more=_queue(rng))


def _chain(id: str, ledger: Path, rng: random.Random) -> Planned:
    length = rng.randint(2, 6)
    commands = [
        _command(id, n, ledger, f"echo {n}; {_last(id, n, ledger)}") for n in range(length)
    ]
    told: list[bytes | None] = [f"{n}\n".encode() for n in range(length)]
    return Planned(id, commands, "succeeded", [0] * length, told, more=_queue(rng))


def _failing(id: str, ledger: Path, rng: random.Random) -> Planned:
    last = rng.choice([("exit 3", 3), ("kill -9 $$", -9), ("kill -TERM $$", -15)])
    commands = [
        _command(id, 0, ledger, f"echo 0; {_last(id, 0, ledger)}"),
        _command(id, 1, ledger, f"echo 1; {_last(id, 1, ledger)}; {last[0]}"),
        _command(id, 2, ledger, "echo never"),
    ]
    told: list[bytes | None] = [b"0\n", b"1\n", None]
    return Planned(id, commands, "failed", [0, last[1], None], told, more=_queue(rng))


def _background(id: str, ledger: Path, rng: random.Random) -> Planned:
    own = rng.choice(["", "setsid "])
    script = f"{own}sh -c 'sleep 0.2; echo late' & echo soon; {_last(id, 0, ledger)}"
    command = _command(id, 0, ledger, script)
    return Planned(id, [command], "succeeded", [0], [b"soon\n"], grows=True)


def _killed(id: str, ledger: Path, rng: random.Random) -> Planned:
    command = _command(id, 0, ledger, f"echo up; exec {FOREVER}")
    other = _command(id, 1, ledger, "echo never")
    return Planned(
        id, [command, other], "killed", [-15, None], [b"up\n", None], grows=True, kill=True
    )


def _timed(id: str, ledger: Path, rng: random.Random) -> Planned:
    command = _command(id, 0, ledger, f"echo up; exec {FOREVER}")
    more = {"timeout": rng.choice([0.3, 0.6])}
    return Planned(id, [command], "timed-out", [-15], [b"up\n"], grows=True, more=more)


def _none(id: str, ledger: Path, rng: random.Random) -> Planned:
    said = f"sysadmd: cannot start no-such-{id}: command not found\n".encode()
    return Planned(id, [[f"no-such-{id}"]], "failed", [127], [said], more=_queue(rng))


class Victim(Machine, Protocol):
    """A daemon that is killed and started again, and asked in between."""

    def stop(self) -> object: ...

    def check_alive(self) -> None: ...

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """As the driver. Raises: OSError when the daemon dies meanwhile."""
        ...


class Submitter(threading.Thread):
    """Submits its jobs and sees to it that each is acknowledged."""

    def __init__(self, daemon: Victim, jobs: Sequence[Planned], pace: float) -> None:
        super().__init__(daemon=True)
        self._daemon = daemon
        self._jobs = jobs
        self._pace = pace

    def run(self) -> None:
        for job in self._jobs:
            order = {"commands": job.commands, "id": job.id, "key": job.id, **job.more}
            reply = self._insist({"submit": [order]})
            job.uid = reply["jobs"][0][0]
            if job.kill:
                time.sleep(self._pace * 4)
                self._insist({"kill": [job.id]})
            time.sleep(self._pace)

    def _insist(self, request: dict[str, Any]) -> dict[str, Any]:
        while True:
            try:
                return self._daemon.ask(request)
            except OSError:
                time.sleep(0.01)


def torture(
    daemon: Victim,
    *,
    seed: int,
    jobs: int,
    kills: int,
    targets: Sequence[str],
    crashes: int = 0,
    pace: float = 0.01,
) -> Tally:
    """Run `jobs` jobs under `kills` kills of `targets` (`+` joins those killed together).

    `stop keeper`: it is not killed, but stopped; so are guard and starter. crashes: of the
    whole machine, spread among the kills. Raises: AssertionError if the daemon ends by itself,
    or the jobs don't.
    """
    ledger = daemon.state_dir / "ledger"
    ledger.touch()
    planned = plan(seed, jobs, ledger)
    rng = random.Random(-seed)
    daemon.start()
    clients = [Submitter(daemon, planned[number::3], pace) for number in range(3)]
    for client in clients:
        client.start()
    caught: set[int] = set()
    for target in _spread(targets, kills, crashes):
        caught.update(_hit(daemon, target, rng))
    for client in clients:
        while client.is_alive():
            daemon.check_alive()
            client.join(0.1)
    wait_for(lambda: _all_finished(daemon, len(planned)), "the end of all jobs", 120)
    # What is written late is late, and the last words of the last commands are read.
    time.sleep(0.5)
    daemon.stop()
    tally = prove(daemon.state_dir, planned, ledger, caught)
    tally.kills, tally.crashes = kills, crashes
    return tally


def _spread(targets: Sequence[str], kills: int, crashes: int) -> Iterator[str]:
    """The targets in turn, with the crashes as evenly between them as it goes."""
    turns = itertools.cycle(targets)
    both = kills + crashes
    for n in range(both):
        is_crash = (n + 1) * crashes // both > n * crashes // both
        yield CRASH if is_crash else next(turns)


def _hit(daemon: Victim, target: str, rng: random.Random) -> list[int]:
    """The jobs that it caught, if it is a crash."""
    if rng.random() < 0.4:
        _wait_for_a_line(daemon.state_dir)
        if rng.random() < 0.5:
            time.sleep(rng.random() * 0.003)
    else:
        time.sleep(rng.random() * 0.25)
    # Here and not later: who is dead can't be killed, and would be started as if he had been.
    daemon.check_alive()
    if target == CRASH:
        return machine_crash(daemon, rng)
    for part in target.split("+"):
        word, _, role = part.rpartition(" ")
        number = signal.SIGSTOP if word == "stop" else signal.SIGKILL
        if role == "daemon":
            daemon.kill()
        elif role == "starter":
            for pid in starters(daemon.state_dir, busy=True) or starters(daemon.state_dir):
                end(pid, number)
        else:
            for pid in holders(daemon.state_dir, role):
                end(pid, number)
    if not daemon.is_up:
        if rng.random() < 0.3:
            time.sleep(rng.random() * 0.5)
        daemon.start()
    return []


def _wait_for_a_line(state_dir: Path) -> None:
    """Until something is written in a book: the windows behind it are microseconds wide."""

    def size() -> int:
        total = 0
        for file in (state_dir / "keeper").glob("*.book"):
            with contextlib.suppress(OSError):
                total += file.stat().st_size
        return total

    before = size()
    until = time.monotonic() + 0.3
    while size() == before and time.monotonic() < until:
        pass


def _all_finished(daemon: Victim, count: int) -> bool:
    daemon.check_alive()
    with state_file(daemon.state_dir) as db:
        row = db.execute("SELECT count(*) FROM jobs WHERE state = 2").fetchone()
    return bool(row[0] == count)


def prove(
    state_dir: Path,
    planned: Sequence[Planned],
    ledger: Path,
    caught: Collection[int] = frozenset(),
) -> Tally:
    """Hold what the store and the world say against what was planned.

    caught: the jobs that ran when the machine crashed.
    """
    tally = Tally(jobs=len(planned))
    signed = [tuple(line.rsplit(" ", 2)) for line in ledger.read_text().splitlines()]
    begun = Counter((id, int(n)) for id, n, word in signed if word == "begins")
    with state_file(state_dir) as db:
        for plan in planned:
            job = job_of(db, plan.uid) if plan.uid else None
            if job is None or job.state != "finished":
                tally.lost.append(f"{plan.id}: {job}")
                continue
            for problem in _compare(state_dir, plan, job, begun, job.uid in caught, tally):
                tally.wrong.append(f"{plan.id} (uid {job.uid}): {problem}")
        tally.doubled += [f"{id} {n}" for (id, n), times in begun.items() if times > 1]
        tally.wrong += _order_problems(db, signed)
        tally.wrong += _event_problems(db)
    return tally


def _compare(
    state_dir: Path,
    plan: Planned,
    job: Job,
    begun: Counter[tuple[str, int]],
    caught: bool,
    tally: Tally,
) -> Iterator[str]:
    nothing_ran = all(command.state == "skipped" for command in job.commands)
    if plan.result == job.result and _may_be_cut(plan) and nothing_ran:
        # Ended before its start, or before a start that was to be done again.
        if any(begun[plan.id, n] for n in range(len(plan.commands))):
            yield "ran, though it was killed before its start"
        return
    unknown = [
        command.n
        for command in job.commands
        if command.state == "finished" and command.return_code is None
    ]
    crashed = caught and (bool(unknown) or job.result == "lost")
    if crashed:
        tally.crashed += 1
    else:
        tally.unknown += len(unknown)
    if not (unknown or crashed) and job.result != plan.result:
        yield f"result {job.result} instead of {plan.result}"
    # What was to be ended may have been decided to end before it was lost.
    if unknown and not (
        job.result == "lost" or (_may_be_cut(plan) and job.result == plan.result)
    ):
        yield f"result {job.result} instead of lost"
    past_unknown = False
    for n, (command, code, log) in enumerate(
        zip(job.commands, plan.codes, plan.logs, strict=True)
    ):
        if past_unknown:
            if command.state != "skipped" or begun[plan.id, n]:
                yield f"command {n} is {command.state} behind a lost one"
            continue
        data = logs.read(logs.path(state_dir, job.uid, n), 0, 1 << 26)[1]
        if n in unknown:
            past_unknown = True
        elif crashed and not unknown and command.state == "skipped" and code is not None:
            # The crash came between it and the one before.
            past_unknown = True
            if data or begun[plan.id, n]:
                yield f"command {n} ran, and is skipped"
            continue
        elif command.return_code != code:
            yield f"command {n}: code {command.return_code} instead of {code}"
        if log is None:
            if command.state != "skipped" or data or begun[plan.id, n]:
                yield f"command {n} ran, or left a log"
            continue
        if n in unknown or plan.codes[n] == 127 or _may_be_cut(plan):
            pass
        elif not begun[plan.id, n]:
            yield f"command {n} never ran"
        size = command.log_size or 0
        if crashed and n in unknown:
            fits = size == len(data) and _is_part(plan, log, data)
        else:
            fits = _fits(plan, log, data, size, n in unknown)
        if not fits:
            yield f"command {n}: log of {command.log_size}: {data[:200]!r}"
    if crashed and not past_unknown:
        yield "lost, though the end of every command is known"


def _may_be_cut(plan: Planned) -> bool:
    """Was it to be ended from outside, so that it may not even have come to its first word?"""
    return plan.kill or plan.result == "timed-out"


def _is_part(plan: Planned, log: bytes, data: bytes) -> bool:
    """May this be what a command has written that nobody let come to its end?"""
    return log.startswith(data) or (plan.grows and data.startswith(log))


def _fits(plan: Planned, log: bytes, data: bytes, size: int, unknown: bool) -> bool:
    if _may_be_cut(plan):
        return log.startswith(data) and size == len(data)
    if plan.grows:
        # The background child writes on; what is counted is what was there at the end, and a
        # command that was killed with its keeper may not have come to its first word.
        whole = unknown or len(log) <= size
        return data.startswith(log[:size]) and whole and size <= len(data)
    return (data == log and size == len(data)) or (unknown and size <= len(data))


def _order_problems(db: sqlite3.Connection, signed: Sequence[tuple[str, ...]]) -> list[str]:
    """Jobs of the serial queue must have run one by one, in the order of acceptance."""
    rows = db.execute("SELECT id FROM jobs WHERE queue = ? ORDER BY uid", (SERIAL,)).fetchall()
    serial = [id for (id,) in rows]
    there = set(serial)
    ran = [id for id, _, _ in signed if id in there]
    compact = [id for id, _ in itertools.groupby(ran)]
    expected = [id for id in serial if id in set(ran)]
    return [] if compact == expected else [f"serial queue ran {compact} for {expected}"]


def _event_problems(db: sqlite3.Connection) -> list[str]:
    """One sequence without gaps; each job told as it went."""
    problems: list[str] = []
    seqs = [seq for (seq,) in db.execute("SELECT seq FROM events ORDER BY seq")]
    if seqs != list(range(1, len(seqs) + 1)):
        problems.append("the events have gaps")
    told: dict[int, list[tuple[Any, ...]]] = {}
    for job, state, command, start, to in db.execute(
        "SELECT body ->> 'job', body ->> 'state', body ->> 'command', body ->> 'from',"
        " body ->> 'to' FROM events ORDER BY seq"
    ):
        told.setdefault(job, []).append((state, command, start, to))
    for uid, ran in db.execute(
        "SELECT uid, count(c.n) FROM jobs LEFT JOIN commands c ON job = uid"
        " AND c.started IS NOT NULL GROUP BY uid"
    ):
        stories = [entry for entry in told[uid] if entry[2] is None]
        expected = [
            ("pending", None),
            *(("running", n) for n in range(ran)),
            ("finished", None),
        ]
        if [entry[:2] for entry in stories] != expected:
            problems.append(f"job {uid} was told as {told[uid]}")
        ends: dict[int, int] = {}
        for _, command, start, to in (entry for entry in told[uid] if entry[2] is not None):
            if start != ends.get(command, 0) or to <= start:
                problems.append(f"job {uid}: progress from {start} to {to}")
            ends[command] = to
    return problems
