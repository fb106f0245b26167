"""What `sysadmctl` says where no connection comes about, or a login: words, and what to do."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import ssl
import tempfile
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.kit import QUIET, Daemon, needs_root
from tests.kit.accounts import PASSWORD, account, pam_service
from tests.kit.certificates import make_client_certificates
from tests.kit.ctl import Ctl, lines
from tests.kit.profiles import profiles_file
from tests.kit.typed import at_terminal

USER, SERVICE = "sysadmd-ctl-m", "sysadmd-ctl-messages"
CONFIG = f'{QUIET}[auth]\npam_service = "{SERVICE}"\nfull = ["{USER}"]\n'


@pytest.fixture(scope="module")
def person() -> Iterator[None]:
    with pam_service(SERVICE), account(USER):
        yield


@pytest.fixture
def guarded(tmp_path: Path, person: None) -> Iterator[Daemon]:
    with Daemon(tmp_path / "state", CONFIG) as daemon:
        yield daemon


@contextlib.contextmanager
def answering(reply: bytes, context: ssl.SSLContext | None = None) -> Generator[str]:
    """Something that takes connections and says this; yields HOST:PORT."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where, done = listener.getsockname(), threading.Event()

        def answer() -> None:
            while not done.is_set():
                plain, _ = listener.accept()
                with contextlib.suppress(OSError), plain:
                    made = context.wrap_socket(plain, server_side=True) if context else plain
                    with made:
                        made.recv(4096)
                        made.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"127.0.0.1:{where[1]}"
        finally:
            done.set()
            # It waits for one more.
            socket.create_connection(where).close()
            thread.join()


def test_where_nothing_listens(ctl: Ctl) -> None:
    for words in (("login", "127.0.0.1:1"), ("jobs", "--url", "127.0.0.1:1")):
        done = ctl(*words)
        assert done.returncode == 69
        assert "nothing listens there; is the daemon running?" in done.stderr
        assert "12150" in done.stderr
        assert "Errno" not in done.stderr


def test_a_host_that_there_is_not(ctl: Ctl) -> None:
    done = ctl("login", "no-such-host.invalid")
    assert done.returncode == 69
    assert "or give the address" in done.stderr
    assert "Errno" not in done.stderr


def test_who_is_no_sysadmd(ctl: Ctl, tmp_path: Path) -> None:
    make_client_certificates(tmp_path, "web")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "web.pem", tmp_path / "web.key")
    http = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    for reply, secure in ((http, None), (http, context), (b"SSH-2.0-x\r\n", context)):
        with answering(reply, secure) as where:
            done = ctl("login", where)
        assert done.returncode == 69
        assert "is it sysadmd?" in done.stderr
        assert "_ssl.c" not in done.stderr


def test_a_server_that_nobody_vouches_for(shared: Daemon, ctl: Ctl) -> None:
    done = ctl("jobs", "--url", shared.address, "--token", shared.token)
    assert done.returncode == 69
    assert "nobody who is trusted here vouches for its key" in done.stderr
    assert "`sysadmctl login`" in done.stderr


def test_a_token_of_the_environment_is_named_where_it_is_refused(
    guarded: Daemon, ctl: Ctl
) -> None:
    words = ("login", guarded.address, "web", "--user", USER)
    assert ctl(*words, text=f"y\n{PASSWORD}\n").returncode == 0
    refused = ctl("jobs", SYSADMCTL_TOKEN="stale")
    assert refused.returncode == 77
    assert (
        "SYSADMCTL_TOKEN is set, and its token was used in place of what the profile web"
        in (refused.stderr)
    )
    assert "`unset SYSADMCTL_TOKEN`" in refused.stderr
    assert ctl("jobs").returncode == 0
    again = ctl(*words, text=f"{PASSWORD}\n", SYSADMCTL_TOKEN="stale")
    assert "SYSADMCTL_TOKEN is set, and goes before it" in again.stderr
    # One that has run out is no matter of the environment.
    with guarded.client() as client:
        (token,) = client.ask("rpc", "tokens", {"action": "list"})["tokens"]
        client.ask("rpc", "tokens", {"action": "revoke", "name": token["name"]})
    ended = ctl("jobs")
    assert ended.returncode == 77
    assert "`sysadmctl login web`" in ended.stderr
    assert "SYSADMCTL_TOKEN" not in ended.stderr
    # Nothing is left to end there, and nothing is said of that.
    assert "may live on" not in ctl("logout").stderr


