"""Accounts that are expired, locked, deleted, or lose their role while they are logged in."""

import contextlib
import json
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from server.login import standing
from server.login.logins import AWAY, REFUSED
from server.login.roles import Role
from sysadmd.settings import AuthSettings
from tests.kit import QUIET, Client, Daemon, wait_for
from tests.kit.accounts import (
    PASSWORD,
    account,
    delete,
    expire,
    group,
    leave,
    lock,
    pam_service,
    take_shell,
)
from tests.kit.certificates import make_client_certificates, with_certificate

SERVICE = "sysadmd-vigil"
GROUP = "sysadmd-vigil"
RULES = "auth required pam_unix.so\naccount required pam_unix.so\n"
AUTH = f'[auth]\npam_service = "{SERVICE}"\nfull = ["root", "@{GROUP}"]\n'


@pytest.fixture(scope="module")
def service() -> Iterator[Path]:
    """The file of the service, and its group."""
    with pam_service(SERVICE, RULES), group(GROUP):
        yield Path("/etc/pam.d") / SERVICE


@pytest.fixture
def name(service: Path) -> Iterator[str]:
    """An account with the role full."""
    with account("sysadmd-vigil-a", also=GROUP) as name:
        yield name


# How an account ends, and what its connections hear. It may be back by then if it was deleted.
WAYS: dict[str, tuple[Callable[[str], None], str]] = {
    "expired": (expire, REFUSED),
    "locked": (lock, REFUSED),
    "without a shell": (partial(take_shell, shell="/usr/sbin/nologin"), REFUSED),
    "without its group": (partial(leave, group=GROUP), REFUSED),
    "deleted": (delete, AWAY),
}
ways = pytest.mark.parametrize("way", WAYS)


def log_in(client: Client, name: str, /, **more: str) -> str:
    args = {"username": name, "password": PASSWORD, **more}
    return str(client.ask("rpc", "auth", args)[0])


def by_token(daemon: Daemon, token: str) -> int:
    """The code of a login by this token; 200: it is one."""
    with daemon.stranger() as client:
        frame = client.ask_raw("rpc", "auth_token", {"token": token})
        return int(frame["args"]["code"]) if frame["name"] == "error" else 200


def closed_for(client: Client) -> tuple[int, str]:
    """How the daemon ended the connection; events before that are read."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            client.receive()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


def ends(daemon: Daemon, name: str) -> list[str]:
    """What the trail has of the end of an account's access."""
    with daemon.client() as admin:
        return [text for text in admin.trail() if text.startswith(name) and " ended" in text]


@contextlib.contextmanager
def with_authority(
    tmp_path: Path, name: str, more: str = "", role: str = "full", max_clients: int = 100
) -> Generator[Daemon]:
    """A daemon that takes a certificate of this account."""
    make_client_certificates(tmp_path, name)
    server = f'[server]\nclient_ca = "{tmp_path}/ca.pem"\nmax_clients = {max_clients}\n'
    auth = AUTH.replace("full", role)
    with Daemon(tmp_path / "state", QUIET + auth + more + server) as daemon:
        yield daemon


@ways
def test_every_login_of_an_account_ends_with_it_and_no_other(
    tmp_path: Path, name: str, way: str
) -> None:
    end, why = WAYS[way]
    with (
        with_authority(tmp_path, name) as daemon,
        daemon.client() as admin,
        daemon.stranger() as named,
        daemon.stranger() as session,
        daemon.stranger() as client,
        with_certificate(daemon, tmp_path, name) as certified,
    ):
        # A token that is named like the account is not the account's.
        add = {"action": "add", "name": name, "role": "full"}
        named_token = admin.ask("rpc", "tokens", add)["token"]
        named.ask("rpc", "auth_token", {"token": named_token})
        tokens = [log_in(session, name), log_in(client, name, lifetime="client", name="laptop")]
        client.ask("events", "subscribe", "dispatcher")
        certified.ask("rpc", "query")
        end(name)
        daemon.reload()
        for one in (session, client, certified):
            assert closed_for(one) == (4401, why)
        refusal = 503 if way == "deleted" else 401
        assert [by_token(daemon, token) for token in tokens] == [refusal] * 2
        with with_certificate(daemon, tmp_path, name) as certified:
            assert certified.ask_raw("rpc", "query")["args"]["code"] == 401
        assert named.ask("rpc", "query")
        assert by_token(daemon, named_token) == 200
        assert ends(daemon, name) == [f"{name}@local: access ended: {why}"]
        listed = [t["name"] for t in admin.ask("rpc", "tokens", {"action": "list"})["tokens"]]
        assert listed == ([name, "laptop"] if way == "deleted" else [name])


@ways
def test_accounts_are_asked_about_without_being_told_to(
    tmp_path: Path, name: str, way: str
) -> None:
    end, why = WAYS[way]
    often = "import server.login.vigil as vigil; vigil.INTERVAL = 0.05"
    with (
        Daemon(tmp_path / "state", QUIET + AUTH, before=often) as daemon,
        daemon.stranger() as client,
    ):
        log_in(client, name)
        end(name)
        # Of an account that is just being deleted, PAM says no.
        assert closed_for(client) in {(4401, why), (4401, REFUSED)}


