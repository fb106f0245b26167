"""The dispatcher alone as a daemon: started, asked, killed, started again; what it left."""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dispatcher import logs
from sysadmd.machine import FORCED_PORTABLE
from tests.kit.jobs import Job, job_of
from tests.kit.needs import needs_linux
from tests.kit.processes import Program, clean, holders
from tests.kit.state_file import state_file
from tests.kit.teardown import checked
from tests.kit.waiting import DEADLINE, wait_for

PROGRAM = Path(__file__).with_name("driver_program.py")
# Of dealing with processes: the better ones of this system, and those of any. A run of all
# tests with SYSADMD_PORTABLE=1 has the latter alone.
WAYS = ["portable"] if FORCED_PORTABLE else ["fast", "portable"]


class Driver(Program):
    """A daemon with a dispatcher and nothing else, on a state directory that is there."""

    def __init__(
        self,
        state_dir: Path,
        *,
        portable: bool = False,
        door: Path | None = None,
        program: Path = PROGRAM,
        version: str = "",
        **settings: Any,
    ) -> None:
        """portable: whatever the whole run is, see WAYS. door: the socket where it is asked;
        version: not its own but this."""
        forced = {"SYSADMD_PORTABLE": "1"} if portable else {}
        super().__init__(state_dir / "driver.log", {**os.environ, **forced})
        self.state_dir = state_dir
        self.door = door or state_dir / "door"
        self.program = program
        self.version = version
        self.settings = settings

    def command(self) -> list[str]:
        """As `Program` has it."""
        settings = [f"{name}={json.dumps(value)}" for name, value in self.settings.items()]
        where = [str(self.state_dir), str(self.door), self.version]
        return [sys.executable, str(self.program), *where, *settings]

    def is_ready(self, line: str) -> bool:
        """As `Program` has it."""
        return line == "ready\n"

    def __enter__(self) -> Self:
        return self if self.is_up else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with checked(self, self.state_dir, error):
            self.kill()
            clean(self.state_dir)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request, and its reply. Raises: OSError when the daemon dies meanwhile."""
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(DEADLINE)
            door.connect(str(self.door))
            door.sendall(json.dumps(request).encode() + b"\n")
            reply = b""
            while not reply.endswith(b"\n"):
                part = door.recv(65536)
                if not part:
                    raise ConnectionResetError
                reply += part
        return dict(json.loads(reply))

    def submit(self, *commands: str | list[str], **more: Any) -> int:
        """Accept one job; returns its uid."""
        reply = self.ask({"submit": [{"commands": list(commands), **more}]})
        return int(reply["jobs"][0][0])

    def sign(self, script: str, **more: str | float) -> int:
        """Submit a job that signs the file `ledger` each time it runs."""
        order = ["sh", "-c", f"echo ran >>ledger; {script}"]
        return self.submit(order, cwd=str(self.state_dir), **more)

    def job(self, uid: int) -> Job:
        """The job, from the state file."""
        with state_file(self.state_dir) as db:
            job = job_of(db, uid)
        assert job is not None
        return job

    def finished(self, uid: int) -> Job:
        """The job, once it is finished."""

        def look() -> Job | None:
            self.check_alive()
            job = self.job(uid)
            return job if job.state == "finished" else None

        return wait_for(look, f"the end of job {uid}")

    def hold_book(self, more: int) -> int:
        """Let the keeper's book grow by `more` bytes and no further; returns the keeper's pid.

        It waits, for as long as it takes, in the middle of the line that does not fit.
        """
        needs_linux("prlimit(2)")
        (keeper,) = wait_for(lambda: holders(self.state_dir, "keeper"))
        (book,) = wait_for(lambda: list((self.state_dir / "keeper").glob("*.book")))
        limit = book.stat().st_size + more
        resource.prlimit(keeper, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        return keeper

    @staticmethod
    def release_book(keeper: int) -> None:
        """Undo `hold_book`."""
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(keeper, resource.RLIMIT_FSIZE, unlimited)

    def output(self, uid: int, n: int = 0) -> bytes:
        """The log of a job's command."""
        return logs.read(logs.path(self.state_dir, uid, n), 0, 1 << 26)[1]

    def events(self) -> list[tuple[int, dict[str, Any]]]:
        """All events: seq and body."""
        with state_file(self.state_dir) as db:
            rows = db.execute("SELECT seq, body FROM events ORDER BY seq").fetchall()
        return [(seq, json.loads(body)) for seq, body in rows]
