"""The resume extension: every event once, in order, across cuts, gaps and slow readers."""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from sysadmd.events import SYSTEMS
from tests.kit import QUIET, Client, Daemon, RawClient, wait_for
from tests.kit.state_file import append_events, line

ALL = list(SYSTEMS)


def subscribe(client: Client, systems: list[str], since: str | None, **more: Any) -> Any:
    args: dict[str, Any] = {"systems": systems, **more}
    if since is not None:
        args["since"] = since
    return client.ask("events", "subscribe", args)


def fill(state_dir: Path, count: int, start: int = 0) -> None:
    """Events in a stopped daemon's journal: the three systems in turn."""
    state = b'{"hostname":"h%d","hostnamechanged":"true","zpools":{},"priority":"3/Warning"}'
    append_events(
        state_dir,
        (
            ("system-state", state % number, time.time())
            if number % 3 == 2
            else ("life-preserver", line(number), time.time())
            for number in range(start, start + count)
        ),
    )


def chain(prev: str, frames: list[dict[str, Any]]) -> str:
    """Check that no frame is missing between these; returns the last cursor."""
    for frame in frames:
        assert frame["prev"] == prev, frame
        prev = frame["cursor"]
    return prev


@pytest.fixture
def stored(tmp_path: Path) -> Daemon:
    """A daemon that is not running, with 999 events in its journal."""
    daemon = Daemon(tmp_path / "state", QUIET)
    daemon.start().stop()
    fill(daemon.state_dir, 999)
    return daemon


def test_a_reader_for_whom_the_journal_is_damaged_stops_no_other(stored: Daemon) -> None:
    append_events(stored.state_dir, [("dispatcher", b'{"job":', time.time())])
    with stored, stored.client() as client, stored.client() as other:
        subscribe(client, ["dispatcher"], "oldest")
        with pytest.raises(ConnectionClosed) as closed:
            client.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        subscribe(other, ["system-state"], "oldest")
        chain("", [other.event() for _ in range(333)])


@pytest.mark.parametrize("systems", [ALL, ["life-preserver"], ["system-state", "dispatcher"]])
def test_everything_stored_comes_in_order_and_then_what_is_new(
    stored: Daemon, systems: list[str]
) -> None:
    with stored, stored.client() as client:
        expected = 999 if len(systems) == 3 else 666 if "life-preserver" in systems else 333
        reply = subscribe(client, systems, "oldest")
        assert reply["prev"] == ""
        frames = [client.event() for _ in range(expected)]
        cursor = chain("", frames)
        client.ask("rpc", "dispatcher", {"action": "run", "job": "true"})
        if "dispatcher" in systems:
            live = client.until(lambda frame: frame["args"].get("state") == "finished")
            chain(cursor, live)
        middle = frames[100]["cursor"]
        with stored.client() as other:
            reply = subscribe(other, systems, middle)
            assert (reply["cursor"], reply["prev"]) == (middle, middle)
            again = [other.event() for _ in range(expected - 101)]
            assert again == frames[101:]


def test_a_cursor_of_one_set_of_systems_serves_another(stored: Daemon) -> None:
    with stored, stored.client() as client:
        subscribe(client, ALL, "oldest")
        frames = [client.event() for _ in range(999)]
        states = [f for f in frames if f["name"] == "system_state"]
        with stored.client() as other:
            reply = subscribe(other, ["system-state"], frames[500]["cursor"])
            before = [f for f in frames[:501] if f["name"] == "system_state"]
            assert reply["prev"] == before[-1]["cursor"]
            rest = [other.event() for _ in range(len(states) - len(before))]
            assert [f["args"] for f in rest] == [f["args"] for f in states[len(before) :]]
            chain(reply["prev"], rest)


@pytest.mark.parametrize(
    "since",
    ["nonsense", "0123456789abcdef:1:1.0.0", "", "{epoch}:5000:0.5000.0", "{epoch}:9:9.0.0"],
)
def test_a_cursor_that_is_not_ours_is_refused(stored: Daemon, since: str) -> None:
    with stored, stored.client() as client:
        epoch = subscribe(client, ALL, "now")["cursor"].split(":")[0]
        error = client.ask_raw(
            "events",
            "subscribe",
            {"systems": ALL, "since": since.replace("{epoch}", epoch)},
        )
        assert error["args"]["code"] == 400
        assert "since" in error["args"]["detail"]


