"""`sysadmd token`, with and without a running daemon."""

import subprocess
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.kit import QUIET, Daemon
from tests.kit.daemon import sysadmd


def token(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    return sysadmd("token", *arguments, "--state-dir", str(daemon.state_dir))


def works(daemon: Daemon, secret: str) -> bool:
    with daemon.stranger() as client:
        name: str = client.ask_raw("rpc", "auth_token", {"token": secret})["name"]
        return name == "response"


def test_tokens_are_made_listed_and_revoked_by_the_daemon_or_without(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "state", QUIET)
    daemon.start().stop()
    offline = token(daemon, "add", "offline", "--role", "read").stdout.strip()
    with daemon:
        online = token(daemon, "add", "online", "--role", "full", "--expires", "90d")
        assert online.returncode == 0, online.stderr
        assert works(daemon, offline)
        assert works(daemon, online.stdout.strip())
        listed = token(daemon, "list").stdout
        assert [line.split()[:2] for line in listed.splitlines()] == [
            ["offline", "read"],
            ["online", "full"],
        ]
        assert token(daemon, "revoke", "offline").returncode == 0
        assert not works(daemon, offline)
        twice = token(daemon, "revoke", "offline")
        assert twice.returncode == 1
        assert "no token named" in twice.stderr
        assert token(daemon, "add", "x", "--role", "god").returncode == 2
        bad = token(daemon, "add", "x", "--role", "read", "--expires", "soon")
        assert bad.returncode != 0
        assert "Traceback" not in bad.stderr
    assert token(daemon, "revoke", "online").returncode == 0
    assert token(daemon, "list").stdout == ""


def test_a_token_can_be_made_before_the_first_start(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "state", QUIET)
    assert token(daemon, "list").returncode == 1
    secret = token(daemon, "add", "first", "--role", "read").stdout.strip()
    twice = token(daemon, "add", "first", "--role", "full")
    assert twice.returncode == 1
    assert "exists" in twice.stderr
    assert daemon.state_dir.stat().st_mode & 0o077 == 0
    with daemon, daemon.client() as client:
        assert works(daemon, secret)
        assert any("token add first" in text for text in client.trail())


def test_a_daemon_that_hangs_is_not_worked_around(tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", QUIET) as daemon:
        (daemon.state_dir / "endpoint.json").unlink()
        refused = token(daemon, "add", "x", "--role", "read")
        assert refused.returncode == 1
        assert f"pid {daemon.pid}" in refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("expires", "why"),
    [
        ("tomorrow", "is no span of time"),
        ("2026-12-24", "is no span of time"),
        ("", "is no span of time"),
        ("0", "is out of range"),
        ("99999d", "is out of range"),
    ],
)
def test_when_a_token_ends_is_said_as_a_span_of_time(
    daemon: Daemon, expires: str, why: str
) -> None:
    with daemon.client() as client:
        args = {"action": "add", "name": "x", "role": "read", "expires": expires}
        refused = client.ask_raw("rpc", "tokens", args)["args"]
        assert refused["code"] == 400
        assert refused["detail"] == (
            f"args: expires: {expires!r} {why}; allowed: seconds, or text such as"
            ' "15m", "12h", "30d"'
        )


def test_who_is_sent_away_since_his_token_was_revoked_is_told_to_log_in_again(
    daemon: Daemon,
) -> None:
    with daemon.client() as client, daemon.stranger() as reader:
        add = {"action": "add", "name": "reader", "role": "read"}
        token = client.ask("rpc", "tokens", add)["token"]
        reader.ask("rpc", "auth_token", {"token": token})
        reader.ask("events", "subscribe", "dispatcher")
        client.ask("rpc", "tokens", {"action": "revoke", "name": "reader"})
        with pytest.raises(ConnectionClosed) as closed:
            reader.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401
        assert closed.value.rcvd.reason == "the token was revoked; log in again"
