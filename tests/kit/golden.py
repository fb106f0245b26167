"""Golden state directories: what a daemon left behind, and what its clients then held.

`python -m tests.kit.golden NAME [CODE]` makes tests/golden/NAME by today's daemon, or by that
of another checkout. Linux and root: the host name is that of a namespace of its own. What is
kept is `state.db`, `jobs/`, `keeper/`, and `expected.json`, see `Expected`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypedDict

from sysadmd.events import SYSTEMS
from tests.kit.client import Client
from tests.kit.crash import cut_power
from tests.kit.daemon import MAIN, ROOT, Daemon
from tests.kit.pools import StandIn, watching
from tests.kit.processes import holding
from tests.kit.state_file import state_file
from tests.kit.waiting import wait_for

GOLDEN: Final = ROOT / "tests" / "golden"
# Of a state directory; the rest of it is a daemon's own, or secret.
PARTS: Final = ("state.db", "jobs", "keeper")
# For years.
KEPT: Final = "[retention]\nevents_days = 1000000\njobs_days = 1000000\n"
# Values of jobs' environments; see `ORDERS`.
WORDS: Final = {name: f"word-of-{name}-{'x' * 20}" for name in ("keyed", "waiting", "running")}
PAUSED: Final = "pkg_queue"
# Jobs, in the order in which they are asked for, as `submit` takes them.
ORDERS: Final[dict[str, dict[str, Any]]] = {
    "succeeded": {"commands": [["printf", "größe: %s\n", "日本語 ☃"], "echo done", ["true"]]},
    "failed": {"commands": [["sh", "-c", "echo no >&2; exit 3"], "echo never"]},
    "missing": {"commands": ["/nonexistent/program"]},
    "not-utf8": {"commands": [["printf", r"\377\300 and \303"]], "queue": "no_queue"},
    "long-output": {"commands": [["sh", "-c", "seq 2000"]]},
    "killed": {"commands": [["sh", "-c", "echo it begins; sleep 100000"], "echo never"]},
    "timed-out": {"commands": ["sleep 100000"], "timeout": 0.5},
    "keyed": {
        "commands": [["sh", "-c", 'test -n "$WORD" && echo known']],
        "env": {"WORD": WORDS["keyed"]},
        "key": "a key",
        "cwd": "/",
        "queue": "iocage_queue",
    },
    "never-begun": {"commands": ["echo never"], "queue": PAUSED},
    "waiting": {
        "commands": [["sh", "-c", 'echo "$WORD"']],
        "env": {"WORD": WORDS["waiting"]},
        "queue": PAUSED,
    },
    "running": {
        "commands": ["echo first", ["sh", "-c", "echo it begins; sleep 100000"], "echo never"],
        "env": {"WORD": WORDS["running"]},
    },
}
# How many commands each of those that end will have begun.
_BEGUN: Final = {
    **{"succeeded": 3, "failed": 1, "missing": 1, "not-utf8": 1, "long-output": 1},
    **{"killed": 1, "timed-out": 1, "keyed": 1},
}
# What two of them write, as the JSON of an event has it; their command lines have no end of a
# line there.
BEGINS: Final = r"it begins\n"
# The recorded state, and its phase, that the pools are in at the end.
POOLS: Final = ("ozfs-several-pools-one-bad", 1)
LINES: Final = (
    "Creating snapshot on tank",
    "ERROR: Failed creating snapshot on tank/größe",
    "WARNING: Skipping tank@auto-2026-11-01-01-00-00 because userrefs (2) is greater than 0.",
    "Finished replication task on tank -> backup.example",
)


class Expected(TypedDict):
    """What a client held before all ended: the state that a later version has to know.

    versions: of each room's tables. events: the frames of all, as read from the oldest on.
    middle, last: cursors, and `middle_at`: how many events there are up to the first. jobs: by
    id, as `show` tells of them; logs: the text of each command that was begun. history: ids of
    the finished ones, newest first. state: the system's, as a snapshot has it. token, revoked:
    secrets. trail: the audit trail's texts.
    """

    versions: dict[str, int]
    events: list[dict[str, Any]]
    middle: str
    middle_at: int
    last: str
    jobs: dict[str, dict[str, Any]]
    logs: dict[str, list[str]]
    history: list[str]
    state: dict[str, Any]
    token: str
    revoked: str
    trail: list[str]


def dispatcher(client: Client, action: str, **args: Any) -> Any:
    """One request to it."""
    return client.ask("rpc", "dispatcher", {"action": action, **args})


def submit(client: Client, id: str) -> dict[str, Any]:
    """Ask for a job of `ORDERS`."""
    told: dict[str, Any] = dispatcher(client, "submit", job={"id": id, **ORDERS[id]})["job"]
    return told


def finish(client: Client, id: str) -> None:
    """Wait for the job's end. The client hears of the dispatcher."""
    client.until(
        lambda frame: (
            frame["name"] == "dispatcher"
            and (frame["args"]["process_id"], frame["args"]["state"]) == (id, "finished")
        )
    )