@pytest.mark.long
def test_what_retention_took_is_told_with_its_exact_count(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "state", QUIET)
    daemon.start().stop()
    fill(daemon.state_dir, 300)
    with daemon, daemon.client() as client:
        subscribe(client, ALL, "oldest")
        frames = [client.event() for _ in range(300)]
    fill(daemon.state_dir, 3000, 300)
    daemon.config.write_text(QUIET + "[retention]\nevents_size = '64KiB'\n")
    with daemon, daemon.client() as client:
        wait_for(lambda: "retention took" in daemon.log.read_text(), "retention")
        reply = subscribe(client, ["system-state"], frames[100]["cursor"])
        gap = client.event()
        assert gap["name"] == "gap"
        assert gap["args"]["from"] == reply["prev"] == gap["prev"]
        first = client.event()
        assert first["prev"] == gap["args"]["to"] == gap["cursor"]
        number = int(first["args"]["hostname"].removeprefix("h"))
        told = sum(f["name"] == "system_state" for f in frames[:101])
        assert gap["args"]["count"] == (number + 1) // 3 - 1 - told
        with daemon.client() as other:
            oldest = subscribe(other, ["system-state"], "oldest")
            same = other.event()
            assert same["args"] == first["args"]
            assert same["prev"] == oldest["prev"] == first["prev"]
        ledger = client.ask("rpc", "clients", {"action": "list"})["total"]
        assert ledger["gapped"] == gap["args"]["count"]
        assert ledger["published"] == sum(
            ledger[key] for key in ("delivered", "merged", "gapped", "owed")
        )


def test_a_snapshot_is_the_truth_as_of_its_cursor(daemon: Daemon) -> None:
    with daemon.client() as client:
        jobs = {f"job {n}": 'sh -c "read x < /dev/zero"' for n in range(3)}
        client.ask("rpc", "dispatcher", {"action": "run", **jobs})
        reply = subscribe(client, ALL, None, snapshot=True)
        snapshot = client.event()
        assert snapshot["name"] == "snapshot"
        assert snapshot["cursor"] == snapshot["args"]["cursor"] == reply["cursor"]
        active = {job["id"]: job["state"] for job in snapshot["args"]["jobs"]}
        client.ask("rpc", "dispatcher", {"action": "kill", "job_id": list(jobs)})
        prev, done = reply["prev"], 0
        while done < 3:
            event = client.event()
            assert event["prev"] == prev
            prev = event["cursor"]
            id, state = event["args"]["process_id"], event["args"]["state"]
            order = ["pending", "running", "finished"]
            assert order.index(state) >= order.index(active.get(id, "pending"))
            assert state != active.get(id) or state == "running"
            done += state == "finished"


def test_a_long_snapshot_waits_in_one_copy_for_who_does_not_read(daemon: Daemon) -> None:
    with daemon.client() as client, contextlib.ExitStack() as readers:
        client.ask("rpc", "dispatcher", {"action": "pause", "queue": "no_queue"})
        # More than the kernel's buffers take.
        for chunk in range(10):
            jobs = {f"{chunk}-{n}": ["true " + "x" * 6000] * 2 for n in range(80)}
            client.ask("rpc", "dispatcher", {"action": "run", **jobs})
        late = RawClient(daemon.state_dir).log_in()
        readers.callback(late.close)
        args = {"systems": ["dispatcher"], "snapshot": True}
        # Asked a second time, the first answer comes whole nevertheless.
        late.send("events", "subscribe", args)
        late.send("events", "subscribe", args)
        wait_for(lambda: owed_bytes(client), "the snapshot to be held up")
        assert owed_bytes(client) < 1024**2
        client.ask("rpc", "dispatcher", {"action": "run", "last": []})
        frames: list[dict[str, Any]] = []
        while not frames or frames[-1]["name"] != "dispatcher":
            frames.append(json.loads(late.frame()))
    snapshots = [frame for frame in frames if frame["name"] == "snapshot"]
    replies = [frame for frame in frames if frame["name"] == "response"]
    assert [frame.get("more", False) for frame in snapshots].count(False) == 2
    assert len(snapshots) > 10
    assert sum(len(frame["args"]["jobs"]) for frame in snapshots) == 1600
    assert frames[-1]["prev"] == replies[-1]["args"]["prev"] == snapshots[-1]["prev"]
    assert len(frames) == len(snapshots) + len(replies) + 1


def test_a_snapshot_asked_for_while_behind_passes_over_nothing(daemon: Daemon) -> None:
    daemon.stop()
    fill(daemon.state_dir, 3000)
    with daemon:
        late = RawClient(daemon.state_dir).log_in()
        late.send("events", "subscribe", {"systems": ALL, "since": "oldest"})
        for _ in range(5):
            late.send("events", "subscribe", {"systems": ALL, "snapshot": True})
        prev, events = "", 0
        while events < 3000:
            frame = json.loads(late.frame())
            if frame["name"] not in ("response", "snapshot"):
                assert frame["prev"] == prev
                prev = frame["cursor"]
                events += 1
        late.close()


def owed_bytes(client: Client) -> int:
    """The most bytes that wait for any client."""
    found = client.ask("rpc", "clients", {"action": "list"})["clients"]
    return max(int(other["buffered"]) for other in found)


