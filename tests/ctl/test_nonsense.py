"""`sysadmctl` against what is no sysadmd, and what no server would take."""

import contextlib
import json
import ssl
import threading
from collections.abc import Generator
from typing import Any

import pytest
from websockets.sync.server import ServerConnection, serve

from tests.kit import Daemon
from tests.kit.ctl import Ctl

COMMANDS = (
    ["jobs"],
    ["jobs", "--all"],
    ["show", "x"],
    ["log", "x"],
    ["kill", "x"],
    ["state"],
    ["audit"],
    ["audit", "--count", "1"],
    ["unblock"],
    ["unblock", "192.0.2.7"],
    ["identify"],
    ["key", "list"],
    ["key", "revoke", "x"],
    ["run", "--", "true"],
    ["tail", "--count", "1"],
)
REPLIES: tuple[tuple[str, Any], ...] = (
    ("response", None),
    ("response", ["text"]),
    ("response", {"jobs": 1, "job": "x", "killed": 2, "hostinfo": 3, "prev": {}}),
    ("error", {"code": "\x1b[31m"}),
    ("error", "no"),
)


@contextlib.contextmanager
def stranger(daemon: Daemon) -> Generator[tuple[list[str], list[tuple[str, Any]]]]:
    """A server with the daemon's certificate that answers whatever it is told to.

    Yields the options that lead there, and the list whose last entry is its answer.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls = daemon.state_dir / "tls"
    context.load_cert_chain(tls / "certificate.pem", tls / "key.pem")
    answers: list[tuple[str, Any]] = []

    def handle(socket: ServerConnection) -> None:
        for text in socket:
            name, args = answers[-1]
            if name == "raw":
                socket.send(args)
                continue
            request = json.loads(text)
            reply = {"namespace": request["namespace"], "id": request["id"], "name": name}
            socket.send(json.dumps({**reply, "args": args}))

    with serve(handle, "127.0.0.1", 0, ssl=context) as server:
        port = server.socket.getsockname()[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            where = ["--url", f"wss://127.0.0.1:{port}", "--token", "x"]
            yield [*where, "--cafile", str(tls / "certificate.pem")], answers
        finally:
            server.shutdown()
            thread.join()


def test_a_reply_that_makes_no_sense_is_no_traceback(shared: Daemon, ctl: Ctl) -> None:
    with stranger(shared) as (where, answers):
        for number, words in enumerate(COMMANDS):
            # Each command gets one of them; which one matters little.
            answers.append(REPLIES[number % len(REPLIES)])
            done = ctl(*where, *words)
            assert done.returncode == 69, (words, answers[-1], done)
            assert done.stderr.startswith("sysadmctl: what answers there is no sysadmd")
            assert "\x1b" not in done.stdout + done.stderr
            assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["[" * 100_000, "\x00", "x" * 2_000_000])
def test_a_frame_that_can_not_be_read_ends_the_connection_at_once(
    shared: Daemon, ctl: Ctl, text: str
) -> None:
    with stranger(shared) as (where, answers):
        answers.append(("raw", text))
        done = ctl(*where, "jobs")
    assert done.returncode == 69
    assert done.stderr.startswith("sysadmctl: ")
    assert len(done.stderr) < 500


def test_what_is_no_text_is_not_sent(shared: Daemon, ctl: Ctl) -> None:
    local = ["--state-dir", str(shared.state_dir)]
    for words, status in ((["show", "\udcff"], 2), (["run", "--", "echo", "\udcff"], 125)):
        done = ctl(*local, *words)
        assert done.returncode == status
        assert "UTF-8" in done.stderr


def test_an_address_or_a_cafile_that_can_not_be_is_said(shared: Daemon, ctl: Ctl) -> None:
    assert ctl("jobs", "--url", "wss://a..b:1").returncode == 69
    wrong = ctl("jobs", "--url", shared.url, "--cafile", "/dev/null")
    assert wrong.returncode == 2
    assert "no certificates" in wrong.stderr


def test_an_empty_id_is_not_silently_replaced(shared: Daemon, ctl: Ctl) -> None:
    local = ["--state-dir", str(shared.state_dir)]
    refused = ctl(*local, "run", "--id", "", "--", "true")
    assert refused.returncode == 125
    assert "1 to 256" in refused.stderr
