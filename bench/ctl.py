"""What a command of `sysadmctl` costs: processor time, of which most is loading.

python -m bench.ctl [--times N]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.kit import ROOT, Daemon

# ms of CPU, user and system, of one run.
HELP, STATE = 150, 250
_MAIN = "from sysadmd.ctl import main; main()"


def cost(arguments: Sequence[str]) -> float:
    """Milliseconds of CPU of a Python that runs this to its end."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd="/",
    )
    # Of this child alone, whatever else has ended meanwhile.
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} ended with {process.returncode}")
    return 1000 * (used.ru_utime + used.ru_stime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=11)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        Daemon(Path(scratch) / "state") as daemon,
    ):
        runs = {
            "python": ("-c", "pass"),
            "libraries": ("-c", "import asyncio, ssl, websockets"),
            "help": ("-c", _MAIN, "--help"),
            "state": ("-c", _MAIN, "--state-dir", str(daemon.state_dir), "state", "--json"),
        }
        costs: dict[str, list[float]] = {name: [] for name in runs}
        # In turns: what else the machine does meanwhile meets all alike.
        for _ in range(options.times):
            for name, arguments in runs.items():
                costs[name].append(cost(arguments))
    middle = {name: statistics.median(found) for name, found in costs.items()}
    bare, floor = middle["python"], middle["libraries"]
    print(f"a Python that does nothing: {bare:.0f} ms CPU; with the libraries: {floor:.0f} ms")
    print(
        f"sysadmctl --help: {middle['help']:.0f} ms CPU (limit {HELP}),"
        f" ratio {middle['help'] / bare:.1f} to nothing"
    )
    print(
        f"sysadmctl state --json: {middle['state']:.0f} ms CPU (limit {STATE}),"
        f" ratio {middle['state'] / floor:.1f} to the libraries"
    )
    print(json.dumps(middle))
    if middle["help"] > HELP or middle["state"] > STATE:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
