"""`sysadmctl` against what is no sysadmd, and what no server would take."""

import contextlib
import json
import math
import ssl
import threading
from collections.abc import Callable, Generator
from typing import Any

import pytest
from websockets.sync.server import ServerConnection, serve

from tests.kit import Daemon
from tests.kit.ctl import Ctl, lines

Play = Callable[[Callable[[str, dict[str, Any]], Any]], tuple[list[str], list[Any]]]

COMMANDS = (
    ["jobs"],
    ["jobs", "--all"],
    ["show", "x"],
    ["log", "x"],
    ["log", "-n", "3", "x"],
    ["log", "--command", "0", "x"],
    ["kill", "x"],
    ["kill", "last"],
    ["rerun", "x"],
    ["queue", "list"],
    ["show", "last"],
    ["state"],
    ["audit"],
    ["audit", "--count", "1"],
    ["audit", "--user", "x"],
    ["unblock"],
    ["unblock", "192.0.2.7"],
    ["identify"],
    ["key", "list"],
    ["key", "revoke", "x"],
    ["run", "--", "true"],
    ["tail", "--count", "1"],
    ["tail", "--no-follow", "--priority", "3"],
)
CHECKS = (["check", "pool"], ["check", "collector"], ["check", "daemon"])
REPLIES: tuple[tuple[str, Any], ...] = (
    ("response", None),
    ("response", ["text"]),
    ("response", {"jobs": 1, "job": "x", "killed": 2, "hostinfo": 3, "prev": {}}),
    ("error", {"code": "\x1b[31m"}),
    ("error", "no"),
)
EVIL = "\x1b]0;evil\x07\u202e"


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


def test_of_what_makes_no_sense_a_monitor_is_told_nothing(shared: Daemon, ctl: Ctl) -> None:
    with stranger(shared) as (where, answers):
        for words in CHECKS:
            for answer in REPLIES:
                answers.append(answer)
                done = ctl(*where, *words, "--timeout", "2")
                # What answers, and is not healthy, is a daemon in a bad way.
                known = "daemon" in words and "CRITICAL - " in done.stdout
                assert (done.returncode, done.stderr) == (2 if known else 3, ""), done
                assert known or "UNKNOWN - " in done.stdout
                assert "\x1b" not in done.stdout


def test_a_number_without_an_end_is_no_traceback(play: Play, ctl: Ctl) -> None:
    job: dict[str, Any] = {
        "id": "x",
        "queue": "q",
        "state": "running",
        "commands": [],
        "timeout": math.inf,
    }
    options, _ = play(lambda to, args: {"job": job})
    done = ctl(*options, "show", "x")
    assert done.returncode == 69
    assert done.stderr.startswith("sysadmctl: what answers there is no sysadmd")


def event(name: str, prev: str, cursor: str, args: dict[str, Any]) -> dict[str, Any]:
    """A frame of a subscription."""
    frame = {"namespace": "events", "id": "", "name": name, "time": "2026-01-01T00:00:00Z"}
    return {**frame, "prev": prev, "cursor": cursor, "args": args}


def test_names_in_events_reach_no_terminal_as_they_are(play: Play, ctl: Ctl) -> None:
    command = {"command": EVIL, "state": "running", "log_size": 99}
    details = {"commands": [command], EVIL: EVIL}
    job = {"process_id": EVIL, "state": "running", "process_details": details}
    told = (event(EVIL, "a", "b", {}), event("dispatcher", "b", "c", job))
    reply = {"cursor": "a", "prev": "a"}
    options, _ = play(lambda to, args: ("response", reply, *told))
    done = ctl(*options, "tail", "--count", "2", "-v")
    assert "sysadmctl log" in done.stdout
    assert not {"\x1b", "\x07", "\u202e"} & {*done.stdout, *done.stderr}


def test_what_is_held_back_by_tail_is_bounded_and_that_is_said(play: Play, ctl: Ctl) -> None:
    args = {"process_id": "x", "state": "running", "text": "x" * 500_000}
    told = [event("dispatcher", f"c{n}", f"c{n + 1}", args) for n in range(90)]
    place = {"prev": "c90", "cursor": "c90"}
    end = {**event("heartbeat", "c90", "c90", {}), "args": {**place, "caught_up": True}}
    reply = {"prev": "c0", "cursor": "c0"}
    options, _ = play(lambda to, args: ("response", reply, *told, end))
    done = ctl(*options, "tail", "-n", "1000", "--job", "x", "--no-follow", "--json")
    shown = lines(done)
    assert len(done.stdout) < 40_000_000
    assert shown[-1]["cursor"] == "c90"
    assert f"only the last {len(shown)}" in done.stderr
    # Of fewer nothing is said.
    done = ctl(*options, "tail", "-n", "5", "--job", "x", "--no-follow", "--json")
    assert [frame["cursor"] for frame in lines(done)] == [f"c{n}" for n in range(86, 91)]
    assert done.stderr == ""


def test_a_list_that_leads_to_itself_is_not_read_for_ever(play: Play, ctl: Ctl) -> None:
    options, _ = play(lambda to, args: {"jobs": {}, "next": "7"})
    done = ctl(*options, "jobs")
    assert done.returncode == 69
    assert done.stderr.startswith("sysadmctl: what answers there is no sysadmd")


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
