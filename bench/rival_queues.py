"""Who else runs jobs: task-spooler, and the limit, a loop in C that spawns and waits."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

# Each waiting job of task-spooler's is a process with a connection, of which it takes fewer
# than a thousand.
MOST_WAITING = 900


def spawn_loop(program: Path, count: int, lanes: int) -> float:
    """The limit: seconds to start `true` so often, with so many at once, and see each end.

    program: spawn_loop.c, compiled.
    """
    arguments = [str(program), true_program(), str(count), str(lanes)]
    return float(subprocess.run(arguments, stdout=subprocess.PIPE, check=True).stdout)


def true_program() -> str:
    """The path of `true`."""
    found = shutil.which("true")
    assert found is not None
    return found


def spooler_program() -> str | None:
    """The path of task-spooler. None: it is not installed, which is said."""
    # Debian has it as tsp; elsewhere ts may be another program of that name.
    found = shutil.which("tsp")
    if found is None:
        print("no task-spooler: there is no tsp")
    return found


class Spooler:
    """A server of task-spooler's with an empty queue, and what its clients take."""

    def __init__(self, program: str, room: Path, lanes: int = 1) -> None:
        """room: a directory that is there, where it keeps its socket and the jobs' outputs."""
        self._program = program
        self._lanes = str(lanes)
        self._gate = room / "gate"
        self._environment = {
            **os.environ,
            "TS_SOCKET": str(room / "spooler"),
            "TMPDIR": str(room),
            "TS_SLOTS": self._lanes,
            "TS_MAXCONN": str(MOST_WAITING + 50),
        }
        self._quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]

    def __enter__(self) -> Self:
        os.mkfifo(self._gate)
        # Whoever comes first starts the server.
        self.ask("-S", self._lanes)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.ask("-K")

    def ask(self, *arguments: str) -> None:
        """A client, run until it has been served."""
        line = [self._program, *arguments]
        pid = os.posix_spawn(self._program, line, self._environment, file_actions=self._quiet)
        status = os.waitpid(pid, 0)[1]
        assert status == 0, f"{line} ended with {status}"

    def hold(self) -> None:
        """Let nothing begin until `release`: a job takes all lanes, and waits."""
        self.ask("-N", self._lanes, "sh", "-c", f"read word <'{self._gate}'")

    def release(self) -> None:
        """Let go what was held."""
        self._gate.write_text("go\n")

    def drain(self, count: int) -> float:
        """Seconds that so many jobs take which were held, to the last end."""
        assert count <= MOST_WAITING
        self.hold()
        for _ in range(count):
            self.ask("true")
        begun = time.perf_counter()
        self.release()
        # A job more, in so many: it needs all lanes, so it comes after the others.
        self.ask("-f", "-N", self._lanes, "true")
        return time.perf_counter() - begun
