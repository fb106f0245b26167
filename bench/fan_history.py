"""Reading back over TLS: one client, and what a crowd of them costs who is told live.

A part of bench.fanout. The limit beside the first is a sender in C of as many bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.fan_systems import (
    FanServer,
    Load,
    by_c,
    by_sysadmd,
    cpu,
    sender_orders,
    sysadmd_orders,
)
from bench.loop_lag import lag
from bench.resume import JOBS_PER_100, fill_jobs, fill_logs
from bench.table import Row
from sysadmd.events import SYSTEMS
from tests.kit import QUIET, Daemon
from tests.kit.figures import percentile

READERS = 200
# Live events come so far apart while others read, us.
PAUSE = 20_000
# One in each frame of an event.
_EVENT = b'"id":"none"'


def history(
    room: Path, client: Path, *, events: int, rounds: int, seconds: float, crowd: bool
) -> list[Row]:
    """crowd: with the row of those who read all at once."""
    daemon = Daemon(room / "history", QUIET, options=("--log-level", "info"))
    jobs = events * JOBS_PER_100 // 100
    with daemon:
        fill_jobs(daemon, jobs)
    fill_logs(daemon.state_dir, events - 3 * jobs)
    with daemon, contextlib.ExitStack() as stack:
        systems = by_c(room, daemon.state_dir / "tls", stack)
        servers = [one.program for one in systems if isinstance(one.program, FanServer)]
        rows = alone(daemon, client, servers[:1], events, rounds)
        if crowd:
            rows += among(daemon, client, rounds, seconds)
        rows.append(lag(daemon, "history is read"))
    return rows


def alone(
    daemon: Daemon, client: Path, servers: Sequence[FanServer], events: int, rounds: int
) -> list[Row]:
    """servers: in C, or none."""
    ours: list[float] = []
    least: list[float] = []
    costs: list[float] = []
    least_costs: list[float] = []
    back = [*sysadmd_orders(daemon, SYSTEMS, "oldest"), f"mark {_EVENT.hex()}"]
    for _ in range(rounds):
        before = cpu(daemon.pid)
        took, size = read(client, back, events)
        ours.append(events / took)
        costs.append((cpu(daemon.pid) - before) / events * 1e6)
        for server in servers:
            before = cpu(server.pid)
            took, _ = read(client, sender_orders(server, events, int(size / events)), events)
            least.append(events / took)
            least_costs.append((cpu(server.pid) - before) / events * 1e6)
    ratios = [mine / other for mine, other in zip(ours, least, strict=False)]
    cost_ratios = [mine / other for mine, other in zip(costs, least_costs, strict=False)]
    beside = {"C": median(least)} if least else {}
    name = "history read back by one client"
    return [
        Row(
            name=name,
            unit="events/s",
            now=median(ours),
            beside=beside,
            floor=100_000,
            higher_is_better=True,
        ),
        Row(
            name=f"{name}, bytes to those of a bare sender",
            unit="events/s",
            now=median(ours),
            beside=beside,
            limit="C",
            ratio=median(ratios) if ratios else None,
            spread=(min(ratios), max(ratios)) if ratios else None,
            target=0.5,
            higher_is_better=True,
        ),
        Row(
            name="the same: server CPU of an event",
            unit="us",
            now=median(costs),
            beside={"C": median(least_costs)} if least_costs else {},
            limit="C",
            ratio=median(cost_ratios) if cost_ratios else None,
        ),
    ]


def read(client: Path, orders: Sequence[str], count: int) -> tuple[float, float]:
    """Seconds from the connection to the last of so many events, and their bytes."""
    load = Load(client, orders).begin()
    try:
        load.ask("connect 1")
        took, size = load.ask(f"until {count}")
    finally:
        load.kill()
    return took, size


def among(daemon: Daemon, client: Path, rounds: int, seconds: float) -> list[Row]:
    """One who is told live, with a crowd that reads all, and without."""
    system = by_sysadmd(daemon)
    live = Load(client, system.orders).begin()
    back = sysadmd_orders(daemon, SYSTEMS, "oldest")
    times = int(seconds * 1e6 / PAUSE)
    quiet: list[float] = []
    busy: list[float] = []
    rates: list[float] = []
    try:
        live.ask("publisher")
        live.ask("connect 1")
        live.ask(f"run 0 10 {PAUSE}")
        for _ in range(rounds):
            quiet.append(percentile(live.ask(f"run 0 {times} {PAUSE}"), 0.99))
            crowd = Load(client, back).begin()
            try:
                crowd.ask(f"connect {READERS}")
                (before,) = crowd.ask("flow 0.2")
                crowd.tell(f"flow {seconds}")
                busy.append(percentile(live.ask(f"run 0 {times} {PAUSE}"), 0.99))
                (after,) = crowd.hear()
            finally:
                crowd.kill()
            rates.append((after - before) / seconds / 2**20)
    finally:
        live.kill()
    ratios = [one / other for one, other in zip(busy, quiet, strict=True)]
    return [
        Row(
            name=f"p99 of live events while {READERS} read back",
            unit="ms",
            now=median(busy) / 1000,
            beside={"without": median(quiet) / 1000},
            limit="without",
            ratio=median(ratios),
            spread=(min(ratios), max(ratios)),
            floor=3,
            target=1.5,
        ),
        Row(name="the same: what they are sent", unit="MiB/s", now=median(rates)),
    ]
