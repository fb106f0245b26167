"""How fast jobs are taken, run and told of, beside task-spooler and a loop in C.

python -m bench.dispatch [--quick] [--rounds N] [--jobs N] [--queued N] [--only PART]…

Parts: drain, trip, accept, queued, log. In each round everybody takes a turn, so that whatever
else the machine does meets all. The daemon is asked over its wire, TLS and WebSocket.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

from bench.compiled import compiled
from bench.job_load import (
    CLIENTS,
    SERIAL,
    SPENDERS,
    WIDE,
    JobDaemon,
    accept,
    accept_many,
    drain,
    order,
    trip,
)
from bench.log_capture import capture
from bench.long_queue import long_queue
from bench.loop_lag import lag
from bench.rival_queues import MOST_WAITING, Spooler, spawn_loop, spooler_program
from bench.rounds import compared, in_turn
from bench.table import Row, markdown
from tests.kit import RawClient
from tests.kit.figures import percentile

_LOOP, _SPOOLER, _OURS = "C", "tsp", "sysadmd"
_LANES = {SERIAL: 1, WIDE: 4}
# Floor and target, x C and x tsp.
_DRAIN_MARKS = {1: ((0.45, 0.75), (0.9, 1.5)), 4: ((0.50, 0.80), (0.60, 1.0))}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is done. jobs: of one drain. trips: one at a time, in a round, and acceptances,
    of which ten times as many follow in flight. log: bytes that a command writes.
    """

    rounds: int
    jobs: int
    trips: int
    queued: int
    log: int


FULL = Scale(rounds=5, jobs=300, trips=100, queued=100_000, log=2**30)
# In less than a minute. Without the part `queued`.
QUICK = Scale(rounds=3, jobs=100, trips=40, queued=0, log=2**28)


class Figures(dict[str, list[float]]):
    """One figure a round, by name."""

    def add(self, name: str, figure: float) -> None:
        self.setdefault(name, []).append(figure)


def rows(scale: Scale, only: Collection[str] = ()) -> list[Row]:
    """All rows, or those of some parts."""
    found: list[Row] = []
    for name, part in PARTS.items():
        if name in (only or PARTS):
            print(f"measuring: {name}", file=sys.stderr)
            with tempfile.TemporaryDirectory(prefix=f"sysadmd-{name}-") as scratch:
                found += part(Path(scratch), scale)
    return found


def drains(room: Path, scale: Scale) -> list[Row]:
    """A queue that was held, and what each of its jobs costs."""
    loop, spooler = compiled("spawn_loop", room), spooler_program()
    found = {lanes: Figures() for lanes in _LANES.values()}
    with JobDaemon(room / "state", max(found)) as daemon:
        client = RawClient(daemon.state_dir).log_in()
        for queue in _LANES:
            # The keeper and its starters are there, and every page has been touched.
            drain(daemon, client, queue, 20)
        for number in range(scale.rounds):
            for queue, lanes in _LANES.items():
                figures = found[lanes]
                if loop is not None:
                    figures.add(_LOOP, scale.jobs / spawn_loop(loop, scale.jobs, lanes))
                if spooler is not None:
                    place = _new(room, f"spooler-{lanes}-{number}")
                    with Spooler(spooler, place, lanes) as rival:
                        figures.add(_SPOOLER, scale.jobs / rival.drain(scale.jobs))
                drained = drain(daemon, client, queue, scale.jobs)
                figures.add(_OURS, scale.jobs / drained.seconds)
                figures.add("CPU", 1e6 * sum(drained.cpu.values()) / scale.jobs)
                for who, used in drained.cpu.items():
                    figures.add(who, 1e6 * used / scale.jobs)
        client.close()
        late = lag(daemon, "queues drain")
    rows = [row for lanes, figures in found.items() for row in _drain_rows(lanes, figures)]
    return [*rows, late]


def _drain_rows(lanes: int, figures: Figures) -> list[Row]:
    words = f"{lanes} lane" + "s" * (lanes > 1)
    return [
        *(
            compared(
                f"drain of `true`, {words}, x {limit}",
                "jobs/s",
                figures,
                _OURS,
                limit,
                beside=[_LOOP, _SPOOLER],
                marks=marks,
                higher=True,
            )
            for limit, marks in zip((_LOOP, _SPOOLER), _DRAIN_MARKS[lanes], strict=True)
        ),
        compared(
            f"CPU of ours a job, {words}",
            "µs",
            figures,
            "CPU",
            marks=(350, 200),
        ),
        *(compared(f"of it, {who}", "µs", figures, who) for who in SPENDERS),
    ]


