"""How fast a queue that was held drains, as a ratio to spawning the same program in a loop.

python -m bench.drain [--jobs N] [--rounds N] [--lanes N]

Every job is one command, `true`. The time is from the word to go on until the state file says
that all are finished. The limit is a loop of posix_spawn and waitpid; it takes turns with the
queues, so that whatever else the machine does meets both. Uses nothing but the driver: copied
into another checkout, it measures that one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.kit.driver import Driver
from tests.kit.state_file import state_file

# Accepted in one commit.
BATCH = 100
# A queue of one lane; the jobs without a queue have as many as are asked for.
SERIAL = "pkg_queue"
# Between two looks at the state file, s: an error of the time, and a cost to who is measured.
LOOK = 0.005


def drain(daemon: Driver, queue: str | None, jobs: int) -> float:
    """Seconds that this many jobs take, from `resume` to the last end."""
    daemon.ask({"pause": queue})
    for start in range(0, jobs, BATCH):
        orders = [{"commands": ["true"], "queue": queue}] * min(BATCH, jobs - start)
        daemon.ask({"submit": orders})
    begun = time.perf_counter()
    daemon.ask({"resume": queue})
    with state_file(daemon.state_dir) as db:
        while db.execute("SELECT 1 FROM jobs WHERE state < 2 LIMIT 1").fetchone():
            time.sleep(LOOK)
        took = time.perf_counter() - begun
        (bad,) = db.execute("SELECT count(*) FROM jobs WHERE result != 'succeeded'").fetchone()
    assert not bad, f"{bad} jobs did not succeed"
    return took


def spawn_loop(program: str, count: int) -> float:
    """The limit: seconds to start it so often, one after the other, and see it end."""
    begun = time.perf_counter()
    for _ in range(count):
        pid = os.posix_spawn(program, [program], os.environ)
        assert os.waitpid(pid, 0)[1] == 0
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lanes", type=int, default=4, help="of the jobs without a queue")
    options = parser.parse_args()
    program = shutil.which("true")
    assert program is not None
    queues = {"1 lane": SERIAL, f"{options.lanes} lanes": None}
    times: dict[str, list[float]] = {name: [] for name in ("bare loop", *queues)}
    with (
        tempfile.TemporaryDirectory(prefix="sysadmd-drain-") as scratch,
        Driver(Path(scratch), default_parallel=options.lanes) as daemon,
    ):
        # The keeper is there, and every page has been touched.
        for queue in queues.values():
            drain(daemon, queue, 10)
        for _ in range(options.rounds):
            times["bare loop"].append(spawn_loop(program, options.jobs))
            for name, queue in queues.items():
                times[name].append(drain(daemon, queue, options.jobs))
    print(f"{options.jobs} jobs of `true`, medians of {options.rounds} rounds")
    print(f"{'':<12}{'s':>8}{'jobs/s':>9}{'ms/job':>9}{'ratio':>8}   from..to, s")
    for name, found in times.items():
        took = median(found)
        # Each round with the loop beside it.
        ratio = median(
            one / least for one, least in zip(found, times["bare loop"], strict=True)
        )
        print(
            f"{name:<12}{took:>8.3f}{options.jobs / took:>9.0f}"
            f"{took / options.jobs * 1000:>9.2f}{ratio:>8.1f}"
            f"   {min(found):.3f}..{max(found):.3f}"
        )


if __name__ == "__main__":
    main()