def read_events(daemon: Daemon, since: str) -> list[dict[str, Any]]:
    """The frames of all events behind this cursor up to now; their chain is whole."""
    everything = {"systems": list(SYSTEMS), "since": since}
    with daemon.client() as client:
        head = client.ask("events", "subscribe", {**everything, "since": "now"})["cursor"]
    found: list[dict[str, Any]] = []
    with daemon.client() as client:
        at = client.ask("events", "subscribe", everything)["prev"]
        while at != head:
            frame = client.event()
            assert frame["prev"] == at, (frame, at)
            assert frame["name"].replace("_", "-") in SYSTEMS, frame
            found.append(frame)
            at = frame["cursor"]
    return found


def read_trail(client: Client) -> list[str]:
    """The audit trail from its beginning."""
    args = {
        "action": "read_logs",
        "logs": ["hostinfo"],
        "time_format": "time_t_seconds",
        "start_time": "0",
        # Whatever the clock says.
        "end_time": "99999999999",
    }
    return list(client.ask("rpc", "logs", args)["hostinfo"].values())


def read_logs(client: Client, id: str, count: int) -> list[str]:
    """The texts of the job's first commands."""
    texts: list[str] = []
    for number in range(count):
        text, at = "", 0
        while True:
            page = dispatcher(client, "log", job_id=id, command=number, offset=at, limit=65536)
            text += page["text"]
            if page["next"] == at:
                break
            at = page["next"]
        texts.append(text)
    return texts


def read_state(client: Client) -> dict[str, Any]:
    """The system's state, as of now."""
    client.events.clear()
    client.ask("events", "subscribe", {"systems": ["system-state"], "snapshot": True})
    (*_, snapshot) = client.until(lambda frame: frame["name"] == "snapshot")
    state: dict[str, Any] = snapshot["args"]["system_state"]
    return state


class _Elder(Daemon):
    """The daemon of this checkout, on a machine with a name of its own."""

    def __init__(self, code: Path, state_dir: Path, config: str) -> None:
        named = ("unshare", "--uts", "sh", "-c", 'hostname golden.example; exec "$@"', "sh")
        super().__init__(state_dir, config, wrapper=named)
        self._main = str(code / "sysadmd" / "__main__.py")

    def command(self) -> list[str]:
        """As `Program` has it."""
        return [self._main if word == MAIN else word for word in super().command()]

    def rename_machine(self) -> None:
        """The host's name is another one from now on."""
        there = ["nsenter", "--target", str(self.pid), "--uts"]
        subprocess.run([*there, "hostname", "renamed.example"], check=True)

    def client(self) -> Client:
        """As `Daemon` has it; what it tells need not be of today's shape."""
        client = super().client()
        client.documented = False
        return client


def _play(daemon: _Elder, pools: StandIn, log: Path) -> Expected:
    """Let everything happen that leaves something in the state directory."""
    with daemon.client() as client:
        client.ask("events", "subscribe", {"systems": list(SYSTEMS), "since": "oldest"})
        _change_the_machine(daemon, client, pools, log)
        _run_jobs(client)
        secrets = [_add_token(client, name) for name in ("reporter", "revoked")]
        client.ask("rpc", "tokens", {"action": "revoke", "name": "revoked"})
        client.until(lambda frame: BEGINS in json.dumps(frame["args"]))
        logs = {id: read_logs(client, id, begun) for id, begun in _BEGUN.items()}
        jobs = {id: dispatcher(client, "show", job_id=id)["job"] for id in ORDERS}
        history = [job["id"] for job in dispatcher(client, "history")["jobs"]]
        trail = read_trail(client)
    events = read_events(daemon, "oldest")
    with daemon.client() as client:
        state = read_state(client)
    middle = len(events) // 2
    return Expected(
        versions={},
        events=events,
        middle=events[middle - 1]["cursor"],
        middle_at=middle,
        last=events[-1]["cursor"],
        jobs=jobs,
        logs=logs,
        history=history,
        state=state,
        token=secrets[0],
        revoked=secrets[1],
        trail=trail,
    )


