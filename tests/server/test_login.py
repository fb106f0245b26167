"""Passwords through the machine's own PAM, roles, tokens, blocking, the audit trail."""

import contextlib
import grp
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from server.login.logins import REFUSED
from tests.kit import QUIET, ROOT, Client, Daemon
from tests.kit.accounts import (
    PASSWORD,
    account,
    delete,
    group,
    pam_service,
    take_password,
)
from tests.kit.processes import command_line, family, holders

SERVICE = "sysadmd-tests"


@pytest.fixture(scope="module")
def accounts() -> Iterator[dict[str, str]]:
    """Real accounts: full by primary group, limited, neither, expired, without a password."""
    wheel = "sysadmd-wheel"
    options: dict[str, dict[str, Any]] = {
        "full": {"group": wheel},
        "limited": {"also": "operator"},
        "stranger": {},
        "expired": {"group": wheel, "expired": True},
        "empty": {"group": wheel},
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(pam_service(SERVICE))
        stack.enter_context(group(wheel))
        names = {
            word: stack.enter_context(account(f"sysadmd-{word}", **more))
            for word, more in options.items()
        }
        take_password(names["empty"])
        assert grp.getgrnam(wheel).gr_gid == pwd.getpwnam(names["full"]).pw_gid
        yield names


AUTH = f'[auth]\npam_service = "{SERVICE}"\nfull = ["root", "@sysadmd-wheel"]\n'


@pytest.fixture
def guarded(tmp_path: Path, accounts: dict[str, str]) -> Iterator[Daemon]:
    with Daemon(tmp_path / "state", QUIET + AUTH) as daemon:
        yield daemon


def test_an_account_that_has_lost_its_role_is_not_renewed(
    tmp_path: Path, accounts: dict[str, str]
) -> None:
    with Daemon(tmp_path / "state", QUIET + AUTH + "token_lifetime = 10\n") as daemon:
        with daemon.stranger() as client:
            token = log_in(client, accounts["full"])["args"][0]
            client.ask("events", "subscribe", "dispatcher")
            daemon.config.write_text(QUIET + f'[auth]\npam_service = "{SERVICE}"\nfull = []\n')
            os.kill(daemon.pid, signal.SIGHUP)
            with pytest.raises(ConnectionClosed) as closed:
                client.receive()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (
                4401,
                REFUSED,
            )
        with daemon.stranger() as client:
            error = client.ask_raw("rpc", "auth_token", {"token": token})
            assert error["args"]["code"] == 401


def test_an_account_that_is_away_keeps_its_token_for_when_it_is_back(
    tmp_path: Path, accounts: dict[str, str]
) -> None:
    with (
        account("sysadmd-away", group="sysadmd-wheel") as name,
        Daemon(tmp_path / "state", QUIET + AUTH + "token_lifetime = 60\n") as daemon,
    ):
        with daemon.stranger() as client:
            token = log_in(client, name)["args"][0]
            client.ask("events", "subscribe", "dispatcher")
            delete(name)
            with pytest.raises(ConnectionClosed) as closed:
                client.receive()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4401
            assert "not known" in closed.value.rcvd.reason
        with daemon.stranger() as client:
            assert code(client.ask_raw("rpc", "auth_token", {"token": token})) == 503
        with account(name, group="sysadmd-wheel"), daemon.stranger() as client:
            assert client.ask("rpc", "auth_token", {"token": token})[0] == token


def log_in(client: Client, account: str, password: str = PASSWORD, **more: str) -> Any:
    return client.ask_raw("rpc", "auth", {"username": account, "password": password, **more})


def code(frame: dict[str, Any]) -> int:
    return int(frame["args"]["code"]) if frame["name"] == "error" else 200


def test_accounts_get_the_role_of_their_groups(
    guarded: Daemon, accounts: dict[str, str]
) -> None:
    run = {"action": "run", "job": "true"}
    with guarded.stranger() as client:
        token, seconds = log_in(client, accounts["full"])["args"]
        assert len(token) >= 43
        assert seconds == 900
        assert client.ask("rpc", "dispatcher", run) == {"started": ["job"]}
    with guarded.stranger() as client:
        assert client.ask("rpc", "auth_token", {"token": token})[0] == token
        log_in(client, accounts["limited"])
        assert client.ask("rpc", "query")["rpc/dispatcher"] == "read"
        client.ask("rpc", "dispatcher", {"action": "list"})
        refused = client.ask_raw("rpc", "dispatcher", run)
        assert code(refused) == 403
        assert "full" in refused["args"]["detail"]
        for namespace, name, action in (
            ("rpc", "clients", "list"),
            ("rpc", "tokens", "list"),
            ("rpc", "dispatcher", "no-such-action"),
        ):
            assert code(client.ask_raw(namespace, name, {"action": action})) == 403


def test_all_who_may_not_are_refused_alike_and_as_slowly(
    guarded: Daemon, accounts: dict[str, str]
) -> None:
    tries = [
        (accounts["full"], "wrong"),
        (accounts["stranger"], PASSWORD),
        (accounts["expired"], PASSWORD),
        (accounts["empty"], "anything"),
        ("nobody-has-this-name", PASSWORD),
    ]
    texts, times = set[str](), list[float]()
    guarded.config.write_text(QUIET + AUTH + "failures = 50\n")
    guarded.stop()
    with guarded:
        for name, password in tries:
            with guarded.stranger() as client:
                begun = time.monotonic()
                error = log_in(client, name, password)
                times.append(time.monotonic() - begun)
                assert code(error) == 401
                texts.add(error["args"]["detail"])
    assert len(texts) == 1
    assert max(times) - min(times) < 0.5


def test_guessing_blocks_passwords_from_the_address_and_nothing_else(
    guarded: Daemon, accounts: dict[str, str]
) -> None:
    guarded.stop()
    guarded.config.write_text(QUIET + AUTH + "failures = 2\nblock_time = 3600\n")
    with guarded, guarded.stranger() as client, guarded.stranger() as other:
        for _ in range(2):
            assert code(log_in(client, accounts["full"], "wrong")) == 401
        blocked = log_in(client, accounts["full"])
        assert code(blocked) == 429
        assert any(word.isdigit() for word in blocked["args"]["detail"].split())
        other.ask("rpc", "auth_token", {"token": guarded.token})
        trail = other.trail()
        assert any("blocked" in text for text in trail)
        assert not any("wrong" in text for text in trail)


def test_guesses_made_at_once_are_no_more_than_one_after_the_other(
    guarded: Daemon, accounts: dict[str, str]
) -> None:
    guarded.stop()
    guarded.config.write_text(QUIET + AUTH + "failures = 2\n")
    with guarded, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(guarded.stranger()) for _ in range(8)]
        with ThreadPoolExecutor(len(clients)) as threads:
            tries = [threads.submit(log_in, client, "root", "wrong") for client in clients]
            codes = [code(one.result()) for one in tries]
        assert sorted(codes) == [401] * 2 + [429] * 6


