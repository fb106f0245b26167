"""What it costs that very many jobs wait: memory, the next one's acceptance, a restart.

A part of bench.dispatch: python -m bench.dispatch --only queued
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from statistics import median

import psutil

from bench.job_load import CLIENTS, SERIAL, JobDaemon, accept, accept_many, order
from bench.rounds import compared, in_turn
from bench.table import Row
from tests.kit import RawClient, wait_for
from tests.kit.processes import members

# One at a time: before, and in a round.
_WARM, _ACCEPTED = 200, 200


class _Queue:
    """A daemon with a queue whose only lane is taken by a job that waits for a word."""

    def __init__(self, daemon: JobDaemon, room: Path, name: str) -> None:
        self.daemon = daemon
        self.gate = room / f"{name}.gate"
        self.mark = room / f"{name}.mark"
        os.mkfifo(self.gate)
        client = RawClient(daemon.state_dir).log_in()
        for command in (f"read word <'{self.gate}'", f"touch '{self.mark}'"):
            accept(client, order(SERIAL, ["sh", "-c", command]))
        # Every page has been touched.
        for _ in range(_WARM):
            accept(client, order(SERIAL))
        client.close()

    def memory(self) -> float:
        """Bytes that are the daemon's alone."""
        return float(psutil.Process(self.daemon.pid).memory_full_info().uss)


def long_queue(room: Path, rounds: int, count: int) -> list[Row]:
    """count: of the jobs that wait."""
    with JobDaemon(room / "empty") as one, JobDaemon(room / "full") as other:
        empty, full = _Queue(one, room, "empty"), _Queue(other, room, "full")
        before = full.memory()
        others = [RawClient(other.state_dir).log_in() for _ in range(CLIENTS)]
        took = accept_many(others, order(SERIAL), count)
        for client in others:
            client.close()
        each = (full.memory() - before) / count / 1024
        print(f"{count} jobs queued in {took:.1f} s")
        figures: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, seconds in _accept_each(empty, full).items():
                figures.setdefault(name, []).append(1000 * seconds)
        restarts = {"empty queue": [_restart(empty)], "sysadmd": [_restart(full)]}
        # It has begun to work the whole queue off.
        other.kill()
        one.kill()
    words = f"{count:,} queued"
    return [
        Row(name=f"{words}: memory a job", unit="KiB", now=each, floor=0.5, target=0.1),
        compared(
            f"{words}: accept, p50", "ms", figures, "sysadmd", "empty queue", marks=(1.5, 1.2)
        ),
        compared(
            f"{words}: from a start to the first start of a job",
            "s",
            restarts,
            "sysadmd",
            beside=["empty queue"],
            marks=(3, 1),
        ),
    ]


def _accept_each(empty: _Queue, full: _Queue) -> dict[str, float]:
    """The medians of the seconds that the next ones take."""
    # New ones each time: who is silent for long is taken for dead.
    clients = [RawClient(queue.daemon.state_dir).log_in() for queue in (empty, full)]
    acts = {
        name: partial(accept, client, order(SERIAL))
        for name, client in zip(("empty queue", "sysadmd"), clients, strict=True)
    }
    times = in_turn(_ACCEPTED, acts)
    for client in clients:
        client.close()
    return {name: median(found) for name, found in times.items()}


def _restart(queue: _Queue) -> float:
    """Seconds from the exec of the daemon until the first job that waits has begun.

    The job before it ended while the daemon was down.
    """
    daemon = queue.daemon
    daemon.stop()
    queue.gate.write_text("go\n")
    wait_for(lambda: not members(daemon.state_dir), "the end of the job that waits")
    begun = time.time()
    daemon.start()
    wait_for(queue.mark.exists, "the next job's file")
    return queue.mark.stat().st_mtime - begun