def test_other_variables_are_named_where_nobody_answers(
    shared: Daemon, ctl: Ctl, tmp_path: Path
) -> None:
    cafile = str(shared.state_dir / "tls" / "certificate.pem")
    words = ("login", shared.address, "--token", shared.token, "--cafile", cafile)
    assert ctl(*words).returncode == 0
    nobody = ctl("jobs", SYSADMD_STATE_DIR=str(tmp_path / "none"))
    assert nobody.returncode == 69
    assert "it was SYSADMD_STATE_DIR that named the directory" in nobody.stderr
    text = profiles_file(ctl.home).read_text()
    profiles_file(ctl.home).write_text(text.replace(shared.url, "wss://127.0.0.1:1"))
    silent = ctl("jobs", SYSADMCTL_PROFILE="127.0.0.1")
    assert silent.returncode == 69
    assert "it was SYSADMCTL_PROFILE that named the profile 127.0.0.1" in silent.stderr
    assert "SYSADMCTL_PROFILE" not in ctl("jobs").stderr


def test_a_login_that_is_made_by_what_goes_before_it_says_so(shared: Daemon, ctl: Ctl) -> None:
    cafile = str(shared.state_dir / "tls" / "certificate.pem")
    words = ("login", shared.address, "web", "--token", shared.token, "--cafile", cafile)
    done = ctl(*words, SYSADMD_STATE_DIR="/x", SYSADMCTL_PROFILE="other")
    for variable in ("SYSADMD_STATE_DIR", "SYSADMCTL_PROFILE"):
        assert f"{variable} is set, and goes before it" in done.stderr
    assert "may have seen the token in the list of processes" in done.stderr
    quiet = ctl(*words[:4], "-", *words[5:], SYSADMCTL_TOKEN=shared.token)
    assert (quiet.returncode, quiet.stderr) == (0, "")


def test_passwords_that_are_wrong_and_too_many(guarded: Daemon, ctl: Ctl) -> None:
    words = ("login", guarded.address, "--user", USER)
    for _ in range(5):
        wrong = ctl(*words, text="y\nwrong\n")
        assert wrong.returncode == 77
        assert "user or password is wrong" in wrong.stderr
    blocked = ctl(*words, text=f"y\n{PASSWORD}\n")
    assert blocked.returncode == 1
    assert " s" in blocked.stderr
    assert any(word.isdecimal() for word in blocked.stderr.replace(";", " ").split())


def test_a_question_without_an_answer_says_what_to_do(shared: Daemon, ctl: Ctl) -> None:
    done = ctl("login", shared.address)
    assert done.returncode == 1
    assert "the input ended before the answer" in done.stderr
    assert "--cafile PEM" in done.stderr
    cafile = str(shared.state_dir / "tls" / "certificate.pem")
    empty = ctl("login", shared.address, "--cafile", cafile, "--token", "-")
    assert empty.returncode == 2
    assert "there is no token" in empty.stderr
    wrong = ctl("login", shared.address, "--cafile", cafile, "--token", "-", text="wrong\n")
    assert wrong.returncode == 77
    assert not profiles_file(ctl.home).exists()


def test_a_login_on_a_terminal_shows_no_secret(guarded: Daemon, ctl: Ctl) -> None:
    with at_terminal(ctl, "login", guarded.address, "web") as typed:
        typed.until("compare them.")
        typed.until("[y/N]: ")
        typed.type("y\n")
        typed.until("User")
        typed.type(f"{USER}\n")
        typed.until("Password: ")
        typed.wait_for_hidden()
        typed.type(f"{PASSWORD}\n")
        assert typed.end() == 0, typed.shown
    assert PASSWORD not in typed.shown
    assert "profile web" in typed.shown


