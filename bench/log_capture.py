"""What it takes until a command's output is in its log, beside the shell's `cmd >file`.

A part of bench.dispatch: python -m bench.dispatch --only log
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from sqlite3 import Connection

from bench.compiled import compiled
from bench.job_load import SERIAL, JobDaemon, order
from bench.rounds import compared
from bench.table import Row
from dispatcher import logs
from tests.kit import RawClient
from tests.kit.state_file import state_file

# Bytes of one write, and what is written, as a share of the whole.
_WRITES = {"blocks of 64 KiB": (65536, 1.0), "lines of 100 bytes": (100, 0.25)}
_MARKS = {"blocks of 64 KiB": (0.90, 0.95), "lines of 100 bytes": (0.85, 0.95)}
# Between two looks, s; a run takes tenths of a second.
_LOOK = 0.001
_FILE = "cmd >file"


def capture(room: Path, rounds: int, size: int) -> list[Row]:
    """size: bytes that a command writes in blocks. Rows of throughput."""
    program = compiled("log_writer", room)
    if program is None:
        return []
    rows: list[Row] = []
    with JobDaemon(room / "capture") as daemon:
        client = RawClient(daemon.state_dir).log_in()
        for name, (each, share) in _WRITES.items():
            count = int(size * share) // each
            command = [str(program), str(each), str(count)]
            mebibytes = each * count / 2**20
            figures: dict[str, list[float]] = {"sysadmd": [], _FILE: []}
            for _ in range(rounds):
                figures[_FILE].append(mebibytes / _by_shell(command, room / "output"))
                took = _by_daemon(daemon, client, command, each * count)
                figures["sysadmd"].append(mebibytes / took)
            what = f"log of a command, {name}"
            rows.append(
                compared(
                    what, "MiB/s", figures, "sysadmd", _FILE, marks=_MARKS[name], higher=True
                )
            )
        client.close()
    return rows


def _by_shell(command: list[str], output: Path) -> float:
    begun = time.perf_counter()
    with output.open("wb") as file:
        subprocess.run(command, stdout=file, check=True)
    took = time.perf_counter() - begun
    output.unlink()
    return took


def _by_daemon(daemon: JobDaemon, client: RawClient, command: list[str], size: int) -> float:
    """Seconds from the request until the state file says that it has ended."""
    with state_file(daemon.state_dir) as db:
        begun = time.perf_counter()
        client.send_text(order(SERIAL, command))
        client.frame()
        while not (found := _ended(db)):
            time.sleep(_LOOK)
        took = time.perf_counter() - begun
    uid, code, written = found
    assert (code, written) == (0, size), f"code {code}, {written} bytes of {size}"
    # Nobody reads it; to have it on the disk would be in the way of the next.
    logs.remove(daemon.state_dir, [uid])
    return took


def _ended(db: Connection) -> tuple[int, int, int] | None:
    """Of the newest job, if it has ended: uid, code, and bytes that its command wrote."""
    found: tuple[int, int, int] | None = db.execute(
        "SELECT uid, return_code, log_size FROM jobs JOIN commands ON job = uid"
        " WHERE uid = (SELECT max(uid) FROM jobs) AND jobs.state = 2"
    ).fetchone()
    return found
