"""What the daemon costs when nothing happens: start, memory, processor.

python -m bench.idle [--seconds N]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.kit import Daemon
from tests.kit.figures import resident, spent
from tests.kit.processes import holders

# The contract's promises: s of CPU to the ready line at the second start, MiB, % of one core.
START, MEMORY, PROCESSOR = 0.5, 60.0, 0.3


def start_cost(daemon: Daemon) -> float:
    """Seconds of CPU from exec to the ready line, children included."""
    daemon.start()
    cost = spent(daemon.pid)
    daemon.stop()
    return cost


def bare_cost() -> float:
    """The limit: a Python that imports the libraries and does nothing."""
    code = "import asyncio, ssl, sqlite3, msgspec, websockets.server, watchdog, sh, psutil"
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True)
    after = os.times()
    return (
        after.children_user
        + after.children_system
        - before.children_user
        - (before.children_system)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        daemon = Daemon(Path(scratch) / "state", options=("--log-level", "info"))
        daemon.start().stop()
        costs = sorted(start_cost(daemon) for _ in range(5))
        bare = sorted(bare_cost() for _ in range(5))
        print(
            f"start to ready, later starts: {costs[2]:.2f} s CPU (limit {START}); importing the"
            f" libraries alone {bare[2]:.2f} s, ratio {costs[2] / bare[2]:.1f}"
        )
        with daemon:
            # Past the start: the first readings are taken, the keeper is there.
            time.sleep(5)
            before = spent(daemon.pid)
            time.sleep(options.seconds)
            used = 100 * (spent(daemon.pid) - before) / options.seconds
            memory = resident(daemon.pid)
            print(f"resident memory: {memory:.1f} MiB (limit {MEMORY:g})")
            for other in map(psutil.Process, holders(daemon.state_dir)):
                full = other.memory_full_info()
                print(
                    f"  beside it {other.name()} {other.pid}: {full.rss / 2**20:.1f} MiB"
                    f" resident, {full.uss / 2**20:.1f} MiB its own"
                )
            print(f"processor over {options.seconds:g} s: {used:.3f} % (limit {PROCESSOR})")
            print(json.dumps({"start": costs[2], "memory": memory, "processor": used}))


if __name__ == "__main__":
    main()
