"""Starting, asking and killing the driver, its keeper and its guard; reading what they left."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dispatcher import logs, records
from dispatcher.records import Job

T = TypeVar("T")

DRIVER = Path(__file__).with_name("driver.py")
# Generous: the machine may be busy with other tests.
DEADLINE = 60.0


def wait_for(what: Callable[[], T | None], deadline: float = DEADLINE) -> T:
    """The first true value that `what` gives."""
    until = time.monotonic() + deadline
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < until, "what was waited for did not come"
        time.sleep(0.01)


class Daemon:
    """The driver: started, asked, killed, started again, on one state directory."""

    def __init__(
        self,
        state_dir: Path,
        *,
        portable: bool = False,
        door: Path | None = None,
        driver: Path = DRIVER,
        version: str = "",
        **settings: Any,
    ) -> None:
        self.state_dir = state_dir
        self.door = door or state_dir / "door"
        self.version = version
        self.driver = driver
        self.settings = settings
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "SYSADMD_PORTABLE"},
            **({"SYSADMD_PORTABLE": "1"} if portable else {}),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Daemon:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        clean(self.state_dir)

    @property
    def is_up(self) -> bool:
        return self.process is not None

    def start(self) -> None:
        with (self.state_dir / "driver.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    str(self.driver),
                    str(self.state_dir),
                    *(f"{name}={json.dumps(value)}" for name, value in self.settings.items()),
                ],
                env={
                    **self.environment,
                    "DRIVER_DOOR": str(self.door),
                    "DRIVER_VERSION": self.version,
                },
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        assert ready == b"ready\n", (self.state_dir / "driver.log").read_text()

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(DEADLINE)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Raises: OSError when the daemon dies meanwhile."""
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

    def job(self, uid: int) -> Job:
        with sqlite3.connect(self.state_dir / "state.db") as db:
            job = records.job(db, uid)
        db.close()
        assert job is not None
        return job

    def finished(self, uid: int) -> Job:
        """The job, once it is finished."""

        def look() -> Job | None:
            job = self.job(uid)
            return job if job.state == "finished" else None

        return wait_for(look)

    def log(self, uid: int, n: int = 0) -> bytes:
        return logs.read(logs.path(self.state_dir, uid, n), 0, 1 << 26)

    def events(self) -> list[tuple[int, dict[str, Any]]]:
        with sqlite3.connect(self.state_dir / "state.db") as db:
            rows = db.execute("SELECT seq, body FROM events ORDER BY seq").fetchall()
        db.close()
        return [(seq, json.loads(body)) for seq, body in rows]


def holders(state_dir: Path, role: str) -> list[int]:
    """The pids of the living keepers, or guards: they hold a lock on a file of their own."""
    return [pid for file in (state_dir / "keeper").glob(f"*.{role}") if (pid := _holder(file))]


def _holder(file: Path) -> int:
    # struct flock of Linux on 64 bits: type, whence, start, length, pid.
    question = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        with file.open("r+b") as open_file:
            answer = fcntl.fcntl(open_file, fcntl.F_GETLK, question)
    except OSError:
        return 0
    kind, _, _, _, pid = struct.unpack("hhqqi4x", answer)
    return 0 if kind == fcntl.F_UNLCK else int(pid)


def clean(state_dir: Path) -> None:
    """End what a test leaves: guard and keeper, and whatever still writes to its logs."""
    for role in ("guard", "keeper"):
        for pid in holders(state_dir, role):
            end(pid)
    for pid in writers(state_dir):
        end(pid)


def writers(state_dir: Path) -> list[int]:
    """The processes whose output is a log of this state directory."""
    found: list[int] = []
    jobs = f"{state_dir.resolve()}/jobs/"
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if str((entry / "fd" / "1").readlink()).startswith(jobs):
                    found.append(int(entry.name))
    return found


def end(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