def test_a_named_client_token_is_listed_and_revoking_it_ends_its_connections(
    guarded: Daemon, accounts: dict[str, str]
) -> None:
    with guarded.stranger() as client, guarded.client() as admin:
        token, seconds = log_in(client, accounts["full"], lifetime="client", name="laptop")[
            "args"
        ]
        assert seconds == 30 * 86400
        listed = admin.ask("rpc", "tokens", {"action": "list"})["tokens"]
        assert [(t["name"], t["role"]) for t in listed] == [("laptop", "full")]
        assert token not in str(listed)
        admin.ask("rpc", "tokens", {"action": "revoke", "name": "laptop"})
        begun = time.monotonic()
        with pytest.raises(Exception, match="4401"):
            client.receive()
        assert time.monotonic() - begun < 1
    with guarded.stranger() as client:
        assert code(client.ask_raw("rpc", "auth_token", {"token": token})) == 401


def test_a_token_ends_with_its_lifetime_unless_it_is_used(
    guarded: Daemon, accounts: dict[str, str]
) -> None:
    guarded.stop()
    guarded.config.write_text(QUIET + AUTH + "token_lifetime = 2\n")
    with guarded, guarded.stranger() as idle, guarded.stranger() as listening:
        log_in(idle, accounts["full"])
        log_in(listening, accounts["full"])
        listening.ask("events", "subscribe", "dispatcher")
        with pytest.raises(Exception, match="4401"):
            idle.receive()
        # By now the other's first lifetime is over, too: its subscription has renewed it.
        assert listening.ask("rpc", "query")


def test_a_read_token_reads_and_the_trail_tells_who_did_what(guarded: Daemon) -> None:
    with guarded.client() as admin:
        add = {"action": "add", "name": "watcher", "role": "read", "expires": "1d"}
        token = admin.ask("rpc", "tokens", add)["token"]
        assert code(admin.ask_raw("rpc", "tokens", add)) == 409
        assert code(admin.ask_raw("rpc", "tokens", {**add, "name": "x", "role": "god"})) == 400
        with guarded.stranger() as reader:
            reader.ask("rpc", "auth_token", {"token": token})
            reader.ask("events", "subscribe", "dispatcher")
            assert (
                code(reader.ask_raw("rpc", "dispatcher", {"action": "run", "j": "true"})) == 403
            )
            hostinfo = {"action": "read_logs", "logs": ["hostinfo"]}
            assert code(reader.ask_raw("rpc", "logs", hostinfo)) == 403
            reader.ask("rpc", "logs", {"action": "read_logs"})
        with guarded.client(), guarded.client():
            pass
        admin.ask("rpc", "dispatcher", {"action": "run", "a job": "true"})
        texts = admin.trail()
        assert "root@127.0.0.1: token add watcher" in texts
        assert "root@127.0.0.1: run a job" in texts
        assert "watcher@127.0.0.1: logged in by token as read" in texts
        # Programs come and go: the same login is told once an hour.
        assert texts.count("root@127.0.0.1: logged in by token as full") == 1


