"""A state.db with damaged pages: a sentence at the start, refusals later, never a traceback."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.kit import DEADLINE, QUIET, Daemon, wait_for

PAGE = 4096
# Small ones are damaged as well as those that are too large to be checked at the start.
UNCHECKED = "import sysadmd.schema as s; s.CHECKED_AT_START = 0"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The state.db of a daemon that has run jobs, and has some waiting."""
    with Daemon(tmp_path_factory.mktemp("good") / "state", QUIET) as daemon:
        with daemon.client() as client:
            client.ask("events", "subscribe", "dispatcher")
            client.ask("rpc", "dispatcher", {"action": "pause", "queue": "pkg_queue"})
            jobs = {f"job-{number}": ["true " + "x" * 200] for number in range(150)}
            client.ask("rpc", "dispatcher", {"action": "run", **jobs})
            for number in range(150):
                order = {"id": f"w{number}", "queue": "pkg_queue", "commands": ["true"] * 3}
                client.ask("rpc", "dispatcher", {"action": "submit", "job": order})
            left = len(jobs)
            while left:
                left -= client.event()["args"]["state"] == "finished"
        daemon.stop()
        return (daemon.state_dir / "state.db").read_bytes()


def pages(data: bytes, tmp_path: Path) -> dict[str, int]:
    """The first page of each table and index."""
    file = tmp_path / "whole.db"
    file.write_bytes(data)
    with closing(sqlite3.connect(file)) as db:
        return dict(db.execute("SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 0"))


def without(page: int, data: bytes) -> bytes:
    return data[: PAGE * (page - 1)] + b"\xff" * PAGE + data[PAGE * page :]


def daemon_on(data: bytes, tmp_path: Path) -> Daemon:
    daemon = Daemon(tmp_path / "state", QUIET, before=UNCHECKED)
    daemon.state_dir.mkdir(mode=0o700)
    (daemon.state_dir / "state.db").write_bytes(data)
    return daemon


@pytest.mark.parametrize("what", ["jobs", "jobs_active", "events", "journal"])
def test_a_page_that_the_start_needs(good: bytes, tmp_path: Path, what: str) -> None:
    daemon = daemon_on(without(pages(good, tmp_path)[what], good), tmp_path)
    done = subprocess.run(
        daemon.command(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "restore the file from a backup, or move it away" in done.stderr


def test_a_page_that_requests_need(good: bytes, tmp_path: Path) -> None:
    data = without(pages(good, tmp_path)["commands"], good)
    with daemon_on(data, tmp_path) as daemon, daemon.client() as client:
        for action in (
            {"action": "submit", "job": {"commands": ["true"]}},
            {"action": "show", "job_id": "w7"},
            {"action": "list"},
        ):
            refused = client.ask_raw("rpc", "dispatcher", action)["args"]
            assert refused["code"] == 507
            assert "restore the file from a backup" in refused["detail"]
        status, text = daemon.fetch("/healthz")
        assert status == 503
        assert "is damaged" in text
        assert client.ask("rpc", "identify")["type"] == "server"
        assert "Traceback" not in daemon.log.read_text()


def test_a_page_that_only_asking_about_accounts_needs(good: bytes, tmp_path: Path) -> None:
    data = without(pages(good, tmp_path)["tokens_by_expiry"], good)
    with daemon_on(data, tmp_path) as daemon, daemon.client() as client:
        # At each reload they are asked about.
        daemon.reload()
        wait_for(lambda: "damaged" in daemon.log.read_text(), "the damage")
        assert client.ask("rpc", "identify")
        assert daemon.stop() == 0


def test_a_page_of_old_events_is_not_skipped(good: bytes, tmp_path: Path) -> None:
    # A page of rows in the middle: the first and the newest events can be read.
    number = good.index(b'{"job":70,"state":"running"') // PAGE + 1
    with daemon_on(without(number, good), tmp_path) as daemon, daemon.client() as client:
        client.ask("events", "subscribe", {"systems": ["dispatcher"], "since": "oldest"})
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                client.event()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        assert "is damaged" in daemon.fetch("/healthz")[1]
        assert "Traceback" not in daemon.log.read_text()


def test_a_byte_in_an_old_event(good: bytes, tmp_path: Path) -> None:
    data = good.replace(b'{"job":70,"state":"running"', b'{"job":70,"state":"runni\0g"')
    assert data != good
    with daemon_on(data, tmp_path) as daemon, daemon.client() as client:
        asked = {"action": "read_logs", "start_time": "0"}
        refused = client.ask_raw("rpc", "logs", asked)["args"]
        assert refused["code"] == 507
        assert "restore the file from a backup" in refused["detail"]
        assert "Traceback" not in daemon.log.read_text()


def flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def fill_page(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) // PAGE) * PAGE
    data[at : at + PAGE] = rng.choice((bytes(PAGE), rng.randbytes(PAGE)))


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def fill_pages(data: bytearray, rng: random.Random) -> None:
    for _ in range(10):
        fill_page(data, rng)


@pytest.mark.long
@pytest.mark.parametrize("damage", [flip, fill_page, cut, fill_pages])
@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_damaged_nobody_sees_a_traceback(
    good: bytes,
    tmp_path: Path,
    damage: Callable[[bytearray, random.Random], None],
    seed: int,
) -> None:
    data = bytearray(good)
    damage(data, random.Random(seed))
    daemon = daemon_on(bytes(data), tmp_path)
    with daemon.log.open("w") as log:
        process = subprocess.Popen(
            daemon.command(), stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        if daemon.is_ready(process.stdout.readline()):
            use(daemon)
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    said = daemon.log.read_text()
    assert process.returncode == 0 or "restore the file" in said or "move it away" in said
    assert "Traceback" not in said


def use(daemon: Daemon) -> None:
    """Ask for what is in every table; the daemon may end of it."""
    try:
        with daemon.client() as client:
            for args in (
                {"action": "history"},
                {"action": "list"},
                {"action": "show", "job_id": "job-70"},
                {"action": "submit", "job": {"commands": ["true"]}},
                {"action": "kill", "queue": "pkg_queue"},
            ):
                client.ask_raw("rpc", "dispatcher", args)
            client.ask_raw("rpc", "logs", {"action": "read_logs", "start_time": "0"})
            client.ask_raw("rpc", "tokens", {"action": "list"})
            client.ask_raw(
                "events", "subscribe", {"systems": ["dispatcher"], "since": "oldest"}
            )
            client.ask_raw("rpc", "identify", {})
    except (ConnectionClosed, OSError):
        pass
