"""A defect that one client meets ends that client's connection, and nothing else; one that
leaves the memory behind the disk ends the daemon, and the next start goes by the disk."""

from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.kit import QUIET, Client, Daemon, wait_for

# What is broken in the daemon before it starts, and what meets it: a reply can't be written, a
# request not taken, a part of a login fails for which nobody waits.
REPLY = ("import server.classes.identify as it; it.__version__ = chr(55296)", "rpc", "identify")
TAKING = ("import server.session as it; it.spoken_by = None", "rpc", "nonsense")
TASK = ("import server.login.audit as it; it.LOGIN_PAUSE = ''", "rpc", "auth_token")


@pytest.mark.parametrize(("before", "namespace", "name"), [REPLY, TAKING, TASK])
def test_a_defect_met_by_one_request_is_its_own(
    tmp_path: Path, before: str, namespace: str, name: str
) -> None:
    with Daemon(tmp_path / "state", QUIET, before=before) as daemon:
        for _ in range(2):
            client = daemon.stranger()
            with pytest.raises(ConnectionClosed) as closed:
                client.ask(namespace, name, {"token": daemon.token})
                client.receive()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1011
            client.close()
        assert daemon.is_up
        wait_for(lambda: "Traceback" in daemon.log.read_text())


# What is broken of the daemon's memory, what is committed before that is met, and what then
# becomes of a job.
AFTER: dict[str, tuple[str, dict[str, Any], str, str | None]] = {
    "submit": ("accepted", {"job": {"id": "next", "commands": ["true"]}}, "next", "succeeded"),
    "kill": ("withdrawn", {"job_id": "waits"}, "waits", "killed"),
    "pause": ("paused", {"queue": "iocage_queue"}, "held", None),
    "resume": ("paused", {"queue": "pkg_queue"}, "waits", "succeeded"),
}


def ask(client: Client, action: str, **args: Any) -> Any:
    return client.ask("rpc", "dispatcher", {"action": action, **args})


def submit(client: Client, id: str, queue: str) -> None:
    ask(client, "submit", job={"id": id, "queue": queue, "commands": ["true"]})


def result(client: Client, id: str) -> str | None:
    found: str | None = ask(client, "show", job_id=id)["job"]["result"]
    return found


@pytest.mark.parametrize("action", AFTER)
def test_a_defect_in_what_follows_a_commit_ends_the_daemon_and_loses_nothing(
    tmp_path: Path, action: str
) -> None:
    name, args, id, becomes = AFTER[action]
    state_dir = tmp_path / "state"
    with Daemon(state_dir, QUIET) as daemon, daemon.client() as client:
        ask(client, "pause", queue="pkg_queue")
        submit(client, "waits", "pkg_queue")
    before = f"import dispatcher.advance as it; it.Mover.{name} = lambda *_: 1 / 0"
    with Daemon(state_dir, QUIET, before=before) as daemon:
        client = daemon.client()
        # It is told no result, which might promise what is not so.
        with pytest.raises(ConnectionClosed):
            ask(client, action, **args)
        assert daemon.wait() == 1
        said = daemon.log.read_text()
        for word in ("critical server.service: stopped by a defect", "ZeroDivisionError"):
            assert word in said
    with Daemon(state_dir, QUIET) as daemon, daemon.client() as client:
        if action == "pause":
            submit(client, "held", "iocage_queue")
        if action != "resume":
            ask(client, "resume", queue="pkg_queue")
        # What is not paused has begun when this has.
        submit(client, "last", "pkg_queue")
        wait_for(lambda: result(client, "last"), "the end of the last job")
        wait_for(lambda: becomes is None or result(client, id), f"the end of {id}")
        assert result(client, id) == becomes


def test_a_defect_in_ending_who_has_a_revoked_token_ends_the_daemon(tmp_path: Path) -> None:
    before = "import server.session as it; it.Session.end_login = lambda *_: 1 / 0"
    with Daemon(tmp_path / "state", QUIET, before=before) as daemon:
        add = {"action": "add", "name": "own", "role": "read"}
        with daemon.client() as admin:
            token = admin.ask("rpc", "tokens", add)["token"]
        client = daemon.stranger()
        client.ask("rpc", "auth_token", {"token": token})
        with pytest.raises(ConnectionClosed):
            client.ask("rpc", "tokens", {"action": "revoke", "name": "own"})
            client.receive()
        assert daemon.wait() == 1
        assert "critical server.service: stopped by a defect" in daemon.log.read_text()
    with Daemon(tmp_path / "state", QUIET) as daemon, daemon.stranger() as client:
        assert client.ask_raw("rpc", "auth_token", {"token": token})["args"]["code"] == 401


def test_long_requests_of_many_are_answered_each_in_its_turn(tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", QUIET) as daemon:
        clients = [daemon.client() for _ in range(8)]
        for client in clients:
            for id in ("a", "b"):
                args = "[" + "{}," * 100_000 + "1]"
                client.socket.send(
                    f'{{"namespace":"rpc","name":"identify","id":"{id}","args":{args}}}'
                )
        for client in clients:
            assert [client.receive()["id"] for _ in range(2)] == ["a", "b"]
            client.close()