def test_progress_in_a_row_is_merged_for_a_reader_that_is_behind(daemon: Daemon) -> None:
    with daemon.client() as client:
        command = 'sh -c "for i in 1 2 3 4; do echo $i; sleep 1.2; done"'
        client.ask("rpc", "dispatcher", {"action": "run", "job": command})
        client.ask("events", "subscribe", "dispatcher")
        client.until(lambda frame: frame["args"]["state"] == "finished")
        with daemon.client() as late:
            subscribe(late, ["dispatcher"], "oldest")
            frames = late.until(lambda f: f["args"].get("state") == "finished")
            chain("", frames)
            merged = [f for f in frames if "merged" in f]
            assert len(merged) == 1
            assert merged[0]["merged"] >= 2
            text = merged[0]["args"]["process_details"][command]
            assert text == "".join(f"{n}\n" for n in range(1, text.count("\n") + 1))
            ledger = late.ask("rpc", "clients", {"action": "list"})["clients"]
            mine = max(ledger, key=lambda account: account["merged"])
            assert mine["merged"] == merged[0]["merged"] - 1
            assert mine["published"] == mine["delivered"] + mine["merged"]


def test_a_log_that_was_deleted_comes_as_its_marker(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.ask("events", "subscribe", "dispatcher")
        client.ask("rpc", "dispatcher", {"action": "run", "job": "echo precious"})
        client.until(lambda frame: frame["args"]["state"] == "finished")
        for log in (daemon.state_dir / "jobs").rglob("*.log"):
            log.unlink()
        with daemon.client() as late:
            subscribe(late, ALL, "oldest")
            frames = late.until(lambda f: f["args"].get("state") == "finished")
            details = frames[-1]["args"]["process_details"]
            assert details["echo precious"] == "[... 9 bytes left out ...]\n"


@pytest.mark.parametrize("left", [None, 0, 4])
def test_who_reads_a_log_that_was_cut_or_deleted_is_told_and_comes_to_an_end(
    daemon: Daemon, left: int | None
) -> None:
    with daemon.client() as client:
        client.ask("events", "subscribe", "dispatcher")
        client.ask("rpc", "dispatcher", {"action": "run", "job": "echo precious"})
        client.until(lambda frame: frame["args"]["state"] == "finished")
        (log,) = (daemon.state_dir / "jobs").rglob("*.log")
        if left is None:
            log.unlink()
        else:
            os.truncate(log, left)
        ask = {"action": "log", "job_id": "job", "offset": 0}
        texts: list[str] = []
        while True:
            reply = client.ask("rpc", "dispatcher", ask)
            texts.append(reply["text"])
            assert reply["next"] > ask["offset"]
            if reply["complete"]:
                break
            ask["offset"] = reply["next"]
        gone = 9 - (left or 0)
        assert texts == ["prec"] * bool(left) + [f"[... {gone} bytes left out ...]\n"]
        assert reply["next"] == reply["size"] == 9
        assert reply["detail"].startswith(f"{gone} bytes of this log are gone")


def test_events_survive_a_kill_of_the_daemon_and_the_chain_goes_on(daemon: Daemon) -> None:
    prev = ""
    seen: list[tuple[str, str]] = []
    for round in range(4):
        with daemon.client() as client:
            subscribe(client, ["dispatcher"], prev or "oldest")
            client.ask("rpc", "dispatcher", {"action": "run", f"job {round}": "true"})
            events = client.until(lambda frame: frame["args"]["state"] != "pending")
            prev = chain(prev, events)
            seen += [(e["args"]["process_id"], e["args"]["state"]) for e in events]
        daemon.kill()
        daemon.start()
    with daemon.client() as client:
        subscribe(client, ["dispatcher"], "oldest")
        frames = [client.event() for _ in range(12)]
        chain("", frames)
        all_of_it = [(f["args"]["process_id"], f["args"]["state"]) for f in frames]
        assert set(seen) <= set(all_of_it)
        assert len(set(all_of_it)) == 12


def test_of_a_log_over_its_limit_both_ends_are_told_and_the_rest_is_counted(
    tmp_path: Path,
) -> None:
    config = QUIET + "[dispatcher]\ncommand_log_limit = '128KiB'\n"
    whole = b"".join(b"%d\n" % number for number in range(1, 100_001))
    with Daemon(tmp_path / "state", config) as daemon, daemon.client() as client:
        client.ask("events", "subscribe", "dispatcher")
        client.ask("rpc", "dispatcher", {"action": "run", "long": "seq 100000"})
        end = client.until(lambda frame: frame["args"]["state"] == "finished")[-1]
        text = end["args"]["process_details"]["seq 100000"]
        assert text.startswith("1\n2\n3\n")
        assert text.endswith("\n99999\n100000\n")
        ask = {"action": "log", "job_id": "long", "offset": 0}
        there, missing = b"", 0
        while not (reply := client.ask("rpc", "dispatcher", ask))["complete"]:
            if "detail" in reply:
                missing = reply["next"] - reply["offset"]
                assert reply["text"] == f"[... {missing} bytes left out ...]\n"
                assert "command_log_limit" in reply["detail"]
            else:
                there += reply["text"].encode()
                assert whole[reply["offset"] : reply["next"]] == reply["text"].encode()
            ask["offset"] = reply["next"]
        assert reply["next"] == reply["size"] == len(whole)
        assert len(there) + len(reply["text"]) + missing == len(whole)
        assert whole.endswith(reply["text"].encode())
