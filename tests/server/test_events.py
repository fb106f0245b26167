"""Events as events.rst has them, for a plain client."""

from pathlib import Path
from typing import Any

import pytest

from tests.kit import DEADLINE, Client, Daemon

SYSTEMS = ["dispatcher", "life-preserver", "system-state"]


def finished(frame: dict[str, Any]) -> bool:
    return bool(frame["args"].get("state") == "finished")


def run(client: Client, id: str, *commands: str) -> list[dict[str, Any]]:
    """Run a job and return its events."""
    client.ask("rpc", "dispatcher", {"action": "run", id: list(commands)})
    return [e for e in client.until(finished) if e["name"] == "dispatcher"]


@pytest.mark.parametrize("args", ["dispatcher", ["dispatcher"], SYSTEMS])
def test_the_documents_requests_get_its_events(daemon: Daemon, args: object) -> None:
    with daemon.client() as client:
        reply = client.ask("events", "subscribe", args)
        assert reply == {"subscribe": [args] if isinstance(args, str) else args}
        events = run(
            client, "job", "echo one", "sh -c 'exit 3'".replace("'", '"'), "echo never"
        )
        states = [event["args"]["state"] for event in events]
        assert states == ["pending", "running", "running", "finished"]
        details = events[-1]["args"]["process_details"]
        assert details["cmd_list"] == ["echo one", 'sh -c "exit 3"', "echo never"]
        assert details["echo one"] == "one\n"
        assert details["return_codes/echo one"] == "0"
        assert details['return_codes/sh -c "exit 3"'] == "3"
        assert "return_codes/echo never" not in details
        assert "echo never" not in details
        assert details["result"] == "failed"
        assert [c["state"] for c in details["commands"]] == ["finished", "finished", "skipped"]


def test_an_unknown_system_is_refused_and_nothing_subscribed(daemon: Daemon) -> None:
    with daemon.client() as client:
        wrong: tuple[object, ...] = (["dispatcher", "weather"], "weather", [], {}, 7, [7], None)
        for bad in wrong:
            error = client.ask_raw("events", "subscribe", bad)
            assert error["name"] == "error"
            assert error["args"]["code"] == 400
            assert "life-preserver" in error["args"]["detail"]
        assert client.ask("rpc", "clients", {"action": "list"})["clients"][0]["systems"] == []


def test_subscribing_twice_sends_nothing_twice(daemon: Daemon) -> None:
    with daemon.client() as client:
        for _ in range(3):
            client.ask("events", "subscribe", SYSTEMS)
        events = run(client, "job", "true")
        assert [e["args"]["state"] for e in events if e["name"] == "dispatcher"] == [
            "pending",
            "running",
            "finished",
        ]


def test_unsubscribing_ends_the_events_of_that_system(daemon: Daemon) -> None:
    with daemon.client() as client, daemon.client() as other:
        client.ask("events", "subscribe", SYSTEMS)
        assert client.ask("events", "unsubscribe", "dispatcher") == {
            "unsubscribe": ["dispatcher"]
        }
        other.ask("events", "subscribe", "dispatcher")
        run(other, "job", "true")
        client.ask("rpc", "identify")
        assert not [e for e in client.events if e["name"] == "dispatcher"]
        client.ask("events", "subscribe", "dispatcher")
        assert [e["args"]["state"] for e in run(client, "again", "true")][-1] == "finished"


