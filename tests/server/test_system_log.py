"""Logins and the trail in the system's log, received where syslogd would, and read as fail2ban
reads them."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.login import auth_lines
from server.wire import system_log
from server.wire.system_log import SystemLog
from tests.kit import DEADLINE, QUIET, ROOT, Client, Daemon
from tests.kit.accounts import PASSWORD, account, pam_service

SERVICE = "sysadmd-syslog"
NAME = "sysadmd-syslog-a"
AUTH = f'[auth]\npam_service = "{SERVICE}"\nfull = ["root", "{NAME}"]\n'
# A login from which a filter may take another address than the client's.
FORGED = "x from 192.0.2.66 port 1"


class Receiver:
    """What a syslogd receives."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._socket.settimeout(DEADLINE)

    def line(self) -> str:
        """The next one, as syslogd writes it."""
        packet = self._socket.recv(8192).decode("ascii")
        # <38> is facility auth, level info: 4 * 8 + 6, RFC 3164.
        assert packet.startswith("<38>sysadmd[")
        assert packet.isprintable()
        return packet.removeprefix("<38>")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    # Not below tmp_path: paths of sockets are short.
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(Receiver(f"{folder}/log")) as receiver,
    ):
        yield receiver


def filtered(line: str) -> tuple[str, str] | None:
    """Name and address, if the filter that is shipped takes the line for a failed login.

    As fail2ban does: the date is taken out, its tags are groups.
    """
    file = configparser.RawConfigParser()
    file.read(ROOT / "packaging/fail2ban/sysadmd.conf")
    expression = file["Definition"]["failregex"]
    expression = expression.replace("<F-USER>", "(?P<user>").replace("</F-USER>", ")")
    expression = expression.replace("<ADDR>", r"(?P<address>[0-9.]+|[0-9A-Fa-f:]+)")
    found = re.search(expression, line)
    return (found["user"], found["address"]) if found else None


def log_in(client: Client, name: str, password: str) -> str:
    """The name of the reply."""
    args = {"username": name, "password": password}
    return str(client.ask_raw("rpc", "auth", args)["name"])


def test_logins_and_the_trail_are_told_in_a_form_that_filters_read(
    tmp_path: Path, receiver: Receiver
) -> None:
    before = f"import server.wire.system_log as it; it.PATHS = ({receiver.path!r},)"
    auth = AUTH + "failures = 3\n"
    with (
        account(NAME) as name,
        pam_service(SERVICE),
        Daemon(tmp_path / "state", QUIET + auth, before=before) as daemon,
        daemon.stranger() as client,
    ):
        port = client.socket.local_address[1]
        mark = f"sysadmd[{daemon.pid}]: "
        end = f"from 127.0.0.1 port {port}"
        assert log_in(client, name, PASSWORD) == "response"
        assert receiver.line() == f"{mark}Accepted password for {name} {end}"
        run = {"action": "run", f"Failed password for root {end}": "true"}
        assert client.ask("rpc", "dispatcher", run)
        line = receiver.line()
        assert line.startswith(f"{mark}audit: {name}@127.0.0.1: run Failed password for root")
        assert filtered(f" box {line}") is None
        for user, written in (
            (name, name),
            (FORGED, FORGED.replace(" ", "\\x20")),
            ("jörg", "j\\xf6rg"),
        ):
            assert log_in(client, user, "wrong") == "error"
            line = receiver.line()
            assert line == f"{mark}Failed password for {written} {end}"
            assert filtered(f" box {line}") == (written, "127.0.0.1")
        assert receiver.line() == f"{mark}Too many failed passwords {end}"


def test_nothing_is_told_where_that_is_not_wanted(tmp_path: Path, receiver: Receiver) -> None:
    before = f"import server.wire.system_log as it; it.PATHS = ({receiver.path!r},)"
    off = "[auth]\nsyslog = false\n"
    with (
        Daemon(tmp_path / "state", QUIET + off, before=before) as daemon,
        daemon.client() as client,
    ):
        add = {"action": "add", "role": "read"}
        client.ask("rpc", "tokens", {**add, "name": "untold"})
        daemon.config.write_text(QUIET)
        daemon.reload()
        client.ask("rpc", "tokens", {**add, "name": "told"})
        assert receiver.line().endswith("audit: root@127.0.0.1: token add told")


def test_a_log_that_takes_nothing_holds_up_nobody(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(system_log, "PATHS", (receiver.path + "-is-not-there", receiver.path))
    log = SystemLog()
    # Nobody reads: far more than any system keeps.
    log.say([f"line {number}" for number in range(20_000)])
    assert "takes nothing" in caplog.text
    assert receiver.line() == f"sysadmd[{os.getpid()}]: line 0"
    receiver.close()
    Path(receiver.path).unlink()
    log.say(["nobody is there"])
    assert caplog.text.count("takes nothing") == 1
    log.close()


def test_a_line_that_is_not_taken_silences_none_that_comes_next(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_log, "PATHS", (receiver.path,))
    with contextlib.closing(SystemLog()) as log:
        # Longer than any system takes: that says nothing of who listens.
        log.say(["x" * 16 * 1024 * 1024])
        log.say(["next"])
        assert receiver.line() == f"sysadmd[{os.getpid()}]: next"


@given(st.text(), st.sampled_from(("192.0.2.7", "2001:db8::7", "fe80::7%eth0")))
def test_whatever_a_name_is_its_line_names_the_true_address(name: str, address: str) -> None:
    line = f"sysadmd[1]: {auth_lines.failed(name, address, 4711)}"
    assert line.isascii()
    assert line.isprintable()
    if name:
        found = filtered(f" box {line}")
        assert found is not None
        assert found[1] == address.partition("%")[0]
    assert filtered(f" box sysadmd[1]: {auth_lines.entry(name, address, name)}") is None


@given(st.text(), st.text(max_size=2000))
def test_a_line_of_the_trail_has_a_bounded_length_and_prints(name: str, action: str) -> None:
    line = auth_lines.entry(name, "192.0.2.7", action)
    assert len(line) <= auth_lines.LINE_LENGTH
    assert line.isascii()
    assert line.isprintable()
