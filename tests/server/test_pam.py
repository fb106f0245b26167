"""What PAM is told of a login, and what follows from what it says: by services that note it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.login import standing
from server.login.roles import Role
from sysadmd.client import Target, connect
from sysadmd.settings import AuthSettings
from tests.kit import QUIET, Client, Daemon, wait_for
from tests.kit.accounts import PASSWORD, account, pam_service, take_shell
from tests.kit.bridged import Bridged

SERVICE = "sysadmd-pam"
RULES = "auth required pam_unix.so\naccount required pam_unix.so\n"
NAME = "sysadmd-pam-a"
CONFIG = f'{QUIET}[auth]\npam_service = "{SERVICE}"\nfull = ["root", "{NAME}"]\nfailures = 50\n'


@pytest.fixture(scope="module")
def name() -> Iterator[str]:
    """An account with the role full."""
    with account(NAME) as name:
        yield name


@pytest.fixture
def rules() -> Iterator[Callable[[str], object]]:
    """Sets the rules of the service; it is there without any more than the usual."""
    with pam_service(SERVICE, RULES):
        yield (Path("/etc/pam.d") / SERVICE).write_text


def log_in(client: Client, name: str) -> int:
    """The code of a login with the right password."""
    frame = client.ask_raw("rpc", "auth", {"username": name, "password": PASSWORD})
    return int(frame["args"]["code"]) if frame["name"] == "error" else 200


def test_pam_is_told_where_a_password_comes_from(
    tmp_path: Path, name: str, rules: Callable[[str], object]
) -> None:
    said, script = tmp_path / "said", tmp_path / "note"
    script.write_text(f'#!/bin/sh\necho "$PAM_TYPE $PAM_TTY [$PAM_RHOST]" >>{said}\n')
    script.chmod(0o700)
    rules("".join(f"{phase} optional pam_exec.so {script}\n{phase} required pam_unix.so\n"
                  for phase in ("auth", "account")))  # fmt: skip

    def heard() -> list[str]:
        lines = said.read_text().splitlines()
        said.unlink()
        return lines

    with Daemon(tmp_path / "state", CONFIG) as daemon:
        with daemon.stranger() as client:
            assert log_in(client, name) == 200
            assert heard() == ["auth sysadmd [127.0.0.1]", "account sysadmd [127.0.0.1]"]
        with daemon.local() as client:
            token = client.ask("rpc", "auth", {"username": name, "password": PASSWORD})[0]
            assert heard() == ["auth sysadmd []", "account sysadmd []"]
        with daemon.stranger() as client:
            client.ask("rpc", "auth_token", {"token": token})
            assert heard() == ["account sysadmd []"]


def test_pam_is_told_that_a_password_has_come_over_a_bridge(
    tmp_path: Path, name: str, rules: Callable[[str], object]
) -> None:
    """By a name with a dot: where pam_access has it, one without is of this network."""
    said, script = tmp_path / "said", tmp_path / "note"
    script.write_text(f'#!/bin/sh\necho "$PAM_TYPE [$PAM_RHOST]" >>{said}\n')
    script.chmod(0o700)
    rules(f"auth optional pam_exec.so {script}\n{RULES}")

    async def password(target: Target) -> None:
        async with connect(target) as client:
            await client.request("rpc", "auth", {"username": name, "password": PASSWORD})

    with Bridged(tmp_path) as world:
        world.let_in("alice")
        world.server("one", more=CONFIG.removeprefix(QUIET))
        world.register("one", "alice", name)
        asyncio.run(password(world.target("alice", "one")))
    assert said.read_text() == "auth [bridge.invalid]\n"


def test_a_rule_about_addresses_refuses_passwords_and_ends_nothing(
    tmp_path: Path, name: str, rules: Callable[[str], object]
) -> None:
    access = tmp_path / "access.conf"
    access.write_text("-:ALL:ALL EXCEPT LOCAL 192.0.2.0/24\n")
    with (
        Daemon(tmp_path / "state", CONFIG) as daemon,
        daemon.stranger() as client,
        daemon.stranger() as second,
    ):
        assert log_in(client, name) == 200
        rules(f"{RULES}account required pam_access.so accessfile={access}\n")
        daemon.reload()
        assert log_in(second, name) == 401
        with daemon.local() as local:
            # What has no address is local, and so is who is in when PAM is asked about him.
            args = {"username": name, "password": PASSWORD}
            token = local.ask("rpc", "auth", args)[0]
        second.ask("rpc", "auth_token", {"token": token})
        assert client.ask("rpc", "query")


def test_while_logins_are_closed_who_is_in_stays_and_nobody_comes(
    tmp_path: Path, name: str, rules: Callable[[str], object]
) -> None:
    closed = tmp_path / "nologin"
    rules(f"{RULES}account required pam_nologin.so file={closed}\n")
    before = (
        "import pathlib, server.login.standing as it;"
        f"it.NOLOGIN = (pathlib.Path({str(closed)!r}),)"
    )
    with (
        Daemon(tmp_path / "state", CONFIG, before=before) as daemon,
        daemon.stranger() as client,
        daemon.stranger() as second,
    ):
        token = client.ask("rpc", "auth", {"username": name, "password": PASSWORD})[0]
        closed.write_text("The machine goes down.\n")
        assert log_in(second, name) == 401
        daemon.reload()
        # PAM is asked, says no, and that ends nothing.
        second.ask("rpc", "auth_token", {"token": token})
        assert client.ask("rpc", "query")
        closed.unlink()
        assert log_in(second, name) == 200
        assert not any("access ended" in line for line in client.trail())


def test_an_account_without_a_login_shell_has_no_role(name: str) -> None:
    settings = AuthSettings(full=(name,))
    for shell, role in (
        ("/usr/sbin/nologin", None),
        ("/sbin/nologin", None),
        ("/usr/bin/false", None),
        ("/bin/false", None),
        ("", Role.FULL),
        ("/bin/sh", Role.FULL),
    ):
        take_shell(name, shell)
        assert standing.role_of(name, settings) == role, shell


def test_a_right_password_opens_no_account_without_a_login_shell(
    tmp_path: Path, rules: Callable[[str], object]
) -> None:
    with (
        account(NAME + "b") as name,
        Daemon(tmp_path / "state", CONFIG.replace(NAME, NAME + "b")) as daemon,
        daemon.stranger() as client,
    ):
        take_shell(name, "/usr/sbin/nologin")
        assert log_in(client, name) == 401
        take_shell(name, "/bin/sh")
        assert log_in(client, name) == 200


def test_accounts_and_groups_that_are_not_there_are_named_at_the_start_and_at_a_reload(
    tmp_path: Path,
) -> None:
    auth = '[auth]\nfull = ["root", "no-such-a", "@root"]\nlimited = ["@no-such-b"]\n'
    with Daemon(tmp_path / "state", QUIET + auth) as daemon:

        def named(text: str) -> int:
            lines = daemon.log.read_text().splitlines()
            return sum(text in line and "WARNING" in line.upper() for line in lines)

        account = "auth.full names no-such-a: this machine has no account 'no-such-a'"
        group = "auth.limited names @no-such-b: this machine has no group 'no-such-b'"
        wait_for(lambda: named(account) == 1 and named(group) == 1, "the start's")
        daemon.reload()
        wait_for(lambda: named(account) == 2 and named(group) == 2, "the reload's")
        assert not named("names root")
        assert not named("names @root")


def test_where_administrators_are_in_sudo_that_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on Debian, whatever this machine has.
    there = {"sudo": 27, "operator": 37}
    monkeypatch.setattr(standing, "_number", there.get)
    caplog.set_level("INFO")
    standing.say_unknown_members(AuthSettings())
    standing.say_unknown_members(AuthSettings(full=("root", "@wheel", "@sudo")))
    first, second = (record.getMessage() for record in caplog.records)
    assert 'add "@sudo"' in first
    assert "auth.full names @wheel" in second
    assert "add" not in second
    # What ships with the program is nobody's mistake.
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
