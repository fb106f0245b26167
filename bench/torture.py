"""Mixed jobs from several clients while the daemon, its keeper, or both are killed; the proof.

python -m bench.torture [--kills N] [--seed S] [--jobs N] [--targets LIST] [--portable]

Everything goes over the wire: real daemon, TLS, WebSocket. A subscriber that resumes rides
through all of it and must have heard every event of the journal, once and in order. Targets are
separated by commas, those that are killed together joined by +.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench.wire import RawClient
from dispatcher import records
from sysadmd.client import Target, Unreachable, events
from tests.conftest import QUIET
from tests.daemon import Daemon
from tests.dispatcher.harness import clean
from tests.dispatcher.torture import Tally, torture

ONE_AT_A_TIME = "daemon,keeper,daemon+keeper,keeper+daemon"
SETTINGS = "\n[dispatcher]\nkill_grace = 1\nprogress_interval = 0.2\n"


class WireDaemon:
    """The real daemon, asked over its wire."""

    def __init__(self, state_dir: Path, portable: bool) -> None:
        self.state_dir = state_dir
        env = {"SYSADMD_PORTABLE": "1"} if portable else {}
        self._daemon = Daemon(state_dir, QUIET + SETTINGS, env=env)
        self._up = False
        self._clients = threading.local()

    @property
    def is_up(self) -> bool:
        return self._up

    def start(self) -> None:
        self._daemon.start()
        self._up = True

    def kill(self) -> None:
        self._up = False
        self._daemon.kill()

    def stop(self) -> None:
        self._up = False
        status = self._daemon.stop()
        assert status == 0, f"exit status {status} after SIGTERM"

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request; a connection for each thread is kept. Raises: OSError."""
        if "kill" in request:
            return self._request({"action": "kill", "job_id": request["kill"]})
        (order,) = request["submit"]
        order = {**order, "queue": order.get("queue") or "no_queue"}
        id = self._request({"action": "submit", "job": order})["job"]["id"]
        with sqlite3.connect(self.state_dir / "state.db", timeout=30) as db:
            job = records.newest(db, id)
        db.close()
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


class Rider(threading.Thread):
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


def run(seed: int, jobs: int, kills: int, targets: str, portable: bool) -> tuple[Tally, str]:
    """One torture in a directory of its own; the tally, and what the subscriber says."""
    with tempfile.TemporaryDirectory(prefix="sysadmd-torture-") as directory:
        state_dir = Path(directory) / "state"
        state_dir.mkdir(mode=0o700)
        daemon = WireDaemon(state_dir, portable)
        rider = Rider(state_dir)
        try:
            daemon.start()
            rider.start()
            daemon.stop()
            tally = torture(
                daemon, seed=seed, jobs=jobs, kills=kills, targets=targets.split(",")
            )
            daemon.start()
            said = _compare(state_dir, rider)
            daemon.stop()
        finally:
            if daemon.is_up:
                daemon.kill()
            clean(state_dir)
    return tally, said


def _compare(state_dir: Path, rider: Rider) -> str:
    with sqlite3.connect(state_dir / "state.db") as db:
        (count,) = db.execute("SELECT count(*) FROM events").fetchone()
    db.close()
    until = time.monotonic() + 30
    while rider.heard < count and not rider.trouble and time.monotonic() < until:
        time.sleep(0.05)
    if rider.trouble or rider.heard != count:
        return f"events: heard {rider.heard} of {count}: {rider.trouble or 'not equal'}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=0, help="default: twice the kills")
    parser.add_argument("--targets", default=ONE_AT_A_TIME)
    parser.add_argument("--portable", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    jobs = options.jobs or max(60, 2 * options.kills)
    tally, said = run(options.seed, jobs, options.kills, options.targets, options.portable)
    took = time.monotonic() - began
    for problem in (*tally.lost, *tally.doubled, *tally.wrong, *filter(None, [said])):
        print(problem, file=sys.stderr)
    print(f"seed {options.seed}, {options.targets}, {took:.0f} s: {tally}")
    expected = "guard" in options.targets or options.portable
    bad = tally.lost or tally.doubled or tally.wrong or said
    return 1 if bad or (tally.unknown and not expected) else 0


if __name__ == "__main__":
    sys.exit(main())