@pytest.mark.parametrize("role", ["read", "limited", "full"])
def test_every_login_may_revoke_its_own_token_and_hears_that_it_did(
    daemon: Daemon, role: str
) -> None:
    with daemon.client() as admin:
        add = {"action": "add", "role": role}
        own, _ = (
            admin.ask("rpc", "tokens", {**add, "name": name})["token"]
            for name in ("own", "other")
        )
        with daemon.stranger() as client, daemon.stranger() as second:
            client.ask("rpc", "auth_token", {"token": own})
            second.ask("rpc", "auth_token", {"token": own})
            revoke = {"action": "revoke", "name": "own"}
            if role != "full":
                # Neither says whether there is such a token.
                for name in ("other", "of nobody"):
                    refused = client.ask_raw("rpc", "tokens", {**revoke, "name": name})
                    assert code(refused) == 403
                    assert "full" in refused["args"]["detail"]
            assert client.ask("rpc", "tokens", revoke) == {"revoked": "own"}
            for ended in (client, second):
                with pytest.raises(Exception, match="4401"):
                    ended.receive()
        names = [
            token["name"] for token in admin.ask("rpc", "tokens", {"action": "list"})["tokens"]
        ]
        assert names == ["other"]


HARMFUL = ("\x1b[31m", "\r", "\x7f", "\x9b", "\u202e", "\u2028", "\u2066")


def test_what_does_not_print_gets_into_no_name_and_no_trail(daemon: Daemon) -> None:
    accepted = 0
    with daemon.client() as client, daemon.stranger() as stranger:
        for name in HARMFUL:
            login = {"username": "a", "password": "x", "lifetime": "client", "name": "b"}
            tries = [
                (field, stranger.ask_raw("rpc", "auth", {**login, field: name}))
                for field in ("username", "name")
            ]
            for action in ("add", "revoke"):
                args = {"action": action, "name": name, "role": "read"}
                tries.append(("name", client.ask_raw("rpc", "tokens", args)))
            for field, refused in tries:
                assert code(refused) == 400
                assert f"args.{field} " in refused["args"]["detail"]
            # An id may have what is no control character, and does not print.
            run = client.ask_raw("rpc", "dispatcher", {"action": "run", name: "true"})
            accepted += run["name"] == "response"
        trail = client.trail()
    assert len(trail) == 1 + accepted > 1
    assert all(text.isprintable() for text in trail), trail


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_does_not_print_is_written_out_in_the_log(form: str) -> None:
    program = (
        "import logging, sys; from server import own_log; own_log.set_up('info', sys.argv[1]);"
        "logging.getLogger('a').warning('said %s', sys.argv[2])"
    )
    arguments = [sys.executable, "-c", program, form, "".join(HARMFUL)]
    done = subprocess.run(arguments, capture_output=True, check=True, cwd=ROOT)
    line = done.stderr.decode().removesuffix("\n")
    assert "[31m" in line
    assert line.isprintable(), line


def test_no_secret_is_in_any_log_process_list_event_or_file(
    guarded: Daemon, accounts: dict[str, str]
) -> None:
    secret = "planted-4f1d-secret"
    with guarded.stranger() as client, guarded.client() as admin:
        admin.ask("events", "subscribe", ["dispatcher", "system-state", "life-preserver"])
        log_in(client, accounts["full"], secret)
        token = log_in(client, accounts["full"])["args"][0]
        client.ask_raw("rpc", "auth_token", {"token": secret})
        client.ask("rpc", "auth_token", {"token": token})
        job = {"id": "job", "commands": ["sleep 0.2"], "env": {"PASSWORD": secret}}
        client.ask("rpc", "dispatcher", {"action": "submit", "job": job})
        events = admin.until(lambda frame: frame["args"].get("state") == "running")
        # While the job runs, or is over: whatever of ours there is.
        ours = family([guarded.pid, *holders(guarded.state_dir)])
        processes = str([command_line(process) for process in ours])
        assert "sysadmd" in processes
        events += admin.until(lambda frame: frame["args"].get("state") == "finished")
        shown = client.ask("rpc", "dispatcher", {"action": "show", "job_id": "job"})
        trail = admin.ask("rpc", "logs", {"action": "read_logs"})
        log = guarded.log.read_text()
        for planted in (secret, token, PASSWORD, guarded.token):
            for where in (str(events), str(shown), str(trail), processes, log):
                assert planted not in where
        data = b"".join(
            file.read_bytes() for file in guarded.state_dir.glob("state.db*") if file.is_file()
        )
        assert token.encode() not in data
        assert guarded.token.encode() not in data
