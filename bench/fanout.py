"""Fan-out over TLS 1.3: what a delivery costs, beside the least that it can cost and rivals.

python -m bench.fanout [--clients N] [--rounds N] [--events N] [--quick] [--only ROW ...]

All systems run at once with as many clients each, and take turns: a ratio is that of one round,
told is the median of them. An event is told to all before the next is published, or all of a
burst; of sysadmd it is in the journal before. What a delivery costs is the slope between a few
clients and all: what it costs to publish is not in it, and stands in a row of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from bench.cheap_peers import raise_limits
from bench.compiled import TLS, compiled
from bench.fan_history import history
from bench.fan_systems import BURSTS, Load, System, by_c, by_mosquitto, by_nats, by_sysadmd, cpu
from bench.loop_lag import lag
from bench.table import Row, markdown
from tests.kit import QUIET, Daemon
from tests.kit.figures import percentile

# Who is there before the others: what an event costs whoever is told.
FEW = 10
# Between two events that come at a moderate rate; us.
PAUSE = 50_000
US = 1e6
# Of others, cores: above it a time is that of the neighbours.
BUSY = 0.3
OTHERS = "used by others, before or after"
ROWS = ("delivery", "latency", "bursts", "connection", "memory", "history", "readers")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured: each number is that of a round and a system."""

    clients: int = 1000
    rounds: int = 5
    few: int = 300
    serial: int = 60
    paced: int = 60
    bursts: int = 10
    events: int = 100_000
    seconds: float = 4


QUICK = Size(rounds=2, few=100, serial=30, paced=20, events=20_000, seconds=2)


@dataclass(eq=False)
class Measured:
    """What was found of one system; each list has a figure a round, in SI units."""

    system: System
    load: Load
    few: float = 0
    memory: int = 0
    kib: float = 0
    found: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def add(self, name: str, value: float) -> None:
        self.found.setdefault(name, []).append(value)

    def cpu(self) -> float:
        return self.system.cpu()


def memory(pid: int) -> int:
    """Bytes that are its own, with its share of what it has in common with others."""
    full = psutil.Process(pid).memory_full_info()
    return int(getattr(full, "pss", full.rss))


def come(all_of_them: Sequence[Measured], size: Size) -> None:
    """The clients come; what that costs, and what each takes."""
    for one in all_of_them:
        one.load.ask("publisher")
        one.load.ask(f"connect {FEW}")
        one.load.ask("run 0 20 0")
        before = one.cpu()
        one.load.ask(f"run 0 {size.few} 0")
        one.few = (one.cpu() - before) / size.few
        one.memory = memory(one.system.program.pid)
    each = (size.clients - FEW) // size.rounds
    for _ in range(size.rounds):
        for one in all_of_them:
            before = one.cpu()
            one.load.ask(f"connect {each}")
            one.add("connection", (one.cpu() - before) / each * US)
            one.load.ask("drain")
    for one in all_of_them:
        one.kib = (memory(one.system.program.pid) - one.memory) / (each * size.rounds) / 1024


def tell(one: Measured, clients: int, size: Size, only: Sequence[str]) -> None:
    """One round of one system."""
    one.load.ask("drain")
    if "delivery" in only:
        before = one.cpu()
        one.load.ask(f"run 0 {size.serial} 0")
        each = (one.cpu() - before) / size.serial
        one.add("delivery", (each - one.few) / (clients - FEW) * US)
    if "latency" in only:
        took = one.load.ask(f"run 0 {size.paced} {PAUSE}")
        one.add("p50", percentile(took, 0.5) / 1000)
        one.add("p99", percentile(took, 0.99) / 1000)
    if "bursts" in only:
        before, busy = one.cpu(), cpu(one.load.pid)
        took = one.load.ask("run 1 1 0")
        # Who is slow has no more than it can do in a second.
        more = min(size.bursts - 1, int(US / took[0]))
        took += one.load.ask(f"run 1 {more} 0") if more else []
        seconds = sum(took) / US
        one.add("bursts", len(took) * BURSTS[1] * clients / seconds)
        used = one.cpu() - before
        one.add("joined", used / (len(took) * BURSTS[1] * clients) * US)
        one.add("busy", used / seconds)
        one.add("load busy", (cpu(one.load.pid) - busy) / seconds)