@ways
def test_an_account_is_asked_about_when_its_token_is_renewed(
    tmp_path: Path, name: str, way: str
) -> None:
    end, why = WAYS[way]
    auth = AUTH + "token_lifetime = 10\n"
    with Daemon(tmp_path / "state", QUIET + auth) as daemon, daemon.stranger() as client:
        token = log_in(client, name)
        client.ask("events", "subscribe", "dispatcher")
        end(name)
        code, heard = closed_for(client)
        assert code == 4401
        assert heard in {why, REFUSED}
        assert by_token(daemon, token) in {401, 503}
        assert ends(daemon, name) == [f"{name}@127.0.0.1: access ended: {heard}"]


@ways
def test_a_login_by_token_or_certificate_asks_first(
    tmp_path: Path, name: str, way: str
) -> None:
    end, why = WAYS[way]
    with with_authority(tmp_path, name) as daemon, daemon.stranger() as client:
        token = log_in(client, name)
        end(name)
        with with_certificate(daemon, tmp_path, name) as certified:
            assert certified.ask_raw("rpc", "query")["args"]["code"] == 401
        with daemon.client() as admin:
            refused = f"{name}@127.0.0.1: login by certificate refused"
            assert (refused in admin.trail()) == (way != "deleted")
        # One question is enough for all that it has.
        assert closed_for(client) == (4401, why)
        assert by_token(daemon, token) == (503 if way == "deleted" else 401)


def test_who_may_stay_in_by_a_defect_after_its_tokens_are_gone_goes_with_the_daemon(
    tmp_path: Path, name: str
) -> None:
    # Whom the first look finds is ended before the commit; then who has come meanwhile.
    before = (
        "import server.sessions as it; end = it.Sessions.end_account; calls = [];"
        "it.Sessions.end_account = lambda *a: calls.append(1) or (end(*a) if len(calls) == 1"
        " else 1 / 0)"
    )
    with Daemon(tmp_path / "state", QUIET + AUTH, before=before) as daemon:
        with daemon.stranger() as client, daemon.stranger() as asker:
            token = log_in(client, name)
            WAYS["locked"][0](name)
            with contextlib.suppress(ConnectionClosed):
                asker.ask_raw("rpc", "auth_token", {"token": token})
            assert daemon.wait() == 1
        assert "critical server.service: stopped by a defect" in daemon.log.read_text()


def test_a_token_is_renewed_for_all_its_connections(tmp_path: Path, name: str) -> None:
    auth = AUTH + "token_lifetime = 3\n"
    with (
        Daemon(tmp_path / "state", QUIET + auth) as daemon,
        daemon.stranger() as unused,
        daemon.stranger() as idle,
        daemon.stranger() as listening,
    ):
        token = log_in(listening, name)
        idle.ask("rpc", "auth_token", {"token": token})
        listening.ask("events", "subscribe", "dispatcher")
        log_in(unused, name)
        assert closed_for(unused) == (4401, "the token has expired; log in again")
        assert idle.ask("rpc", "query")


def test_a_lower_role_ends_what_has_the_higher_one(tmp_path: Path, name: str) -> None:
    with Daemon(tmp_path / "state", QUIET + AUTH) as daemon:
        with daemon.stranger() as client:
            token = log_in(client, name)
            lower = AUTH.replace("full", "limited")
            daemon.config.write_text(QUIET + lower)
            daemon.reload()
            assert closed_for(client) == (4401, REFUSED)
        assert by_token(daemon, token) == 401
        with daemon.stranger() as client:
            log_in(client, name)
            daemon.reload()
            # The role is the one that it has: nothing of it ends.
            assert client.ask("rpc", "query")["rpc/dispatcher"] == "read"
        assert len(ends(daemon, name)) == 1


def test_who_logs_out_does_not_fall_back_to_a_certificate_that_is_refused(
    tmp_path: Path, name: str
) -> None:
    with (
        with_authority(tmp_path, name) as daemon,
        with_certificate(daemon, tmp_path, name) as client,
    ):
        client.ask("rpc", "auth_token", {"token": daemon.token})
        expire(name)
        daemon.reload()
        wait_for(lambda: ends(daemon, name), "the end of the account")
        assert client.ask("rpc", "query")
        request = '{"namespace": "rpc", "name": "auth_clear", "id": "out", "args": {}}'
        client.socket.send(request)
        assert client.ask_raw("rpc", "query")["args"]["code"] == 401


