"""A defect that one client meets ends that client's connection, and nothing else."""

from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.kit import QUIET, Daemon

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
        assert "Traceback" in daemon.log.read_text()


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
