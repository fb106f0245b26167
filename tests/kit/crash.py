"""A crash of the machine, as the next daemon meets it.

Nobody lives, the last that was written may be gone, and it is another boot. The three parts may
be used alone: `cut_power`, `lose`, `another_boot`.
"""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Final, Literal, Protocol

import psutil

from tests.kit.processes import (
    clean,
    end,
    family,
    held,
    holders,
    holding,
    remains,
)
from tests.kit.state_file import state_file
from tests.kit.waiting import wait_for

# What is lost of that part of the books which the state file does not say was worked in. What
# was worked in is on disk: the state file's commit came after it.
Loss = Literal["nothing", "everything"]
# Marks of a boot that is not this one: of the fast way, and of the portable one.
ANOTHER: Final = "another"
ANOTHER_PORTABLE: Final = "~1000"


class Machine(Protocol):
    """A daemon with all that it has started."""

    @property
    def state_dir(self) -> Path: ...

    @property
    def is_up(self) -> bool: ...

    @property
    def pid(self) -> int: ...

    def kill(self) -> None: ...

    def start(self) -> object: ...


def machine_crash(
    daemon: Machine, loss: Loss | random.Random = "nothing", mark: str | None = None
) -> list[int]:
    """All of it, and the daemon is started again; returns the jobs that ran in the tables.

    loss: a source of chance decides for each book. mark: as `another_boot` has it.
    """
    cut_power(daemon)
    lose(daemon.state_dir, loss)
    caught = another_boot(daemon.state_dir, mark)
    daemon.start()
    return caught


def cut_power(daemon: Machine) -> None:
    """End the daemon, its guards and keepers, and all processes of its jobs, at one instant.

    Stopped first: nobody sees another end, and writes that down. Before them who would continue
    them: the daemon, then the guard.
    """
    frozen: dict[int, psutil.Process] = {}
    while fresh := [process for process in _everyone(daemon) if process.pid not in frozen]:
        for process in fresh:
            end(process.pid, signal.SIGSTOP)
            frozen[process.pid] = process
    for pid in frozen:
        end(pid)
    daemon.kill()
    wait_for(lambda: _is_dark(daemon.state_dir), "the end of all processes")


def _everyone(daemon: Machine) -> list[psutil.Process]:
    # Below the daemon is the pair that it may be starting.
    pids = [*([daemon.pid] if daemon.is_up else []), *remains(daemon.state_dir)]
    return family(pids)


def _is_dark(state_dir: Path) -> bool:
    if held(state_dir):
        # Of a command whose pid nobody had come to write down, and whose keeper was dead.
        for pid in holding(state_dir):
            end(pid)
    clean(state_dir)
    return not holders(state_dir) and not held(state_dir)


def lose(state_dir: Path, loss: Loss | random.Random) -> None:
    """Cut the books at or behind the place up to which they were worked in; nobody may live."""
    with state_file(state_dir) as db:
        worked_in = {
            keeper: (generation, position)
            for keeper, generation, position in db.execute("SELECT * FROM books")
        }
    for file in sorted((state_dir / "keeper").glob("*.book")):
        keeper, generation, _ = file.name.split(".")
        present, position = worked_in.get(keeper, (1, 0))
        if int(generation) >= present:
            _cut(file, position if int(generation) == present else 0, loss)


def _cut(file: Path, least: int, loss: Loss | random.Random) -> None:
    """Leave at least so many bytes of it."""
    data = file.read_bytes()
    if loss == "everything":
        file.write_bytes(data[:least])
    elif isinstance(loss, random.Random):
        kept = loss.choice([least, len(data), *(loss.randint(least, len(data)),) * 2])
        dice = loss.random()
        if not kept and dice < 0.5:
            # Not even its name had come to the disk.
            file.unlink()
        else:
            # Its length may have, but not what it says.
            file.write_bytes(data[:kept].ljust(len(data) if dice < 0.2 else 0, b"\0"))


def another_boot(state_dir: Path, mark: str | None = None) -> list[int]:
    """Let what the tables say to run, or to be lent, have been so in another boot; which it is.

    mark: of that boot; otherwise one of the kind that is there.
    """
    with state_file(state_dir) as db:
        change = "SET boot = coalesce(?, iif(boot LIKE '~%', ?, ?))"
        marks = (mark, ANOTHER_PORTABLE, ANOTHER)
        rows = db.execute(
            f"UPDATE jobs {change} WHERE state = 1 RETURNING uid", marks
        ).fetchall()
        # Of an older state there is no such table.
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'lent'").fetchone():
            rows += db.execute(f"UPDATE lent {change} RETURNING job", marks).fetchall()
    return sorted(uid for (uid,) in rows)
