"""Twenty readers behind a network that cuts and stalls, and a daemon that is killed often.

python -m bench.chaos [--seconds N] [--seed S]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from tests.kit.chaos import READERS, Outcome, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        outcome = run(Path(scratch), options.seconds, options.seed)
    print(_describe(outcome, options))
    if not outcome.clean:
        raise SystemExit(1)


def _describe(outcome: Outcome, options: Any) -> str:
    words = (
        f"seed {options.seed}, {options.seconds:g} s: {outcome.events} events to {READERS}"
        f" readers, {outcome.kills} kills, {outcome.reconnections} reconnections,"
        f" {outcome.cuts} cuts, {outcome.stalls} stalls; lost {outcome.lost}, doubled"
        f" {outcome.doubled}, disordered {outcome.disordered}, merged {outcome.merged}, gapped"
        f" {outcome.gapped}; {outcome.ledgers} accounts, {outcome.unbalanced} not balanced"
    )
    return words + "\n" + json.dumps({"clean": outcome.clean, "lost": outcome.lost})


if __name__ == "__main__":
    main()