def round_trips(room: Path, scale: Scale) -> list[Row]:
    """From a request to the event that its job has finished."""
    spooler = spooler_program()
    middle, late = Figures(), Figures()
    with JobDaemon(room / "state") as daemon:
        client = RawClient(daemon.state_dir).log_in()
        client.ask("events", "subscribe", ["dispatcher"])
        ours = partial(trip, client, order(SERIAL))
        in_turn(20, {_OURS: ours})
        for number in range(scale.rounds):
            with ExitStack() as stack:
                acts: dict[str, Callable[[], object]] = {_OURS: ours}
                if spooler is not None:
                    place = _new(room, f"spooler-{number}")
                    rival = stack.enter_context(Spooler(spooler, place))
                    acts[_SPOOLER] = partial(rival.ask, "-f", "true")
                times = in_turn(scale.trips, acts)
            for who, found in times.items():
                middle.add(who, 1000 * median(found))
                late.add(who, 1000 * percentile(found, 0.99))
        client.close()
    name = "submit → `finished` at a client"
    return [
        compared(f"{name}, p50", "ms", middle, _OURS, _SPOOLER, marks=(1.5, 1.0)),
        compared(f"{name}, p99", "ms", late, _OURS, _SPOOLER),
    ]


def acceptances(room: Path, scale: Scale) -> list[Row]:
    """From a request to its reply, while the queue is held. Each round has an empty one."""
    spooler = spooler_program()
    times, rates = Figures(), Figures()
    for number in range(scale.rounds):
        with JobDaemon(room / f"state-{number}") as daemon, ExitStack() as stack:
            clients = [RawClient(daemon.state_dir).log_in() for _ in range(CLIENTS)]
            clients[0].ask("rpc", "dispatcher", {"action": "pause", "queue": SERIAL})
            ours = partial(accept, clients[0], order(SERIAL))
            in_turn(50, {_OURS: ours})
            acts: dict[str, Callable[[], object]] = {_OURS: ours}
            if spooler is not None:
                rival = stack.enter_context(Spooler(spooler, _new(room, f"spooler-{number}")))
                rival.hold()
                stack.callback(rival.release)
                acts[_SPOOLER] = partial(rival.ask, "true")
            found = in_turn(scale.trips, acts)
            many = 10 * scale.trips
            rates.add(_OURS, many / accept_many(clients, order(SERIAL), many))
            rates.add("one at a time", scale.trips / sum(found[_OURS]))
            for who, taken in found.items():
                times.add(who, 1000 * median(taken))
            for client in clients:
                client.close()
    return [
        compared("accept, one at a time, p50", "ms", times, _OURS, _SPOOLER, marks=(0.5, 0.3)),
        compared(
            "accept, 64 in flight",
            "jobs/s",
            rates,
            _OURS,
            "one at a time",
            marks=(6, 12),
            higher=True,
        ),
    ]


def queued(room: Path, scale: Scale) -> list[Row]:
    """Very many jobs that wait."""
    return long_queue(room, scale.rounds, scale.queued) if scale.queued else []


def log(room: Path, scale: Scale) -> list[Row]:
    """What a command writes."""
    return capture(room, scale.rounds, scale.log)


PARTS: Mapping[str, Callable[[Path, Scale], list[Row]]] = {
    "drain": drains,
    "trip": round_trips,
    "accept": acceptances,
    "queued": queued,
    "log": log,
}


def _new(room: Path, name: str) -> Path:
    place = room / name
    place.mkdir()
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less than a minute")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--jobs", type=int, help=f"of one drain, at most {MOST_WAITING}")
    parser.add_argument("--queued", type=int, help="that wait; 0: without that part")
    parser.add_argument("--only", choices=[*PARTS], action="append", default=[])
    options = parser.parse_args()
    scale = QUICK if options.quick else FULL
    given = {name: getattr(options, name) for name in ("rounds", "jobs", "queued")}
    scale = replace(scale, **{name: n for name, n in given.items() if n is not None})
    print(markdown(rows(scale, options.only)))


if __name__ == "__main__":
    main()
