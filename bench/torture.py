"""Mixed jobs from several clients while the daemon, its keeper, or both are killed; the proof.

python -m bench.torture [--kills N] [--crashes N] [--seed S] [--jobs N] [--targets LIST]
                        [--portable]

Everything goes over the wire: real daemon, TLS, WebSocket. A subscriber that resumes rides
through all of it and must have heard every event of the journal, once and in order. Targets are
separated by commas, those that are killed together joined by +. A crash is one of the machine:
all die at once, the last lines of the books may be lost, and it is another boot; what it caught
may be lost, and is counted apart.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.kit.torture_over_wire import run

ONE_AT_A_TIME = "daemon,keeper,daemon+keeper,keeper+daemon"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--crashes", type=int, default=0, help="spread among the kills")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=0, help="default: twice the kills")
    parser.add_argument("--targets", default=ONE_AT_A_TIME)
    parser.add_argument("--portable", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    jobs = options.jobs or max(60, 2 * (options.kills + options.crashes))
    tally, said = run(
        options.seed, jobs, options.kills, options.targets, options.portable, options.crashes
    )
    took = time.monotonic() - began
    for problem in (*tally.lost, *tally.doubled, *tally.wrong, *filter(None, [said])):
        print(problem, file=sys.stderr)
    print(f"seed {options.seed}, {options.targets}, {took:.0f} s: {tally}")
    expected = "guard" in options.targets or options.portable
    bad = tally.lost or tally.doubled or tally.wrong or said
    return 1 if bad or (tally.unknown and not expected) else 0


if __name__ == "__main__":
    sys.exit(main())