def _add_token(client: Client, name: str) -> str:
    args = {"action": "add", "name": name, "role": "read"}
    return str(client.ask("rpc", "tokens", args)["token"])


def _change_the_machine(daemon: _Elder, client: Client, pools: StandIn, log: Path) -> None:
    def is_followed() -> bool:
        with state_file(daemon.state_dir) as db:
            found = db.execute(
                "SELECT 1 FROM positions, readings WHERE readings.name = 'pools'"
            )
            return found.fetchone() is not None

    wait_for(is_followed, "the first look")
    with log.open("a") as file:
        for text in LINES:
            file.write(f"Tue Nov 24 18:00:02 UTC 2026: {text}\n")
    for _ in LINES:
        client.until(lambda frame: frame["name"] == "life_preserver")
    pools.put(*POOLS)
    client.until(lambda frame: "DEGRADED" in json.dumps(frame["args"]))
    daemon.rename_machine()
    client.until(lambda frame: frame["args"].get("hostname") == "renamed.example")


def _run_jobs(client: Client) -> None:
    dispatcher(client, "pause", queue=PAUSED)
    for id in ORDERS:
        submit(client, id)
        if id == "killed":
            client.until(lambda frame: BEGINS in json.dumps(frame["args"]))
        if id in ("killed", "never-begun"):
            dispatcher(client, "kill", job_id=id)
        if id not in ("waiting", "running"):
            finish(client, id)


def make(target: Path, code: Path) -> None:
    """Make a golden state directory by the daemon of this checkout."""
    with tempfile.TemporaryDirectory(prefix="sysadmd-golden-") as directory:
        state_dir = Path(directory) / "state"
        log = Path(directory) / "lpreserver.log"
        log.touch()
        pools = StandIn(Path(directory))
        pools.put("ozfs-mirror-healthy", 1)
        config = watching(str(pools.command), hostname="true")
        _, _, off = config.rpartition("[collectors.life_preserver]")
        config = config.replace(off, f'\nlog = "{log}"\n')
        daemon = _Elder(code, state_dir, config)
        daemon.start()
        try:
            expected = _play(daemon, pools, log)
        finally:
            cut_power(daemon)
        assert not holding(state_dir), "somebody of it lives"
        # With the file's own settings; its WAL goes with the last connection.
        with contextlib.closing(sqlite3.connect(state_dir / "state.db")) as db:
            expected["versions"] = dict(db.execute("SELECT room, version FROM schema"))
            (head,) = db.execute("SELECT max(seq) FROM events").fetchone()
            assert expected["last"].split(":")[1] == str(head), "told after the last look"
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _keep(state_dir, target, expected)


def _keep(state_dir: Path, target: Path, expected: Expected) -> None:
    shutil.rmtree(target, ignore_errors=True)
    for source in _files(state_dir):
        copy = target / source.relative_to(state_dir)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    text = json.dumps(expected, ensure_ascii=False)
    (target / "expected.json").write_text(text + "\n")


def _files(state_dir: Path) -> Iterator[Path]:
    """Those that are kept; git takes no pipes, and no directory without a file."""
    for part in PARTS:
        place = state_dir / part
        files = [place] if place.is_file() else sorted(place.rglob("*"))
        yield from (file for file in files if file.is_file())


def expected_of(name: str) -> Expected:
    """Of the golden directory of this name."""
    expected: Expected = json.loads((GOLDEN / name / "expected.json").read_text())
    return expected


def lay(name: str, state_dir: Path) -> None:
    """A copy of it with a state directory's modes, which git does not keep."""
    for part in PARTS:
        source = GOLDEN / name / part
        if source.is_dir():
            shutil.copytree(source, state_dir / part)
        elif source.exists():
            state_dir.mkdir(exist_ok=True)
            shutil.copy(source, state_dir / part)
    for path in (state_dir, *state_dir.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)


if __name__ == "__main__":
    make(GOLDEN / sys.argv[1], Path(sys.argv[2]) if sys.argv[2:] else ROOT)
