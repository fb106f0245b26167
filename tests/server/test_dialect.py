"""The dialect of the original Qt client, against the facts of how the original server spoke."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit import QUIET, Client, Daemon
from tests.kit.replay import Tools

DATE = "Tue Nov 24 18:00:03 UTC 2026"
LOCAL_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "lp" / "lpreserver.log"


@pytest.fixture
def client(tmp_path: Path, log: Path) -> Iterator[Client]:
    log.parent.mkdir()
    log.touch()
    config = QUIET.replace(
        "[collectors.life_preserver]\nenabled = false",
        f'[collectors.life_preserver]\nlog = "{log}"',
    ).replace("[collectors.hostname]\nenabled = false", "")
    tools = Tools(tmp_path / "tools")
    tools.install("pkg")
    tools.play("pkg", "install-deps", when=("install",), speed=None)
    config += f'[classes]\npkg = "{tools.folder}/pkg"\n'
    with Daemon(tmp_path / "state", config) as daemon, daemon.stranger() as client:
        client.documented = False
        identify = {"namespace": "rpc", "name": "identify", "id": "sysadm_client_identify"}
        client.socket.send(json.dumps(identify))
        assert client.receive()["args"]["type"] == "server"
        client.ask("rpc", "auth_token", {"token": daemon.token})
        yield client


def finished(frame: dict[str, Any]) -> bool:
    return bool(frame["args"].get("state") == "finished")


def test_a_job_sends_a_start_notice_and_its_bare_details(client: Client) -> None:
    assert client.ask("events", "subscribe", ["dispatcher"]) == {"subscribe": "dispatcher"}
    client.ask("rpc", "dispatcher", {"action": "run", "job": ["echo a", "false", "echo b"]})
    notice, details = client.until(finished)
    assert notice == {
        "namespace": "events",
        "name": "dispatcher",
        "id": "",
        "args": {"process_id": "job", "state": "running"},
    }
    args = details["args"]
    assert args.pop("time_started") and LOCAL_TIME.fullmatch(args.pop("time_finished"))
    assert args == {
        "process_id": "job",
        "state": "finished",
        "cmd_list": ["echo a", "false", "echo b"],
        "echo a": "a\n",
        "return_codes/echo a": "0",
        "false": "",
        "return_codes/false": "1",
    }


def test_the_start_of_a_class_s_job_is_told_twice(client: Client) -> None:
    client.ask("events", "subscribe", "dispatcher")
    args = {"action": "pkg_install", "pkg_origins": "webfront"}
    id = client.ask("sysadm", "pkg", args)["pkg_install"]["proc_id"]
    pending, notice, running, *_, end = client.until(finished)
    assert pending["args"] == {
        "event_system": "sysadm/pkg",
        "action": "pkg_install",
        "pkg_log": "",
        "state": "pending",
        "process_details": {
            "state": "pending",
            "process_id": id,
            # Its pages make rows of these.
            "cmd_list": running["args"]["process_details"]["cmd_list"],
        },
    }
    assert notice["args"] == {"process_id": id, "state": "running"}
    assert notice.keys() == running.keys() == {"namespace", "name", "id", "args"}
    assert running["args"]["event_system"] == "sysadm/pkg"
    assert running["args"]["process_details"]["current_cmd"].endswith("install -y webfront")
    details = end["args"]["process_details"]
    assert details[details["cmd_list"][0]] == end["args"]["pkg_log"] != ""
    assert not details.keys() & {"commands", "result"}
    assert LOCAL_TIME.fullmatch(details["time_finished"])
    assert "process_id" not in end["args"]


def test_events_have_hyphens_no_id_and_spelled_priorities(client: Client, log: Path) -> None:
    reply = client.ask("events", "subscribe", ["life-preserver", "system-state"])
    assert reply == {"subscribe": ["life-preserver", "system-state"]}
    state = client.event()
    assert (state["name"], state["id"]) == ("system-state", "")
    assert state["args"]["priority"] == "0 - Information"
    with log.open("a") as out:
        out.write(f"{DATE}: ERROR: Failed creating snapshot on Tank\n")
    event = client.event()
    assert event == {
        "namespace": "events",
        "name": "life-preserver",
        "id": "",
        "args": {
            "message": f"{DATE}: ERROR: Failed creating snapshot on Tank",
            "priority": "7 - Critical",
            "class": "snapshot",
        },
    }


def test_errors_have_the_name_error_twice_and_a_string_code(client: Client) -> None:
    error = client.ask_raw("rpc", "no-such-class")
    assert (error["namespace"], error["name"]) == ("error", "error")
    assert error["args"]["code"] == "404"
    assert error["args"]["message"] == "Not Found"


def test_without_args_the_whole_object_is_taken_for_them(client: Client) -> None:
    request = {"namespace": "rpc", "name": "dispatcher", "id": "x", "action": "list"}
    client.socket.send(json.dumps(request))
    assert client.receive()["args"] == {"jobs": {}}


def test_a_request_without_an_id_is_answered_under_its_own_name(client: Client) -> None:
    client.socket.send('{"namespace":"rpc","name":"query","args":{}}')
    reply = client.receive()
    assert (reply["name"], reply["id"]) == ("query", "")


def test_other_connections_keep_the_documented_dialect(tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", QUIET) as daemon, daemon.client() as client:
        assert client.ask_raw("rpc", "no-such-class")["args"]["code"] == 404
    with (
        Daemon(tmp_path / "other", QUIET + '[server]\ndialect = "sysadm-client"\n') as daemon,
        daemon.client() as client,
    ):
        assert client.ask_raw("rpc", "no-such-class")["args"]["code"] == "404"
