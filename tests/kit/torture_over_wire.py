"""The torture over the wire: real daemon, TLS, WebSocket, and a subscriber who rides along.

It resumes through all of it and must have heard every event of the journal, once and in order.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from dispatcher import records
from sysadmd.client import Target, Unreachable, events
from tests.kit.daemon import QUIET, Daemon
from tests.kit.processes import clean
from tests.kit.raw_client import RawClient
from tests.kit.state_file import state_file
from tests.kit.torture import Tally, torture
from tests.kit.waiting import DEADLINE

_SETTINGS = "\n[dispatcher]\nkill_grace = 1\nprogress_interval = 0.2\n"


class _Victim(Daemon):
    """The real daemon, asked over its wire as the dispatcher alone is."""

    def __init__(self, state_dir: Path, portable: bool) -> None:
        env = {"SYSADMD_PORTABLE": "1"} if portable else {}
        super().__init__(state_dir, QUIET + _SETTINGS, env=env)
        self._clients = threading.local()

    def stop(self, seconds: float = DEADLINE) -> int:
        """SIGTERM; returns the exit status, which has to be 0."""
        status = super().stop(seconds)
        assert status == 0, f"exit status {status} after SIGTERM"
        return status

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request; a connection for each thread is kept. Raises: OSError."""
        if "kill" in request:
            return self._request({"action": "kill", "job_id": request["kill"]})
        (order,) = request["submit"]
        order = {**order, "queue": order.get("queue") or "no_queue"}
        id = self._request({"action": "submit", "job": order})["job"]["id"]
        with state_file(self.state_dir) as db:
            job = records.newest(db, id)
        # The reply means that it is on disk.
        assert job is not None, f"job {id} was acknowledged and is not there"
        return {"jobs": [[job.uid, job.id]]}

    def _request(self, args: dict[str, Any]) -> dict[str, Any]:
        client: RawClient | None = getattr(self._clients, "client", None)
        try:
            if client is None:
                client = RawClient(self.state_dir).log_in()
                self._clients.client = client
            client.send("rpc", "dispatcher", args)
            frame = json.loads(client.frame())
        except (OSError, AssertionError, ValueError) as error:
            self._clients.client = None
            raise ConnectionResetError(str(error)) from error
        if frame["name"] == "error" and frame["args"]["code"] == 503:
            raise ConnectionResetError("the daemon goes down")
        assert frame["name"] == "response", frame
        return dict(frame["args"])


class _Rider(threading.Thread):
    """A subscriber from the first event on, who resumes whatever happens."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(daemon=True)
        self._state_dir = state_dir
        self.heard = 0
        self.trouble = ""

    def run(self) -> None:
        try:
            asyncio.run(self._ride())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the bench's finding
            self.trouble = f"{type(error).__name__}: {error}"

    async def _ride(self) -> None:
        while True:
            try:
                async for event in events(
                    Target.local(self._state_dir), ["dispatcher"], since="oldest"
                ):
                    self.heard += event.merged
            except Unreachable:
                # Only the very first attempt is not tried again by itself.
                await asyncio.sleep(0.05)


def run(
    seed: int, jobs: int, kills: int, targets: str, portable: bool, crashes: int = 0
) -> tuple[Tally, str]:
    """One torture in a directory of its own; the tally, and what the subscriber says."""
    with tempfile.TemporaryDirectory(prefix="sysadmd-torture-") as directory:
        state_dir = Path(directory) / "state"
        state_dir.mkdir(mode=0o700)
        daemon = _Victim(state_dir, portable)
        rider = _Rider(state_dir)
        try:
            daemon.start()
            rider.start()
            daemon.stop()
            tally = torture(
                daemon,
                seed=seed,
                jobs=jobs,
                kills=kills,
                targets=targets.split(","),
                crashes=crashes,
            )
            daemon.start()
            said = _compare(state_dir, rider)
            daemon.stop()
        finally:
            if daemon.is_up:
                daemon.kill()
            clean(state_dir)
    return tally, said


def _compare(state_dir: Path, rider: _Rider) -> str:
    with state_file(state_dir) as db:
        (count,) = db.execute("SELECT count(*) FROM events").fetchone()
    until = time.monotonic() + 30
    while rider.heard < count and not rider.trouble and time.monotonic() < until:
        time.sleep(0.05)
    if rider.trouble or rider.heard != count:
        return f"events: heard {rider.heard} of {count}: {rider.trouble or 'not equal'}"
    return ""
