"""`sysadmctl audit` and `unblock`: who did what, and who is kept out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysadmd.ctl.who import parted
from tests.kit import QUIET, Client, Daemon, wait_for
from tests.kit.accounts import PASSWORD, account, pam_service
from tests.kit.ctl import Ctl, lines

SERVICE = "sysadmd-unblock"
NAME = "sysadmd-unblock"


def at(daemon: Daemon) -> Ctl:
    """`sysadmctl` as root has it on the daemon's own machine."""
    return Ctl(Path("/nonexistent"), "--state-dir", str(daemon.state_dir))


def log_in(client: Client, password: str) -> int:
    """The code of a login."""
    frame = client.ask_raw("rpc", "auth", {"username": NAME, "password": password})
    return int(frame["args"]["code"]) if frame["name"] == "error" else 200


def test_an_address_is_blocked_until_it_is_unblocked(tmp_path: Path) -> None:
    auth = f'[auth]\npam_service = "{SERVICE}"\nfull = ["root", "{NAME}"]\nfailures = 2\n'
    with (
        account(NAME),
        pam_service(SERVICE),
        Daemon(tmp_path / "state", QUIET + auth) as daemon,
        daemon.stranger() as client,
    ):
        ctl = at(daemon)
        assert ctl("unblock").stdout == ""
        assert [log_in(client, password) for password in ("wrong", "wrong", PASSWORD)] == [
            *(401, 401, 429)
        ]
        (block,) = lines(ctl("--json", "unblock"))
        assert block["address"] == "127.0.0.1"
        assert 3000 < block["seconds"] <= 3600
        assert re.fullmatch(r"127\.0\.0\.1 for \d{4} s more\n", ctl("unblock").stdout)
        other = ctl("unblock", "192.0.2.7")
        assert other.returncode == 1
        assert "'192.0.2.7' is not blocked" in other.stderr
        done = ctl("unblock", "127.0.0.1")
        assert (done.returncode, done.stdout) == (0, "127.0.0.1 is not blocked any more\n")
        # What failed before does not count any more.
        assert [log_in(client, password) for password in ("wrong", PASSWORD)] == [401, 200]
        assert ctl("unblock").stdout == ""
        assert re.search(r"root +local +unblock 127\.0\.0\.1\n", ctl("audit").stdout)


def test_a_network_is_unblocked_by_any_address_in_it(daemon: Daemon) -> None:
    before = (
        "import server.login.guesses as it;"
        "it.Guesses.blocked = lambda self, now: iter([('2001:db8::/64', 9.5)])"
    )
    daemon.stop()
    daemon.before = before
    with daemon, daemon.client() as client:
        blocks: dict[str, Any] = client.ask("rpc", "clients", {"action": "blocks"})
        assert blocks == {"blocks": [{"address": "2001:db8::/64", "seconds": 10}]}
        for address in ("2001:db8::/64", "2001:db8::7"):
            unblock = {"action": "unblock", "address": address}
            assert client.ask("rpc", "clients", unblock) == {"unblocked": "2001:db8::/64"}
        for wrong in ("2001:db8:1::/64", "nowhere", "", 7, None):
            args = {"action": "unblock", "address": wrong}
            assert client.ask_raw("rpc", "clients", args)["args"]["code"] == 400
        unblock = {"action": "unblock", "address": "2001:db8:1::7"}
        assert client.ask_raw("rpc", "clients", unblock)["args"]["code"] == 404


def test_the_trail_is_shown_from_a_time_on_and_no_more_of_it_than_asked_for(
    daemon: Daemon,
) -> None:
    ctl = at(daemon)
    # Its own login is in the trail, once an hour.
    wait_for(lambda: "logged in locally" in ctl("audit").stdout, "its own login")
    with daemon.client() as client:
        for name in ("a", "b", "c"):
            client.ask("rpc", "tokens", {"action": "add", "role": "read", "name": name})
    whole = ctl("audit", "--since", "1h").stdout.splitlines()
    assert [line.rpartition(" ")[2] for line in whole][-3:] == ["a", "b", "c"]
    assert ctl("audit", "--count", "2").stdout.splitlines()[-2:] == whole[-2:]
    assert len(lines(ctl("audit", "--json", "--count", "2"))) == 2
    assert ctl("audit", "--since", "2000-01-01").stdout.splitlines()[: len(whole)] == whole
    # From that entry's moment on.
    moment = lines(ctl("audit", "--json"))[-1]["time"]
    since = ctl("audit", "--since", moment).stdout.splitlines()
    assert whole[-1] in since
    assert ctl("audit", "--since", "1 hour ago", "--user", "nobody-else").stdout == ""
    assert whole[-1] in ctl("audit", "--user", "root").stdout.splitlines()
    assert ctl("audit", "--since", "2999-01-01").stdout == ""


def test_entries_stand_in_columns_and_fit_a_narrow_terminal(daemon: Daemon) -> None:
    ctl = at(daemon)
    assert ctl("run", "--id", "audited-job-with-a-name", "--", "true").returncode == 0
    for columns in (40, 80):
        size = f"import os; os.environ['COLUMNS'] = '{columns}'; "
        shown = ctl.on_terminal("audit", "--user", "root", before=size, NO_COLOR="1")
        assert max(map(len, shown.splitlines())) <= columns
        assert re.match(r"-- \d{4}-\d\d-\d\d --\r\n\d\d:\d\d:\d\d  root      local   ", shown)
        assert "audited-job-with-a-name" in shown


@pytest.mark.parametrize("text", ["", "tomorrow", "0", "-5", "2026-13-01", "9" * 30, "1y"])
def test_what_is_no_time_is_a_usage_error(shared: Daemon, text: str) -> None:
    done = at(shared)("audit", f"--since={text}")
    assert done.returncode == 2
    assert "--since" in done.stderr
    assert "allowed: how long ago" in done.stderr


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        ("root@local: unblock 192.0.2.7", ("root", "local", "unblock 192.0.2.7")),
        ("a@b@2001:db8::7: run x@y: z", ("a@b", "2001:db8::7", "run x@y: z")),
        ("whatever", ("", "", "whatever")),
    ],
)
def test_an_entry_is_parted(entry: str, parts: tuple[str, str, str]) -> None:
    assert parted(entry) == parts


@given(st.text())
def test_whatever_an_entry_is_nothing_of_it_is_lost(entry: str) -> None:
    who, where, what = parted(entry)
    assert entry == (f"{who}@{where}: {what}" if who else what)