def test_who_logs_out_keeps_the_place_of_the_certificate_or_is_a_stranger(
    tmp_path: Path, name: str
) -> None:
    with (
        with_authority(tmp_path, name, role="limited", max_clients=4) as daemon,
        daemon.local() as admin,
        with_certificate(daemon, tmp_path, name) as first,
        with_certificate(daemon, tmp_path, name) as second,
        daemon.stranger() as third,
    ):

        def token_of(account: str) -> object:
            add = {"action": "add", "name": account, "role": "read"}
            return {"token": admin.ask("rpc", "tokens", add)["token"]}

        other, rest = token_of("other"), token_of("rest")
        for client in (first, second):
            client.ask("events", "subscribe", "dispatcher")
        # It has two of the three places for others, and the third is taken.
        third.ask("rpc", "auth_token", rest)
        out = '{"namespace": "rpc", "name": "auth_clear", "id": "out", "args": {}}'
        first.socket.send(out)
        assert first.ask("rpc", "query")
        # One of its two becomes another's: as long as there are three it can't be its own.
        third.socket.send(out)
        assert third.ask("rpc", "identify")
        second.ask("rpc", "auth_token", other)
        third.ask("rpc", "auth_token", rest)
        second.socket.send(out)
        assert second.receive()["args"]["code"] == 429
        assert second.ask_raw("rpc", "query")["args"]["code"] == 401
        listed = admin.ask("rpc", "clients", {"action": "list"})["clients"]
        systems = {one["account"]: one["systems"] for one in listed}
        assert systems == {name: ["dispatcher"], "rest": [], "root": [], None: []}


def test_an_account_that_can_not_be_asked_about_keeps_its_token_alone(
    tmp_path: Path, service: Path, name: str
) -> None:
    with Daemon(tmp_path / "state", QUIET + AUTH) as daemon:
        with daemon.stranger() as client:
            token = log_in(client, name)
            try:
                service.write_text("account required pam_sysadmd_is_not_there.so\n")
                daemon.reload()
                assert closed_for(client) == (4401, AWAY)
                assert by_token(daemon, token) == 503
            finally:
                service.write_text(RULES)
        assert by_token(daemon, token) == 200


def test_pam_that_hangs_holds_up_nobody_and_renews_nothing(
    tmp_path: Path, service: Path, name: str
) -> None:
    auth = AUTH + "pam_calls = 2\npam_wait = 0.5\ntoken_lifetime = 5\n"
    with (
        account("sysadmd-vigil-b", also=GROUP) as other,
        Daemon(tmp_path / "state", QUIET + auth) as daemon,
        daemon.stranger() as client,
        daemon.stranger() as second,
    ):
        log_in(client, name)
        client.ask("events", "subscribe", "dispatcher")
        laptop = log_in(second, name, lifetime="client", name="laptop")
        try:
            # For this account alone.
            service.write_text(
                "auth required pam_unix.so\n"
                f"account [success=1 default=ignore] pam_succeed_if.so quiet user != {name}\n"
                "account required pam_exec.so quiet /bin/sleep 25\n"
                "account required pam_unix.so\n"
            )
            assert closed_for(client) == (4401, "the token has expired; log in again")
            daemon.reload()
            # One that hangs takes one call, however often it is asked about.
            with daemon.stranger() as third:
                log_in(third, other)
            # What it has is valid until it runs out.
            assert by_token(daemon, laptop) == 200
            wait_for(lambda: f"whether {name} may still be logged in" in daemon.log.read_text())
            assert daemon.stop() == 0
        finally:
            service.write_text(RULES)


def test_who_is_gone_when_the_login_is_accepted_takes_no_place(
    tmp_path: Path, service: Path, name: str
) -> None:
    late, script = tmp_path / "late", tmp_path / "wait"
    script.write_text(f"#!/bin/sh\nwhile [ -e {late} ]; do sleep 0.1; done\n")
    script.chmod(0o700)
    late.touch()
    config = f"{QUIET}[server]\nmax_clients = 2\nlogin_timeout = 1\n" + AUTH.replace(
        "full", "limited"
    )
    try:
        service.write_text(f"auth optional pam_exec.so quiet {script}\n{RULES}")
        with Daemon(tmp_path / "state", config) as daemon, daemon.local() as admin:
            gone = daemon.stranger()
            args = {"username": name, "password": PASSWORD}
            request = {"namespace": "rpc", "name": "auth", "id": "", "args": args}
            gone.socket.send(json.dumps(request))
            assert closed_for(gone) == (4401, "not logged in within 1 s")

            def there() -> int:
                return len(admin.ask("rpc", "clients", {"action": "list"})["clients"])

            wait_for(lambda: there() == 1, "its end")
            late.unlink()
            said = f"{name}@127.0.0.1: logged in by password as limited"
            wait_for(lambda: said in admin.trail(), "its login")
            # The one place that an account can have here.
            with daemon.stranger() as client:
                log_in(client, name)
    finally:
        service.write_text(RULES)


@pytest.mark.parametrize(
    ("password", "locked"),
    [
        *(("*", False), ("!", False), ("!!", False), ("!*", False), ("", False)),
        *(("$6$salt$hash", False), ("!$6$salt$hash", True), ("!!$6$salt$hash", True)),
        *(("*LOCKED*$6$salt$hash", True), ("*LOCKED**", True)),
    ],
)
def test_a_locked_account_is_told_from_one_without_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str, locked: bool
) -> None:
    shadow = tmp_path / "shadow"
    shadow.write_text(f"rooted:!$6$x$y:1::::::\nroot:{password}:1::::::\n")
    monkeypatch.setattr(standing, "SHADOW", shadow)
    assert standing.role_of("root", AuthSettings()) == (None if locked else Role.FULL)