def test_ctrl_c_at_a_password_gives_the_terminal_back(guarded: Daemon, ctl: Ctl) -> None:
    with at_terminal(ctl, "login", guarded.address, "--user", USER) as typed:
        typed.until("[y/N]: ")
        typed.type("y\n")
        typed.until("Password: ")
        typed.wait_for_hidden()
        typed.type("\x03")
        assert typed.end() == 130, typed.shown
        assert typed.echoes
    assert "Traceback" not in typed.shown


def test_a_terminal_is_told_which_server_it_is(shared: Daemon, ctl: Ctl) -> None:
    cafile = str(shared.state_dir / "tls" / "certificate.pem")
    words = ("login", shared.address, "web", "--token", "-", "--cafile", cafile)
    assert ctl(*words, SYSADMCTL_TOKEN=shared.token).returncode == 0
    line = f"sysadmctl: on {shared.address} (profile web)\n"
    for command in (("run", "--", "true"), ("jobs",), ("identify",)):
        with at_terminal(ctl, *command) as typed:
            assert typed.end() == 0, typed.shown
        assert typed.shown.startswith(line)
        assert typed.shown.count("sysadmctl: on ") == 1
        assert "sysadmctl: on" not in ctl(*command).stderr
    # Here, and for programs, there is nothing to be said.
    here = ("--state-dir", str(shared.state_dir))
    for quiet in (["jobs", "--json"], ["jobs", *here], ["profiles"]):
        with at_terminal(ctl, *quiet) as typed:
            assert typed.end() == 0, typed.shown
        assert "sysadmctl: on" not in typed.shown


@pytest.fixture
def home_of_user(person: None) -> Iterator[Path]:
    """The home of the account, which it can reach."""
    needs_root()
    with tempfile.TemporaryDirectory() as home:
        ids = pwd.getpwnam(USER)
        os.chown(home, ids.pw_uid, ids.pw_gid)
        yield Path(home)


def test_who_has_no_daemon_is_led_to_that_of_root(
    shared: Daemon, person: None, home_of_user: Path
) -> None:
    ids, ctl = pwd.getpwnam(USER), Ctl(home_of_user)
    port = shared.address.rpartition(":")[2]
    # All is loaded before: the account may not read where we come from.
    as_them = (
        "import os, sysadmd.ctl.app, sysadmd.ctl.jobs, sysadmd.ctl.advice as advice;"
        " import asyncio, socket, json, encodings.idna;"
        f" os.setgroups([]); os.setgid({ids.pw_gid}); os.setuid({ids.pw_uid}); "
    )
    here = ctl("jobs", before=f"{as_them}advice.PORT = {port}; ")
    assert here.returncode == 69
    assert f"one listens on port {port} of this machine, most likely root's" in here.stderr
    assert "`sysadmctl login localhost` logs in there" in here.stderr
    none = ctl("jobs", before=f"{as_them}advice.PORT = 1; advice.SYSTEM_STATE_DIR = '/none'; ")
    assert none.returncode == 69
    assert "start one with `sysadmd serve`" in none.stderr
    elsewhere = f"{as_them}advice.PORT = 1; advice.SYSTEM_STATE_DIR = '/'; "
    other = ctl("jobs", before=elsewhere)
    assert other.returncode == 69
    assert "`sysadmctl login localhost:PORT`" in other.stderr


def test_localhost_is_enough(shared: Daemon, ctl: Ctl) -> None:
    port = shared.address.rpartition(":")[2]
    done = ctl("login", f"localhost:{port}", "--token", shared.token, text="y\n")
    assert done.returncode == 0, done.stderr
    assert lines(ctl("profiles", "--json"))[0]["name"] == "localhost"
    assert ctl("jobs").returncode == 0