def test_a_command_that_does_not_exist_is_127_with_the_reason(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.ask("events", "subscribe", "dispatcher")
        details = run(client, "job", "/no/such/program")[-1]["args"]["process_details"]
        assert details["return_codes//no/such/program"] == "127"
        assert "No such file" in details["/no/such/program"]


def test_commands_that_share_or_lack_a_key_have_their_logs_in_the_list(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.ask("events", "subscribe", "dispatcher")
        commands = ["echo same", "echo same", "state", "echo other"]
        details = run(client, "job", *commands)[-1]["args"]["process_details"]
        assert details["state"] == "finished"
        assert details["echo same"] == "same\n"
        assert [c.get("log") for c in details["commands"][:2]] == ["same\n", "same\n"]
        assert "log" in details["commands"][2]
        assert "log" not in details["commands"][3]


def test_a_long_log_is_clipped_with_its_size_said(tmp_path: Path) -> None:
    config = "[dispatcher]\nevent_log_limit = '1KiB'\n[collectors.zpool]\nenabled = false\n"
    with Daemon(tmp_path / "s", config) as daemon, daemon.client() as client:
        client.ask("events", "subscribe", "dispatcher")
        events = run(client, "job", *(f"seq {start} 9999" for start in range(1000, 1006)))
        details = events[-1]["args"]["process_details"]
        logs = [details[command] for command in details["cmd_list"]]
        assert all("bytes left out ...]\n" in log for log in logs)
        assert sum(log.count("\n") == 1 for log in logs) >= 1
        assert len(logs[-1]) <= 1024
        assert logs[-1].endswith("9999\n")
        assert sum(map(len, logs)) <= 4 * 1024 + 200


def test_progress_holds_only_what_is_new(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.ask("events", "subscribe", "dispatcher")
        command = 'sh -c "echo first; sleep 1.5; echo second; sleep 1.5; echo third"'
        events = run(client, "job", command)
        told = [e["args"]["process_details"].get(command, "") for e in events[1:-1]]
        assert "first\n" in told
        assert all("second" not in text or "first" not in text for text in told)
        assert events[-1]["args"]["process_details"][command] == "first\nsecond\nthird\n"


@pytest.mark.long
def test_a_job_of_many_commands_stays_within_the_frame_limit(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.ask("events", "subscribe", "dispatcher")
        commands = [f"true {number:04d}{'x' * 50}" for number in range(1000)]
        client.ask("rpc", "dispatcher", {"action": "run", "job": commands})
        while True:
            text = client.socket.recv(timeout=DEADLINE)
            assert len(text) <= 512 * 1024
            if '"state":"finished","process_id":"job","process_details"' in str(text):
                break


@pytest.mark.parametrize(
    ("frame", "code", "namespace"),
    [
        ("{", 400, "error"),
        ("[]", 400, "error"),
        ("{}", 400, "error"),
        ('{"namespace":"rpc","id":"7"}', 400, "error"),
        ('{"namespace":"rpc","name":"weather","id":"7"}', 404, "rpc"),
        ('{"namespace":"rpc","name":"dispatcher","id":"7"}', 400, "rpc"),
        ('{"namespace":"rpc","name":"dispatcher","id":"7","args":{"action":"x"}}', 404, "rpc"),
        ('{"namespace":"RPC","name":"Dispatcher","id":"7","args":[1]}', 400, "RPC"),
    ],
)
def test_bad_requests_get_the_documented_error_and_the_connection_lives(
    daemon: Daemon, frame: str, code: int, namespace: str
) -> None:
    with daemon.client() as client:
        client.socket.send(frame)
        error = client.receive()
        assert (error["namespace"], error["name"]) == (namespace, "error")
        assert error["args"]["code"] == code
        assert error["args"]["detail"]
        assert error["id"] == ("7" if '"7"' in frame else "")
        assert client.ask("rpc", "identify")["type"] == "server"


def test_before_login_everything_else_is_401(daemon: Daemon) -> None:
    with daemon.stranger() as client:
        assert client.ask("rpc", "identify")["type"] == "server"
        for namespace, name in (
            ("rpc", "query"),
            ("rpc", "dispatcher"),
            ("events", "subscribe"),
            ("rpc", "no-such-class"),
        ):
            values: tuple[object, ...] = ({"action": "list"}, {}, [], 7)
            for args in values:
                error = client.ask_raw(namespace, name, args)
                assert error["args"]["code"] == 401
        error = client.ask_raw("rpc", "auth_token", {"token": "wrong"})
        assert error["args"]["code"] == 401
        client.ask("rpc", "auth_token", {"token": daemon.token})
        assert "rpc/dispatcher" in client.ask("rpc", "query")
        client.socket.send('{"namespace":"rpc","name":"auth_clear","id":"no reply"}')
        assert client.ask_raw("rpc", "query")["args"]["code"] == 401
