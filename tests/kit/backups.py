"""The commands that save a state and put it back; and a state to do that with."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kit.client import Client
from tests.kit.daemon import Daemon, sysadmd
from tests.kit.processes import clean, holders
from tests.kit.state_file import state_file
from tests.kit.waiting import wait_for


def command(word: str, state_dir: Path, *more: object) -> subprocess.CompletedProcess[str]:
    """Run it to its end: it may be refused, but never in a traceback."""
    done = sysadmd(word, *map(str, more), "--state-dir", str(state_dir))
    assert "Traceback" not in done.stderr
    return done


def works(word: str, state_dir: Path, *more: object) -> str:
    """What it says."""
    done = command(word, state_dir, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(word: str, state_dir: Path, *more: object) -> str:
    """Why it does nothing."""
    done = command(word, state_dir, *more)
    assert done.returncode == 1, done
    return done.stderr


def submit(client: Client, id: str, *commands: str, **more: object) -> None:
    """A job."""
    job = {"id": id, "commands": list(commands), **more}
    client.ask("rpc", "dispatcher", {"action": "submit", "job": job})


def show(client: Client, id: str) -> dict[str, Any]:
    """All that is known of a job."""
    job: dict[str, Any] = client.ask("rpc", "dispatcher", {"action": "show", "job_id": id})[
        "job"
    ]
    return job


def run(client: Client, id: str, *commands: str) -> None:
    """A job, to its end."""
    submit(client, id, *commands)
    wait_for(lambda: show(client, id)["state"] == "finished", f"the end of {id}")


def output(client: Client, id: str) -> str:
    """Of the first command of a job."""
    args = {"action": "log", "job_id": id, "command": 0}
    return str(client.ask("rpc", "dispatcher", args)["text"])


def rows(db: sqlite3.Connection) -> list[Any]:
    """All events."""
    return db.execute(
        "SELECT seq, time, system, place, body FROM events ORDER BY seq"
    ).fetchall()


def events_of(directory: Path) -> list[Any]:
    """All events of the state, or backup, in this directory."""
    with state_file(directory) as db:
        return rows(db)


@contextmanager
def ended(daemon: Daemon) -> Generator[Path]:
    """Stopped, and nobody of its jobs lives any more."""
    if daemon.is_up:
        # One that is on its way would not be ended.
        wait_for(lambda: holders(daemon.state_dir, "keeper"), "the keeper")
        daemon.stop()
    clean(daemon.state_dir)
    wait_for(lambda: not holders(daemon.state_dir), "the end of guard and keeper")
    yield daemon.state_dir
