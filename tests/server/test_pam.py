"""What PAM is told of a login, and what follows from what it says: by services that note it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit import QUIET, Client, Daemon
from tests.kit.accounts import PASSWORD, account, pam_service

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
