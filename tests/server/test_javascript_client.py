"""docs/examples/client.js, in node: events across a restart and a cut, none lost or doubled."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

from tests.kit import DEADLINE, QUIET, ROOT, Daemon, needs, wait_for

CLIENT = ROOT / "docs" / "examples" / "client.js"


class Listening:
    """The client as a process, and what it has printed and said."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.folder = folder

    @property
    def events(self) -> list[dict[str, Any]]:
        """Whole lines that it has printed, by every process so far."""
        *lines, _ = (self.folder / "events").read_text().split("\n")
        return [json.loads(line) for line in lines]

    @property
    def said(self) -> str:
        """Its errors."""
        return (self.folder / "errors").read_text()

    def has(self, job: str) -> bool:
        """Has it heard of a job's end?"""
        return any(
            event["args"].get("process_id") == job and event["args"]["state"] == "finished"
            for event in self.events
        )


@contextlib.contextmanager
def listening(daemon: Daemon, folder: Path) -> Generator[Listening]:
    """The client, until the end."""
    needs("node")
    command = ["node", str(CLIENT), str(daemon.state_dir), str(folder / "cursor")]
    with (
        (folder / "events").open("ab") as out,
        (folder / "errors").open("ab") as err,
        subprocess.Popen(command, stdout=out, stderr=err) as process,
    ):
        try:
            yield Listening(process, folder)
        finally:
            process.terminate()
            process.wait(DEADLINE)


def run(daemon: Daemon, job: str) -> None:
    """A job, to its end; its last event has more than 64 KiB."""
    commands = ['sh -c "yes | head -c 70000"', "true"]
    with daemon.client() as client:
        client.ask("events", "subscribe", {"systems": "dispatcher", "since": "now"})
        client.ask("rpc", "dispatcher", {"action": "run", job: commands})
        client.until(lambda event: event["args"]["state"] == "finished")


def everything(daemon: Daemon) -> list[str]:
    """The cursors of all events that there were."""
    with daemon.client() as client:
        asked = {"systems": "dispatcher", "since": "oldest"}
        reply = client.ask("events", "subscribe", asked)
        run(daemon, "last")
        found = client.until(lambda event: event["args"].get("process_id") == "last")[:-1]
        assert found[0]["prev"] == reply["prev"]
        return [event["cursor"] for event in found]


def test_it_hears_each_event_once_across_restarts_of_both(tmp_path: Path) -> None:
    needs("node")
    with Daemon(tmp_path / "state", QUIET) as daemon:
        run(daemon, "before")
        with listening(daemon, tmp_path) as client:
            wait_for(lambda: client.has("before"), "what was before it")
            daemon.kill()
            wait_for(lambda: "connecting again" in client.said, "the client to see it")
            daemon.start()
            run(daemon, "after a kill")
            wait_for(lambda: client.has("after a kill"), "what came after a kill")
            daemon.stop()
            wait_for(lambda: "endpoint.json" in client.said, "the client to see it")
            daemon.start()
            run(daemon, "after a stop")
            wait_for(lambda: client.has("after a stop"), "what came after a stop")
        run(daemon, "without it")
        with listening(daemon, tmp_path) as client:
            wait_for(lambda: client.has("without it"), "what it has missed")
        assert [event["cursor"] for event in client.events] == everything(daemon)
        assert "missing" not in client.said


def test_it_says_nothing_to_a_server_with_another_key(tmp_path: Path) -> None:
    needs("node")
    with (
        Daemon(tmp_path / "state", QUIET) as daemon,
        Daemon(tmp_path / "other", QUIET) as other,
    ):
        shutil.copyfile(
            other.state_dir / "tls" / "certificate.pem", tmp_path / "certificate.pem"
        )
        endpoint = daemon.state_dir / "endpoint.json"
        # It ends if it gets as far as to read the token.
        wrong = {"certificate": str(tmp_path / "certificate.pem"), "token_file": "/none"}
        endpoint.write_text(json.dumps(json.loads(endpoint.read_text()) | wrong))
        with listening(daemon, tmp_path) as client:
            wait_for(lambda: client.said.count("its key is") > 1, "it to refuse that twice")
            assert client.process.poll() is None
        assert client.events == []


def test_of_another_history_it_hears_all_that_there_is(tmp_path: Path) -> None:
    needs("node")
    (tmp_path / "cursor").write_text("0123456789abcdef:7:7.0.0:4gT0wKXbqOeqzUOMpCLxKg")
    with Daemon(tmp_path / "state", QUIET) as daemon:
        run(daemon, "one")
        with listening(daemon, tmp_path) as client:
            wait_for(lambda: client.has("one"), "all events")
        assert "400 since is a cursor of another database" in client.said
        assert [event["cursor"] for event in client.events] == everything(daemon)
