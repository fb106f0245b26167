"""What rpc/dispatcher tells of jobs, queues and logs, beside their events."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.records import JobRow
from server.classes.log_portions import tail_start
from server.classes.paging import BESIDE
from server.dialects.values import list_value
from tests.kit import QUIET, Client, Daemon, wait_for
from tests.kit.state_file import state_file

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def ask(client: Client, action: str, **args: Any) -> Any:
    return client.ask("rpc", "dispatcher", {"action": action, **args})


def refusal(client: Client, action: str, **args: Any) -> tuple[int, str]:
    """Code and detail."""
    error = client.ask_raw("rpc", "dispatcher", {"action": action, **args})["args"]
    return error["code"], error["detail"]


def submit(client: Client, id: str, *commands: Any, **job: Any) -> dict[str, Any]:
    job = {"id": id, "commands": commands, **job}
    reply: dict[str, Any] = ask(client, "submit", job=job)["job"]
    return reply


def show(client: Client, id: str) -> dict[str, Any]:
    job: dict[str, Any] = ask(client, "show", job_id=id)["job"]
    return job


def until(client: Client, id: str, state: str) -> None:
    wait_for(lambda: show(client, id)["state"] == state, f"{id} to be {state}")


def end(client: Client, *ids: str) -> None:
    """Kill these jobs, and wait until they are gone: they would outlive the daemon."""
    assert ask(client, "kill", job_id=ids)["killed"]["jobs"] == list(ids)
    for id in ids:
        until(client, id, "finished")


def log(client: Client, id: str, **args: Any) -> dict[str, Any]:
    reply: dict[str, Any] = ask(client, "log", job_id=id, **args)
    return reply


def ended(client: Client, id: str, script: str) -> None:
    """Have a job of one command run to its end."""
    submit(client, id, ["sh", "-c", script])
    until(client, id, "finished")


def test_queues_are_told_with_what_they_may_do_and_what_is_in_them(tmp_path: Path) -> None:
    queues = "[dispatcher.queues]\npkg_queue = 1\nold = 2\n"
    config = QUIET + "[dispatcher]\ndefault_parallel = 7\n"
    with Daemon(tmp_path / "state", config + queues) as daemon, daemon.client() as client:
        first = {"limit": 1, "paused": False, "drains": False, "waiting": 0, "running": 0}
        assert ask(client, "queues") == {
            "queues": {
                "no_queue": first | {"limit": 7},
                "pkg_queue": first,
                "old": first | {"limit": 2},
            }
        }
        for number in range(3):
            submit(client, f"job {number}", "sleep 100000", queue="pkg_queue")
        submit(client, "old", "sleep 100000", queue="old")
        until(client, "job 0", "running")
        until(client, "old", "running")
        ask(client, "pause", queue="pkg_queue")
        daemon.config.write_text(config + queues.replace("old = 2\n", ""))
        daemon.reload()
        told = ask(client, "queues")["queues"]
        assert told["pkg_queue"] == first | {"paused": True, "waiting": 2, "running": 1}
        assert (told["old"]["drains"], told["old"]["running"]) == (True, 1)
        ids = [*(f"job {number}" for number in range(3)), "old"]
        end(client, *ids)
        wait_for(lambda: "old" not in ask(client, "queues")["queues"], "the queue to go")


def test_whoever_may_read_may_ask_for_the_queues(daemon: Daemon) -> None:
    with daemon.client() as client, daemon.stranger() as reader:
        add = {"action": "add", "name": "reader", "role": "read"}
        token = client.ask("rpc", "tokens", add)["token"]
        reader.ask("rpc", "auth_token", {"token": token})
        assert "no_queue" in ask(reader, "queues")["queues"]


def test_a_job_has_one_position_whoever_tells_it(daemon: Daemon) -> None:
    with daemon.client() as client:
        told = {
            id: submit(client, id, "sleep 100000", **more)["position"]
            for id, more in (
                ("first", {"queue": "pkg_queue"}),
                ("second", {"queue": "pkg_queue"}),
                ("third", {"queue": "pkg_queue"}),
                ("free", {}),
            )
        }
        assert told == {"first": 0, "second": 1, "third": 2, "free": 0}
        until(client, "first", "running")
        jobs: dict[str, Any] = {}
        for of_queue in ask(client, "list")["jobs"].values():
            jobs |= of_queue
        assert {id: job["position"] for id, job in jobs.items()} == told
        assert {id: show(client, id)["position"] for id in told} == told
        # The original's, of queues only, as text.
        assert jobs["third"]["queue_position"] == "2"
        assert "queue_position" not in jobs["free"]
        ask(client, "kill", job_id="second")
        assert show(client, "second")["position"] is None
        assert show(client, "third")["position"] == 1
        end(client, "first", "third", "free")


def test_a_list_says_when_a_job_came_when_it_began_and_whose_it_is(daemon: Daemon) -> None:
    with daemon.client() as client:
        submit(client, "runs", "sleep 100000", queue="pkg_queue")
        submit(client, "waits", "true", queue="pkg_queue")
        until(client, "runs", "running")
        jobs = ask(client, "list")["jobs"]["pkg_queue"]
        for id in ("runs", "waits"):
            shown = show(client, id)
            assert RFC3339.fullmatch(jobs[id]["time_created"])
            for key in ("time_created", "time_started", "account", "state"):
                assert jobs[id][key] == shown[key]
        assert RFC3339.fullmatch(jobs["runs"]["time_started"])
        assert jobs["waits"]["time_started"] is None
        end(client, "waits", "runs")


def test_a_job_belongs_to_who_has_queued_it(daemon: Daemon) -> None:
    with daemon.client() as client, daemon.stranger() as other:
        add = {"action": "add", "name": "deploy", "role": "full"}
        other.ask("rpc", "auth_token", {"token": client.ask("rpc", "tokens", add)["token"]})
        ask(client, "pause", queue="pkg_queue")
        ask(other, "run", ran=["true"])
        submit(other, "submitted", "true", queue="pkg_queue", key="k")
        # Who asks for the same once more is given it, and it stays whose it was.
        submit(client, "submitted", "true", queue="pkg_queue", key="k")
        submit(client, "mine", "true")
        until(client, "ran", "finished")
        mine = next(
            one["account"]
            for one in client.ask("rpc", "clients", {"action": "list"})["clients"]
            if one["account"] != "deploy"
        )
        assert [show(client, id)["account"] for id in ("ran", "submitted")] == ["deploy"] * 2
        assert show(client, "mine")["account"] == mine
        until(client, "mine", "finished")
        history = {job["id"]: job["account"] for job in ask(client, "history")["jobs"]}
        assert history == {"ran": "deploy", "mine": mine}
        client.ask("events", "subscribe", {"systems": ["dispatcher"], "snapshot": True})
        (*_, snapshot) = client.until(lambda frame: frame["name"] == "snapshot")
        assert [job["account"] for job in snapshot["args"]["jobs"]] == ["deploy"]


def test_of_a_job_that_was_queued_before_that_was_kept_nobody_knows(daemon: Daemon) -> None:
    with daemon.client() as client:
        ended(client, "old", "true")
    daemon.stop()
    with state_file(daemon.state_dir) as db:
        db.execute("UPDATE jobs SET account = NULL")
    with daemon, daemon.client() as client:
        assert show(client, "old")["account"] is None


def test_an_id_that_the_server_makes_up_is_a_bare_uuid(daemon: Daemon) -> None:
    with daemon.client() as client:
        made = ask(client, "submit", job={"commands": ["true"]})["job"]["id"]
        assert UUID.fullmatch(made)
        assert show(client, made)["id"] == made


def test_of_an_unknown_job_it_is_said_where_to_look(daemon: Daemon) -> None:
    with daemon.client() as client:
        for action in ("show", "log"):
            code, detail = refusal(client, action, job_id="nope")
            assert code == 404
            assert detail == (
                "there is no job 'nope'; `list` names the active jobs, `history` those that"
                " have finished"
            )


# The sizes of logs.


def test_a_running_commands_log_is_shown_as_long_as_it_is(daemon: Daemon) -> None:
    script = "printf '%05000d' 0; touch written; while [ ! -e go ]; do sleep 0.02; done"
    with daemon.client() as client:
        there = str(daemon.state_dir)
        submit(client, "j", "echo first", ["sh", "-c", script], "true", cwd=there)
        wait_for((daemon.state_dir / "written").exists, "the command to write")

        def sizes() -> list[int]:
            return [command["log_size"] for command in show(client, "j")["commands"]]

        # What was written is on its way into the log.
        wait_for(lambda: sizes() == [6, 5000, 0], "the log to have it")
        (daemon.state_dir / "go").touch()
        until(client, "j", "finished")
        assert sizes() == [6, 5000, 0]


def test_who_joins_a_running_job_by_a_snapshot_gets_every_byte_once(tmp_path: Path) -> None:
    script = "i=0; while [ ! -e go ]; do i=$((i+1)); echo größe $i; sleep 0.01; done; echo end"
    config = QUIET + "[dispatcher]\nprogress_interval = 0.1\n"
    with Daemon(tmp_path / "state", config) as daemon, daemon.client() as client:
        submit(client, "j", ["sh", "-c", script], cwd=str(daemon.state_dir))
        joined: list[tuple[str, bool]] = []
        for _ in range(3):
            joined.append(_join(daemon, "j", events=2))
        (daemon.state_dir / "go").touch()
        until(client, "j", "finished")
        whole = ""
        while not (reply := log(client, "j", offset=len(whole.encode())))["complete"]:
            whole += reply["text"]
        whole += reply["text"]
    assert whole.endswith("end\n")
    for text, _ in joined:
        assert whole.startswith(text)
        assert len(text) > 0
    # One has joined when something had been told already, or nothing is shown.
    assert any(told_before for _, told_before in joined)


def _join(daemon: Daemon, id: str, events: int) -> tuple[str, bool]:
    """What a newcomer has of the job's log after so many events; and had it been told of before
    he came?"""
    with daemon.client() as client:
        client.ask("events", "subscribe", {"systems": ["dispatcher"], "snapshot": True})
        snapshot = client.event()
        (job,) = (job for job in snapshot["args"]["jobs"] if job["id"] == id)
        (command,) = job["commands"]
        text, size = "", command["log_size"]
        while len(text.encode()) < size:
            at = len(text.encode())
            text += log(client, id, offset=at, limit=size - at)["text"]
        assert len(text.encode()) == size
        while events:
            details = client.event()["args"]["process_details"]
            more = details.get(command["command"], "")
            text += more
            events -= bool(more)
            assert details["commands"][0]["log_size"] == len(text.encode())
        return text, size > 0


# The end of a log.


@given(
    data=st.lists(st.sampled_from([b"a", b"\n", b"\n\n", "é".encode(), b"long line"])).map(
        b"".join
    ),
    lines=st.integers(0, 12),
)
def test_the_last_lines_of_a_whole_log_are_those_that_tail_gives(
    data: bytes, lines: int
) -> None:
    kept = data.splitlines(keepends=True)
    # Other ends of lines are none.
    assert all(one.endswith(b"\n") for one in kept[:-1])
    expected = b"".join(kept[max(0, len(kept) - lines) :]) if lines else b""
    assert data[tail_start(data, lines, whole=True) :] == expected


@given(
    data=st.lists(st.sampled_from([b"a", b"\n", "é".encode(), "☃".encode()])).map(b"".join),
    cut=st.integers(0, 40),
    lines=st.integers(0, 12),
)
def test_of_the_end_of_a_log_no_line_is_begun_in_its_middle_unless_it_is_all_there_is(
    data: bytes, cut: int, lines: int
) -> None:
    end = data[cut:]
    at = tail_start(end, lines, whole=data[:cut][-1:] in (b"", b"\n"))
    assert 0 <= at <= len(end)
    place = min(cut, len(data)) + at
    begins = place == 0 or data[place - 1 : place] == b"\n" or at == len(end)
    assert begins or (b"\n" not in end[:-1] and end[at:].decode())
    assert len(end[at:].splitlines()) <= lines or not begins


def test_a_log_is_read_from_its_last_lines_on(daemon: Daemon) -> None:
    with daemon.client() as client:
        ended(client, "j", "seq 1 5; printf x")
        assert log(client, "j", tail=2)["text"] == "5\nx"
        assert log(client, "j", tail=2)["offset"] == 8
        assert log(client, "j", tail=0)["text"] == ""
        assert log(client, "j", tail=0)["offset"] == 11
        reply = log(client, "j", tail=100)
        assert (reply["text"], reply["offset"]) == ("1\n2\n3\n4\n5\nx", 0)
        assert (reply["next"], reply["size"], reply["complete"]) == (11, 11, True)


def test_no_more_last_lines_come_than_one_reply_holds(daemon: Daemon) -> None:
    with daemon.client() as client:
        ended(client, "j", "seq 100 199")
        for limit, first in ((400, 100), (399, 101), (396, 101), (395, 102), (4, 199)):
            reply = log(client, "j", tail=1000, limit=limit)
            assert reply["text"].split()[0] == str(first), limit
            assert reply["offset"] == (first - 100) * 4
            assert reply["complete"]
        # A line that is longer is begun where there is room, with a whole character.
        ended(client, "long", "printf 'ééééé\\n'")
        reply = log(client, "long", tail=1, limit=4)
        assert (reply["text"], reply["offset"]) == ("é\n", 8)


def test_the_last_lines_of_a_log_with_a_hole_are_behind_it(tmp_path: Path) -> None:
    config = QUIET + "[dispatcher]\ncommand_log_limit = '128KiB'\n"
    with Daemon(tmp_path / "state", config) as daemon, daemon.client() as client:
        ended(client, "j", "seq 100000 199999")
        reply = log(client, "j", tail=20_000, limit=81920)
        assert reply["complete"]
        assert "detail" not in reply
        numbers = reply["text"].split()
        assert numbers == [str(n) for n in range(int(numbers[0]), 200_000)]
        assert reply["offset"] == (int(numbers[0]) - 100_000) * 7
        assert len(numbers) > 1000


def test_the_reason_of_a_command_that_could_not_start_has_last_lines_too(
    daemon: Daemon,
) -> None:
    with daemon.client() as client:
        submit(client, "j", "/no/such/program")
        until(client, "j", "finished")
        assert log(client, "j", tail=1)["text"] == log(client, "j")["text"] != ""


def test_a_log_says_when_it_was_written_last(daemon: Daemon) -> None:
    with daemon.client() as client:
        ended(client, "j", "echo something")
        command = show(client, "j")["commands"][0]
        time = log(client, "j")["time"]
        assert RFC3339.fullmatch(time)
        # Clocks of files may be some milliseconds behind.
        assert command["time_started"][:16] <= time[:16] <= command["time_finished"][:16]
        ended(client, "silent", "true")
        assert log(client, "silent")["time"] is None
        ask(client, "pause", queue="pkg_queue")
        submit(client, "waits", "true", queue="pkg_queue")
        assert log(client, "waits")["time"] is None


@pytest.mark.parametrize("tail", [-1, 1.5, "5", None, True, 10**6])
def test_what_is_no_number_of_lines_is_refused(daemon: Daemon, tail: object) -> None:
    with daemon.client() as client:
        ended(client, "j", "true")
        code, detail = refusal(client, "log", job_id="j", tail=tail)
        assert (code, detail) == (400, "args.tail must be a whole number from 0 to 81920")


def test_a_log_is_begun_at_a_place_or_at_its_last_lines(daemon: Daemon) -> None:
    with daemon.client() as client:
        ended(client, "j", "true")
        code, detail = refusal(client, "log", job_id="j", tail=1, offset=0)
        assert code == 400
        assert "args.tail" in detail
        assert "args.offset" in detail


@pytest.mark.parametrize("started", [None, 1_700_000_000_000])
def test_an_entry_of_a_list_takes_no_more_room_than_its_page_has_for_it(
    started: int | None,
) -> None:
    row = JobRow(
        uid=1,
        id="",
        queue="q",
        state="pending",
        result=None,
        created=1_700_000_000_000,
        started=started,
        finished=None,
        timeout=None,
        env=(),
        cwd=None,
        key=None,
        event_system=None,
        fields={},
        log_field=None,
        report="{}",
        account="a",
    )
    entry = list_value(row, ["true"], 10**7)
    counted = len(msgspec.json.encode((row, ["true"]))) + BESIDE
    assert len(msgspec.json.encode({row.id: entry})) <= counted


def test_what_is_asked_at_once_is_done_in_this_order(tmp_path: Path) -> None:
    submitting: dict[str, Any] = {
        "action": "submit",
        "job": {"id": "a", "commands": ["true"], "queue": "pkg_queue"},
    }
    steps: list[dict[str, Any]] = [
        {"action": "pause", "queue": "pkg_queue"},
        submitting,
        {"action": "kill", "job_id": "a"},
        submitting,
        {"action": "submit", "job": {"id": "b", "commands": [7]}},
        {"action": "submit", "job": {"id": "a", "commands": ["false"]}},
    ]
    with Daemon(tmp_path / "state", QUIET) as daemon, daemon.client() as client:
        for number, args in enumerate(steps):
            body = {"namespace": "rpc", "name": "dispatcher", "id": str(number), "args": args}
            client.socket.send(msgspec.json.encode(body).decode())
        replies = {reply["id"]: reply for reply in (client.receive() for _ in steps)}
        assert replies["2"]["args"] == {"killed": {"jobs": ["a"]}}
        assert replies["1"]["args"]["job"]["state"] == "pending"
        assert replies["3"]["args"]["job"]["state"] == "pending"
        assert [replies[number]["args"].get("code") for number in ("4", "5")] == [400, 409]
        assert show(client, "a")["state"] == "pending"
        with state_file(daemon.state_dir) as db:
            said = [action for (action,) in db.execute("SELECT action FROM audit ORDER BY id")]
        assert [action.split()[0] for action in said if "login" not in action][-4:] == [
            *("pause", "submit", "kill", "submit")
        ]
