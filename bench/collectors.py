"""What the collectors cost: a line's way to a client, a backlog, many pools, idling.

python -m bench.collectors [--lines N] [--backlog N] [--seconds N]
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from collectors import pools, zpool_output
from tests.kit import QUIET, Daemon, RawClient, wait_for
from tests.kit.daemon import following
from tests.kit.figures import percentile, resident, spent
from tests.kit.state_file import state_file

DATE = "Thu Nov 26 18:00:02 UTC 2026"
POOL = "tank{0}\t10.9T\t1.21T\t9.67T\t3%\t-\t1.00x\t-\t{1}%\tONLINE"
# Promised: ms; ms; s with nothing but looking; lines/s; MiB; ms; % of a core; s.
MEDIAN, P99, POLLED, RATE, GROWTH, POOLS_TIME, PROCESSOR = 20, 100, 2.2, 50_000, 32, 20, 0.2
ROTATED_TIME = 3
COUNT = 500
# Rotations while nobody looked.
ROTATED = 40
# Lines written at a time.
CHUNK = 10_000


def daemon(scratch: Path, name: str, *, watched: bool = True) -> tuple[Daemon, Path]:
    """A daemon that follows a log of its own, and the log."""
    log = scratch / name / "lpreserver.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"{DATE}: Creating snapshot on tank/old\n")
    env = {} if watched else {"SYSADMD_PORTABLE": "1"}
    options = ("--log-level", "info")
    return Daemon(scratch / name / "state", following(log), options=options, env=env), log


def follow(one: Daemon, log: Path, lines: int, longest_pause: float) -> list[float]:
    """Seconds from an appended line to its event at a client."""
    source = random.Random(1)
    client = RawClient(one.state_dir).log_in()
    client.ask("events", "subscribe", {"systems": ["life-preserver"], "since": "now"})
    found: list[float] = []
    with log.open("a") as file:
        for number in range(lines):
            time.sleep(source.uniform(0, longest_pause))
            begun = time.perf_counter()
            file.write(f"{DATE}: Creating snapshot on tank/{number}\n")
            file.flush()
            while f"tank/{number}".encode() not in client.frame():
                pass
            found.append(time.perf_counter() - begun)
    client.close()
    return found


def delays(scratch: Path, lines: int) -> None:
    one, log = daemon(scratch, "watched")
    with one:
        found = follow(one, log, lines, 0.1)
    print(
        f"line to event, {lines} lines: median {1000 * percentile(found, 0.5):.1f} ms (limit"
        f" {MEDIAN}), p99 {1000 * percentile(found, 0.99):.1f} ms (limit {P99})"
    )
    one, log = daemon(scratch, "polled", watched=False)
    with one:
        found = follow(one, log, 10, 3)
    print(f"  with the observer off: longest {max(found):.2f} s (limit {POLLED})")


def read_so_far(state_dir: Path) -> int:
    """Bytes of the log that are committed as read."""
    with state_file(state_dir) as db:
        row = db.execute("SELECT value FROM positions").fetchone()
    return json.loads(row[0])["position"]["offset"] if row else 0


def backlog(scratch: Path, lines: int) -> None:
    one, log = daemon(scratch, "backlog")
    with one:
        wait_for(lambda: read_so_far(one.state_dir), "the first look")
        before = resident(one.pid)
    with log.open("a") as file:
        for start in range(0, lines, CHUNK):
            numbers = range(start, min(lines, start + CHUNK))
            file.write("".join(f"{DATE}: Creating snapshot on tank/{n}\n" for n in numbers))
    begun = time.perf_counter()
    for _ in log.open("rb"):
        pass
    bare = time.perf_counter() - begun
    begun = time.perf_counter()
    with one:
        client = RawClient(one.state_dir).log_in()
        most, answers = before, list[float]()
        while read_so_far(one.state_dir) < log.stat().st_size:
            asked = time.perf_counter()
            client.ask("rpc", "identify", {})
            answers.append(time.perf_counter() - asked)
            most = max(most, resident(one.pid))
            time.sleep(0.02)
        took, used = time.perf_counter() - begun, spent(one.pid)
        client.close()
    print(
        f"backlog of {lines:,} lines, start included: {lines / took:,.0f} lines/s,"
        f" {lines / used:,.0f} per s of CPU (limit {RATE:,}); splitting the file alone"
        f" {lines / bare:,.0f}/s; resident memory {most - before:+.1f} MiB (limit {GROWTH});"
        f" an answer meanwhile: p99 {1000 * percentile(answers, 0.99):.0f} ms"
    )


def rotated(scratch: Path, files: int) -> None:
    """From a daemon's start to the last line of many files that were rotated before it."""
    one, log = daemon(scratch, "rotated")
    with one:
        wait_for(lambda: read_so_far(one.state_dir), "the first look")
    for number in range(files, 0, -1):
        with log.open("a") as file:
            file.write(f"{DATE}: Creating snapshot on tank/{number}\n")
        log.rename(f"{log}.{number}")
        log.write_text("")
    begun = time.perf_counter()
    with one:
        started = time.perf_counter() - begun
        client = RawClient(one.state_dir).log_in()
        subscribed = {"systems": ["life-preserver"], "since": "oldest"}
        client.ask("events", "subscribe", subscribed)
        while b"tank/1 " not in client.frame().replace(b'"', b" "):
            pass
        took = time.perf_counter() - begun
        client.close()
    print(
        f"{files} rotated files: the last line {took:.2f} s after the daemon was started, and"
        f" {took - started:.2f} s after it was there (limit {ROTATED_TIME})"
    )


def many_pools() -> None:
    """What one look costs when nothing and when everything has changed."""
    text = "".join(POOL.format(n, n % 90) + "\n" for n in range(COUNT))
    other = text.replace("ONLINE", "DEGRADED")
    costs: list[float] = []
    known = look({}, text)
    for number in range(20):
        begun = time.process_time()
        known = look(known, other if number % 2 else text)
        costs.append(time.process_time() - begun)
    begun = time.process_time()
    rows = [line.split("\t") for line in text.splitlines()]
    bare = time.process_time() - begun
    print(
        f"{len(rows)} pools, parsed and compared: {1000 * max(costs):.1f} ms CPU (limit"
        f" {POOLS_TIME}); cutting the text alone {1000 * bare:.2f} ms"
    )


def look(known: dict[str, Any], text: str) -> dict[str, Any]:
    """As the watcher looks. Returns the reading."""
    answer = zpool_output.parse_list(text, frozenset())
    reading = pools.combine(answer.pools, {}, 90)
    pools.compare(known, reading)
    return reading


def idle(scratch: Path, seconds: float) -> None:
    """The daemon with all collectors at their defaults, beside one without any."""
    costs: list[float] = []
    for name, settings in (("quiet", QUIET), ("full", "")):
        with Daemon(scratch / name, settings, options=("--log-level", "info")) as one:
            # Past the start: the first readings are taken.
            time.sleep(5)
            before = spent(one.pid)
            time.sleep(seconds)
            costs.append(100 * (spent(one.pid) - before) / seconds)
    without, full = costs
    print(
        f"idle over {seconds:g} s: collectors {full - without:.3f} % of a core (limit"
        f" {PROCESSOR}); the daemon without them {without:.3f} %"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=300)
    parser.add_argument("--backlog", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        delays(scratch, options.lines)
        backlog(scratch, options.backlog)
        rotated(scratch, ROTATED)
        many_pools()
        idle(scratch, options.seconds)


if __name__ == "__main__":
    main()
