"""What it costs that very many jobs wait: memory, the next one's acceptance, a restart.

A part of bench.dispatch: python -m bench.dispatch --only queued
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median

import psutil

from bench.job_load import CLIENTS, SERIAL, JobDaemon, accept_each, accept_many, order
from bench.rounds import compared
from bench.table import Row
from tests.kit import RawClient, wait_for
from tests.kit.processes import members

_WARM, _TURN = 200, 100


class _Queue:
    """A daemon with a queue whose only lane is taken by a job that waits for a word."""

    def __init__(self, daemon: JobDaemon, room: Path, name: str) -> None:
        self.daemon = daemon
        self.gate = room / f"{name}.gate"
        self.mark = room / f"{name}.mark"
        os.mkfifo(self.gate)
        client = RawClient(daemon.state_dir).log_in()
        for command in (f"read word <'{self.gate}'", f"touch '{self.mark}'"):
            accept_each(client, order(SERIAL, ["sh", "-c", command]), 1)
        client.close()
        # Every page has been touched.
        self.accept(_WARM)

    def accept(self, count: int) -> float:
        """The median of the seconds that the next ones take."""
        # A new one each time: one that is not read for long is taken for dead.
        client = RawClient(self.daemon.state_dir).log_in()
        accept_each(client, order(SERIAL), 5)
        found = median(accept_each(client, order(SERIAL), count))
        client.close()
        return found

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
        figures: dict[str, list[float]] = {"sysadmd": [], "empty queue": []}
        for _ in range(rounds):
            figures["empty queue"].append(1000 * empty.accept(_TURN))
            figures["sysadmd"].append(1000 * full.accept(_TURN))
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