def fan_out(room: Path, client: Path, size: Size, only: Sequence[str]) -> list[Row]:
    """The rows about clients that are told live."""
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(
            Daemon(room / "state", QUIET, options=("--log-level", "info"))
        )
        tls = daemon.state_dir / "tls"
        systems: list[System | None] = [by_sysadmd(daemon), *by_c(room, tls, stack)]
        systems += [by_mosquitto(room, tls, stack), by_nats(room, tls, stack)]
        found: list[Measured] = []
        for system in filter(None, systems):
            load = Load(client, system.orders)
            stack.callback(load.kill)
            load.begin()
            found.append(Measured(system, load))
        come(found, size)
        clients = FEW + (size.clients - FEW) // size.rounds * size.rounds
        for _ in range(size.rounds):
            for one in found:
                tell(one, clients, size, only)
        late = lag(daemon, f"{clients:,} come, and are told")
    return [*rows_of(found, clients), late]


def rows_of(found: Sequence[Measured], clients: int) -> list[Row]:
    ours, others = found[0], found[1:]

    def row(
        what: str,
        name: str,
        unit: str,
        marks: tuple[float, float] | None,
        limit: str = "C",
        higher: bool = False,
    ) -> list[Row]:
        if what not in ours.found:
            return []
        ratios: list[float] = []
        for one in others:
            if one.system.name == limit:
                pairs = zip(ours.found[what], one.found[what], strict=True)
                ratios = [mine / least for mine, least in pairs]
        return [
            Row(
                name=name,
                unit=unit,
                now=median(ours.found[what]),
                beside={one.system.name: median(one.found[what]) for one in others},
                limit=limit,
                ratio=median(ratios) if ratios else None,
                spread=(min(ratios), max(ratios)) if ratios else None,
                floor=marks and marks[0],
                target=marks and marks[1],
                higher_is_better=higher,
            )
        ]

    many = f"{clients:,} clients"
    rows = row("delivery", f"server CPU of a delivery, {many}", "us", (1.3, 1.05))
    rows += row("p50", "event to all have it, 20 a second, p50", "ms", (1.7, 1.2))
    rows += row("p99", "the same, p99", "ms", None)
    burst = f"deliveries, {BURSTS[1]} events in flight"
    rows += row("bursts", burst, "/s", (0.5, 0.9), "C joined", higher=True)
    rows += row("joined", "the same: server CPU of a delivery", "us", None, "C joined")
    rows += row("busy", "the same: CPU of the server", "of a core", None, "")
    rows += row("load busy", "the same: CPU of the load", "of a core", None, "")
    rows += row("connection", "CPU of connection, TLS and login", "us", (1.8, 1.3))
    kept = {one.system.name: one.kib for one in others}
    name = "memory of an idle client"
    rows.append(Row(name=name, unit="KiB", now=ours.kib, beside=kept, floor=25, target=20))
    few = {one.system.name: one.few * US for one in others}
    name = f"CPU of an event that {FEW} are told"
    rows.append(Row(name=name, unit="us", now=ours.few * US, beside=few))
    return rows


def measure(room: Path, size: Size, only: Sequence[str] = ROWS) -> list[Row]:
    """The rows; none if there is no load client."""
    client = compiled("fan_clients", room, TLS)
    if client is None:
        return []
    raise_limits()
    rows: list[Row] = []
    busy = others_use()
    parts: dict[Callable[[Path, Path, Size, Sequence[str]], list[Row]], Sequence[str]] = {
        fan_out: ROWS[:5],
        _history: ROWS[5:],
    }
    for part, names in parts.items():
        wanted = [name for name in names if name in only]
        if wanted:
            rows += part(room, client, size, wanted)
    busy = max(busy, others_use())
    return [*rows, Row(name=OTHERS, unit="cores", now=busy)]


def others_use() -> float:
    """Cores that are busy now, when nothing of ours runs."""
    return psutil.cpu_percent(1) / 100 * (psutil.cpu_count() or 1)


def _history(room: Path, client: Path, size: Size, only: Sequence[str]) -> list[Row]:
    return history(
        room,
        client,
        events=size.events,
        rounds=min(3, size.rounds),
        seconds=size.seconds,
        crowd="readers" in only,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="below a minute, wider spreads")
    parser.add_argument("--clients", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--events", type=int, help="in the history that is read back")
    parser.add_argument("--only", choices=ROWS, action="append")
    options = parser.parse_args()
    size = QUICK if options.quick else Size()
    given = {name: getattr(options, name) for name in ("clients", "rounds", "events")}
    size = dataclasses.replace(size, **{key: value for key, value in given.items() if value})
    with tempfile.TemporaryDirectory(prefix="sysadmd-fanout-") as room:
        rows = measure(Path(room), size, options.only or ROWS)
    print(markdown(rows))
    if any(row.name == OTHERS and row.now > BUSY for row in rows):
        print("\nothers kept the machine busy: times and rates say little, costs (CPU) roughly")
        print("what they would; take the table again when nothing else runs")


if __name__ == "__main__":
    main()
