"""The state directory put back to an earlier time by hand: no client is left in the dark."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.kit import QUIET, Daemon, wait_for
from tests.kit.state_file import append_events, line, state_file

LP = ["life-preserver"]


def told(daemon: Daemon, numbers: Iterable[int], system: str = "life-preserver") -> None:
    append_events(daemon.state_dir, ((system, line(number), time.time()) for number in numbers))


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    """Stopped; five events, of which there is a copy, then twenty more."""
    made = Daemon(tmp_path / "state", QUIET + '[retention]\nevents_size = "64KiB"\n')
    made.start().stop()
    told(made, range(5))
    shutil.copytree(made.state_dir, tmp_path / "copy", ignore=shutil.ignore_patterns("keeper"))
    told(made, range(5, 25))
    return made


def newest(daemon: Daemon) -> str:
    with daemon, daemon.client() as client:
        reply = client.ask("events", "subscribe", {"systems": LP, "since": "now"})
        return str(reply["cursor"])


def put_back(daemon: Daemon) -> None:
    shutil.rmtree(daemon.state_dir)
    shutil.copytree(daemon.state_dir.with_name("copy"), daemon.state_dir)


@pytest.mark.parametrize("since_then", [0, 3, 20, 40])
def test_a_cursor_of_the_time_that_was_lost_is_refused(daemon: Daemon, since_then: int) -> None:
    cursor = newest(daemon)
    put_back(daemon)
    told(daemon, range(5, 5 + since_then))
    with daemon, daemon.client() as client:
        args = {"systems": LP, "since": cursor}
        refused = client.ask_raw("events", "subscribe", args)["args"]
        assert refused["code"] == 400
        assert "start again with a snapshot" in refused["detail"]
        # The way on.
        reply = client.ask("events", "subscribe", {**args, "since": "oldest"})
        assert reply["cursor"].split(":")[0] == cursor.split(":")[0]
        messages = [client.event()["args"]["message"] for _ in range(5 + since_then)]
        assert messages == [f"m{n}" for n in range(5 + since_then)]


def test_a_cursor_of_before_the_copy_is_good(daemon: Daemon) -> None:
    put_back(daemon)
    cursor = newest(daemon)
    told(daemon, [77])
    with daemon, daemon.client() as client:
        client.ask("events", "subscribe", {"systems": LP, "since": cursor})
        assert client.event()["args"]["message"] == "m77"


def replaced(daemon: Daemon) -> str:
    """A cursor; as many events as its client has had came to be, but others, and are gone with
    their marks."""
    cursor = newest(daemon)
    put_back(daemon)
    told(daemon, range(5), "system-state")
    told(daemon, range(100, 120))
    told(daemon, range(2000), "system-state")
    daemon.start()
    wait_for(lambda: "retention took" in daemon.log.read_text(), "retention")
    return cursor


def test_where_nobody_can_tell_any_more_a_gap_is_told(daemon: Daemon) -> None:
    cursor = replaced(daemon)
    with daemon:
        with daemon.client() as client:
            reply = client.ask("events", "subscribe", {"systems": LP, "since": cursor})
            gap = client.event()
            assert (gap["name"], gap["args"]["count"]) == ("gap", 0)
            assert gap["args"]["from"] == gap["prev"] == reply["prev"]
            assert gap["cursor"] == gap["args"]["to"]
        with daemon.client() as client:
            # Once it was told, all is known.
            reply = client.ask("events", "subscribe", {"systems": LP, "since": gap["cursor"]})
            assert reply["prev"] == gap["cursor"]
            client.ask("rpc", "identify")
            assert client.events == []


@pytest.mark.parametrize("more", [LP, ["dispatcher"]], ids=["the same", "others"])
def test_it_is_told_to_who_subscribes_again_at_once(daemon: Daemon, more: list[str]) -> None:
    cursor = replaced(daemon)
    with daemon, daemon.client() as client:
        # Both are there before anything can be read for the first.
        for args in ({"systems": LP, "since": cursor}, {"systems": more}):
            request = {"namespace": "events", "name": "subscribe", "id": "one", "args": args}
            client.socket.send(json.dumps(request))
        names = [client.receive()["name"] for _ in range(3)]
        assert sorted(names) == ["gap", "response", "response"]


def add_tokens(daemon: Daemon, names: Iterable[str]) -> None:
    with daemon.client() as client:
        for name in names:
            client.ask("rpc", "tokens", {"action": "add", "name": name, "role": "read"})


@pytest.mark.parametrize("wal", [True, False], ids=["with its WAL", "without"])
def test_what_was_put_back_while_it_was_in_use_is_left_as_it_is(
    daemon: Daemon, wal: bool
) -> None:
    """As `zfs rollback` does: the files are the same ones, and what they hold is older."""
    files = [daemon.state_dir / name for name in ("state.db", "state.db-wal")[: 1 + wal]]
    # It writes nothing of itself meanwhile: what is put back while it does is not noticed.
    daemon.before = "import sysadmd.store as s; s.SCRUB_AFTER = 3600"
    with daemon:
        # Enough for the WAL to begin anew, with what it had before still behind it.
        add_tokens(daemon, (f"kept {n}" for n in range(300)))
        if not wal:
            # What is copied is whole without it.
            daemon.stop()
        copies = [file.read_bytes() for file in files]
        if not daemon.is_up:
            daemon.start()
        add_tokens(daemon, (f"lost {n}" for n in range(100)))
        with daemon.client() as client:
            # By what stands in the history it is seen, whatever SQLite makes of its index.
            client.ask("events", "subscribe", "dispatcher")
            job = {"commands": [["true"]]}
            client.ask("rpc", "dispatcher", {"action": "submit", "job": job})
            client.until(lambda event: event["args"]["state"] == "finished")
        if not wal:
            (daemon.state_dir / "state.db-wal").unlink()
        for file, copy in zip(files, copies, strict=True):
            with file.open("r+b") as opened:
                opened.write(copy)
                opened.truncate()
        wait_for(lambda: "every change is refused" in daemon.log.read_text(), "that it is seen")
        daemon.stop()
        with state_file(daemon.state_dir) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            names = [name for (name,) in db.execute("SELECT name FROM tokens ORDER BY id")]
        assert names == [f"kept {n}" for n in range(300)]
        daemon.start()
