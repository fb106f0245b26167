"""All benches one after the other, and bench/RESULTS.md of what they say.

python -m bench [BENCH]…

With names only these run, and no file is written: that is of one whole run.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_HERE: Final = Path(__file__).resolve().parent
_RESULTS: Final = _HERE / "RESULTS.md"
# So that all together take half an hour, and not half a day.
_SHORTER: Final[Mapping[str, Sequence[str]]] = {
    "bridge": ("--peers", "1000", "--messages", "5000", "--rounds", "3"),
    "chaos": ("--seconds", "60"),
    "collectors": ("--backlog", "100000", "--seconds", "20"),
    "doors": ("--clients", "2000"),
    "idle": ("--seconds", "30"),
    "resume": ("--events", "50000", "--flood", "200000"),
    "torture": ("--kills", "40"),
}
_IS_PROGRAM: Final = '\nif __name__ == "__main__":'
# s; none takes a third of it.
_TIMEOUT: Final = 1800
# Who is measured beside, and how each says its version.
_OTHERS: Final = {
    "task-spooler": ("tsp", "-V"),
    "mosquitto": ("mosquitto", "-h"),
    "nats-server": ("nats-server", "-v"),
    "cc": ("cc", "--version"),
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a bench said, and how it ended. command: as it can be repeated."""

    command: str
    text: str
    seconds: float
    ended: str

    @property
    def section(self) -> str:
        """As Markdown."""
        words = f"{self.seconds:.0f} s{self.ended and ', '}{self.ended}"
        return f"## `{self.command}`\n\n{words}\n\n```\n{self.text.strip()}\n```\n"


def names() -> list[str]:
    """The modules here that are programs."""
    programs = [file for file in _HERE.glob("[!_]*.py") if _IS_PROGRAM in file.read_text()]
    return sorted(file.stem for file in programs)


def run(name: str) -> Run:
    """A bench, run to its end; what it says on its errors is passed on as it comes."""
    line = ["-m", f"bench.{name}", *_SHORTER.get(name, ())]
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *line], stdout=subprocess.PIPE, text=True, cwd=_HERE.parent
    )
    try:
        text, _ = process.communicate(timeout=_TIMEOUT)
        ended = f"ended with status {process.returncode}" if process.returncode else ""
    except subprocess.TimeoutExpired:
        process.terminate()
        text, _ = process.communicate()
        ended = f"cut off after {_TIMEOUT} s"
    seconds = time.monotonic() - begun
    return Run(command=" ".join(["python", *line]), text=text, seconds=seconds, ended=ended)


def circumstances() -> Iterable[str]:
    """Machine, date and versions; the lines of a list."""
    memory = psutil.virtual_memory().total / 2**30
    yield f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC"
    yield f"{os.cpu_count()} cores, {platform.machine()}, {memory:.0f} GiB of memory"
    yield f"{platform.system()} {platform.release()}"
    yield f"{platform.python_implementation()} {platform.python_version()}"
    yield f"{ssl.OPENSSL_VERSION}; SQLite {sqlite3.sqlite_version}"
    for name, command in _OTHERS.items():
        yield f"{name}: {_first_line(command) or 'absent, so not measured'}"


def _first_line(command: Sequence[str]) -> str:
    program = shutil.which(command[0])
    if program is None:
        return ""
    # mosquitto has it in its help, which is an error.
    found = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    return (found.stdout or found.stderr).strip().partition("\n")[0]


def main() -> int:
    known = names()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bench", nargs="*", help=", ".join(known))
    options = parser.parse_args()
    for name in options.bench:
        if name not in known:
            parser.error(f"there is no bench {name}")
    runs: list[Run] = []
    for name in options.bench or known:
        print(f"bench: {name}", file=sys.stderr)
        runs.append(run(name))
        print(runs[-1].section, flush=True)
    if not options.bench:
        listed = "\n".join(f"- {line}" for line in circumstances())
        head = f"# What the benches say\n\nWritten by `make bench`.\n\n{listed}\n"
        _RESULTS.write_text("\n".join([head, *(one.section for one in runs)]))
    return 1 if any(one.ended for one in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
