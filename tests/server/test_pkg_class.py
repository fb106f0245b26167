"""sysadm/pkg through a running daemon: recorded runs replayed, their events, their words."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.kit import Daemon, wait_for
from tests.kit.corpus import CORPUS
from tests.kit.pkg_class import (
    Stage,
    anew,
    ask,
    check_growth,
    clear,
    ends,
    own_fields,
    reported,
    request_for,
    running,
    staged,
)
from tests.kit.replay import Recording, Tools, recording

# Its worker outlives it, so what comes of it in time is not known.
LEFT_BEHIND: Final = "kill-term-parent-only"
RECORDED: Final = {path.stem: recording("pkg", path.stem) for path in CORPUS.glob("pkg/*.json")}
CASES: Final = sorted(
    case
    for case, played in RECORDED.items()
    if request_for(played.argv) is not None and case != LEFT_BEHIND
)
# Packages done and planned.
DONE: Final = {
    "autoremove": (6, 6),
    "fail-corrupt": (0, 1),
    "install-conflict": (1, 1),
    "install-deps": (4, 4),
    "install-several-tty": (5, 5),
    "kill-term-script": (0, 1),
    "lock": (0, 0),
    "remove-recursive": (5, 5),
    "update-force": (0, 0),
    "upgrade": (5, 5),
    "upgrade-check": (0, 5),
    "upgrade-pkg-itself": (5, 5),
}
FOUND: Final[dict[str, dict[str, Any]]] = {
    "audit-raw-json": {
        "vulnerable_pkgs": ["vulncurl", "vulnlib"],
        "impacts_pkgs": ["vulnapp", "vulnapp-gui"],
    },
    "audit-raw-json-clean": {"vulnerable_pkgs": [], "impacts_pkgs": []},
    "db-locked-upgrade-check": {"updates_available": "false"},
    "fail-connection-cut": {"problems": ["fetch size does not match expected package size"]},
    "fail-db-locked": {
        "problems": [
            "Cannot get an advisory lock on a database, it is locked by another process"
        ]
    },
    "install-conflict": {"problems": ["clash-a: was planned and is not done"]},
    "upgrade-check": {
        "problems": ["keepme is locked and may not be modified"],
        "updates_available": "true",
    },
    "upgrade-check-none": {"updates_available": "false"},
}
LOCAL_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
# Of an event's time, which is told in whole milliseconds by another clock than the pace's, s.
_CLOCK: Final = 0.05


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tools, Daemon]]:
    tools, daemon = staged(tmp_path_factory.mktemp("pkg"))
    with daemon:
        yield tools, daemon


@pytest.fixture
def stage(shared: tuple[Tools, Daemon]) -> Iterator[Stage]:
    with anew(*shared) as stage:
        stage.client.ask("events", "subscribe", ["dispatcher"])
        yield stage


def queue(stage: Stage, played: Recording) -> tuple[str, dict[str, Any]]:
    """Ask for the job that runs pkg as it was recorded; the action and its reply."""
    found = request_for(played.argv)
    assert found is not None
    action, args = found
    return action, ask(stage.client, action, **args)


def check_pending(args: dict[str, Any], action: str, id: str) -> None:
    assert args == {
        "state": "pending",
        "process_id": id,
        "event_system": "sysadm/pkg",
        "action": action,
        "pkg_log": "",
        "process_details": {"state": "pending", "process_id": id},
    }


@pytest.mark.parametrize("case", CASES)
def test_a_recorded_run_is_told_from_its_beginning_to_its_end(stage: Stage, case: str) -> None:
    played = stage.tools.play("pkg", case, argv=RECORDED[case].argv[1:], speed=None)
    action, job = queue(stage, played)
    assert job["status"] == "pending"
    assert job["proc_id"].startswith(f"sysadm_{action}-{{")
    pending, start, *between, end = ends(stage.client, job["proc_id"])
    check_pending(pending, action, job["proc_id"])
    assert [args["state"] for args in (start, *between)] == ["running"] * (1 + len(between))
    assert {(args["event_system"], args["action"]) for args in (start, *between, end)} == {
        ("sysadm/pkg", action)
    }
    assert own_fields(start) == {}
    check_growth([*between, end])

    details = end["process_details"]
    text = played.output.decode()
    assert "".join(args["pkg_log"] for args in (start, *between)) in text
    assert end["pkg_log"] == details[job["proc_cmd"]] == text
    assert details["cmd_list"] == [job["proc_cmd"]]
    assert details[f"return_codes/{job['proc_cmd']}"] == str(played.returncode)
    assert details["result"] == ("failed" if played.returncode else "succeeded")
    fields = own_fields(end)
    assert fields == reported(action, played)
    assert (fields["progress"]["percent"] == 100) == (played.returncode == 0)
    if case in DONE:
        assert (fields["progress"]["done"], fields["progress"]["total"]) == DONE[case]
    assert {key: fields.get(key) for key in FOUND.get(case, {})} == FOUND.get(case, {})
    shown = stage.client.ask("rpc", "dispatcher", {"action": "show", "job_id": job["proc_id"]})[
        "job"
    ]
    assert shown["event_system"] == "sysadm/pkg"
    assert shown["fields"] == {"action": action, **fields}


def test_every_action_that_queues_a_job_was_recorded() -> None:
    requests = [request_for(played.argv) for played in RECORDED.values()]
    assert {found[0] for found in requests if found} == {
        *("pkg_install", "pkg_remove", "pkg_lock", "pkg_unlock", "pkg_update"),
        *("pkg_check_upgrade", "pkg_upgrade", "pkg_audit", "pkg_autoremove"),
    }
    assert {*DONE, *FOUND} <= set(CASES)


def test_who_only_waits_may_die_before_who_works(stage: Stage) -> None:
    played = stage.tools.play("pkg", LEFT_BEHIND, when=("slowpkg",), speed=None)
    _, job = queue(stage, played)
    end = ends(stage.client, job["proc_id"])[-1]
    assert end["process_details"][f"return_codes/{job['proc_cmd']}"] == "-15"
    assert end["process_details"]["result"] == "failed"
    assert played.output.decode().startswith(end["pkg_log"])


def test_a_long_log_is_cut_in_its_middle(tmp_path: Path) -> None:
    with running(tmp_path, dispatcher='event_log_limit = "1KiB"') as stage:
        stage.client.ask("events", "subscribe", ["dispatcher"])
        played = stage.tools.play("pkg", "upgrade", speed=None)
        _, job = queue(stage, played)
        log = ends(stage.client, job["proc_id"])[-1]["pkg_log"]
        text = played.output.decode()
        head, marker, tail = re.split(r"(?m)^(.*bytes.*)$", log, maxsplit=1)
        assert len(json.dumps(log)) <= 1024 + 2
        assert marker
        assert text.startswith(head.rstrip("\n"))
        assert text.endswith(tail.lstrip("\n"))


def test_running_events_come_once_a_second_and_their_percent_goes_on(stage: Stage) -> None:
    played = stage.tools.play("pkg", "upgrade")
    with stage.daemon.client() as client:
        client.ask("events", "subscribe", {"systems": ["dispatcher"], "since": "now"})
        queue(stage, played)
        frames = client.until(lambda frame: frame["args"]["state"] == "finished")
    running = [frame for frame in frames if frame["args"]["state"] == "running"]
    times = [datetime.fromisoformat(frame["time"]) for frame in running]
    gaps = [(after - before).total_seconds() for before, after in itertools.pairwise(times)]
    assert gaps
    assert min(gaps) > 1 - _CLOCK
    percents = [frame["args"]["progress"]["percent"] for frame in running[1:]]
    assert any(0 < percent < 100 for percent in percents), percents
    assert running[1]["args"]["progress"]["package"] == "bigdata"
    check_growth([frame["args"] for frame in frames])


def test_jobs_of_the_class_run_one_at_a_time(stage: Stage, tmp_path: Path) -> None:
    go = tmp_path / "go"
    stage.tools.play("pkg", "lock", speed=None, hold=(0, go))
    ids = [ask(stage.client, "pkg_lock", pkg_origins="keepme")["proc_id"] for _ in range(3)]
    wait_for(lambda: stage.tools.workers())
    listed = stage.client.ask("rpc", "dispatcher", {"action": "list"})["jobs"]["pkg_queue"]
    assert [listed[id]["state"] for id in ids] == ["running", "pending", "pending"]
    assert len(stage.tools.calls("pkg")) == 1
    go.touch()
    assert [ends(stage.client, id)[-1]["state"] for id in ids] == ["finished"] * 3
    assert len(stage.tools.calls("pkg")) == 3


def test_events_of_the_class_are_in_the_log_of_events(stage: Stage) -> None:
    stage.tools.play("pkg", "audit-raw-json", speed=None)
    id = ask(stage.client, "pkg_audit")["proc_id"]
    events = ends(stage.client, id)
    read = {"action": "read_logs", "logs": ["events-dispatcher", "dispatcher"]}
    logs = stage.client.ask("rpc", "logs", read)
    entries = logs["events-dispatcher"].values()
    assert [entry for entry in entries if entry["process_id"] == id] == events
    details = [json.loads(entry) for entry in logs["dispatcher"].values()]
    assert events[-1]["process_details"] in details


@pytest.fixture
def original(shared: tuple[Tools, Daemon]) -> Iterator[Stage]:
    """A client that speaks as the original one."""
    tools, daemon = shared
    clear(tools)
    with daemon.stranger() as client:
        client.documented = False
        identify = {"namespace": "rpc", "name": "identify", "id": "sysadm_client_identify"}
        client.socket.send(json.dumps(identify))
        assert client.receive()["args"]["type"] == "server"
        client.ask("rpc", "auth_token", {"token": daemon.token})
        client.ask("events", "subscribe", "dispatcher")
        yield Stage(tools, daemon, client)


def is_end(frame: dict[str, Any]) -> bool:
    return bool(frame["args"].get("state") == "finished")


def check_original(frame: dict[str, Any], id: str, command: str) -> None:
    """The form of an event of the class."""
    assert {key: frame[key] for key in ("namespace", "name", "id")} == {
        "namespace": "events",
        "name": "dispatcher",
        "id": "",
    }
    args = frame["args"]
    details = args["process_details"]
    assert "process_id" not in args
    assert details["process_id"] == id
    assert details["state"] == args["state"]
    assert args["event_system"] == "sysadm/pkg"
    assert isinstance(args["pkg_log"], str)
    # As the original client finds the action: the id, cut at its first dash.
    assert details["process_id"].split("-")[0] == f"sysadm_{args['action']}"
    keys = {
        "pending": {"state", "process_id", "cmd_list"},
        "running": {"state", "process_id", "cmd_list", "current_cmd", "time_started"},
        "finished": {"state", "process_id", "cmd_list", "time_started", "time_finished"},
    }[args["state"]]
    code = {f"return_codes/{command}"} if args["state"] == "finished" else set[str]()
    assert set(details) - {command} == keys | code
    for key in keys & {"time_started", "time_finished"}:
        assert LOCAL_TIME.fullmatch(details[key])


def test_the_original_client_gets_what_it_knows(original: Stage) -> None:
    played = original.tools.play("pkg", "upgrade")
    action, job = queue(original, played)
    frames = original.client.until(is_end)
    # The start is told twice: as of any job, and as the class tells it.
    assert frames.pop(1)["args"] == {"process_id": job["proc_id"], "state": "running"}
    for frame in frames:
        check_original(frame, job["proc_id"], job["proc_cmd"])
    args = [frame["args"] for frame in frames]
    states = [one["state"] for one in args]
    assert states == ["pending", *["running"] * (len(args) - 2), "finished"]
    assert len(states) > 3
    assert args[0] == {
        "event_system": "sysadm/pkg",
        "state": "pending",
        "action": action,
        "pkg_log": "",
        "process_details": {
            "state": "pending",
            "process_id": job["proc_id"],
            "cmd_list": [job["proc_cmd"]],
        },
    }
    text = played.output.decode()
    told = "".join(one["pkg_log"] for one in args[1:-1])
    assert told
    assert text.startswith(told)
    assert args[-1]["pkg_log"] == text
    assert args[-1]["process_details"][job["proc_cmd"]] == text


@pytest.mark.parametrize(
    ("case", "fields"),
    [
        ("upgrade-check", {"updates_available": "true"}),
        ("upgrade-check-none", {"updates_available": "false"}),
        ("audit-raw-json", FOUND["audit-raw-json"]),
        ("install-deps", {}),
    ],
)
def test_the_original_client_is_told_what_was_found(
    original: Stage, case: str, fields: dict[str, Any]
) -> None:
    played = original.tools.play("pkg", case, speed=None)
    action, job = queue(original, played)
    last = original.client.until(is_end)[-1]
    check_original(last, job["proc_id"], job["proc_cmd"])
    args = last["args"]
    assert args["action"] == action
    assert {key: args[key] for key in fields} == fields
    code = args["process_details"][f"return_codes/{job['proc_cmd']}"]
    assert code == str(played.returncode)


def test_the_original_client_hears_that_nothing_was_found(original: Stage) -> None:
    original.tools.say("pkg", "", rc=1)
    look = partial(original.client.ask_raw, "sysadm", "pkg")
    error = look({"action": "pkg_info", "pkg_origins": "nosuchpkg"})
    assert (error["namespace"], error["name"]) == ("error", "error")
    assert (error["args"]["code"], error["args"]["message"]) == ("204", "No Content")
