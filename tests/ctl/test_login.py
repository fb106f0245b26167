"""`sysadmctl login`, `logout`, and the profile: through the machine's own PAM."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sysadmd.pins import file_pin
from tests.kit import DEADLINE, QUIET, Daemon, needs_root, wait_for
from tests.kit.accounts import PASSWORD, account, pam_service
from tests.kit.ctl import Ctl, lines
from tests.kit.profiles import default_profile, profiles_file

USER, SERVICE = "sysadmd-ctl", "sysadmd-ctl-tests"
CONFIG = f'{QUIET}[auth]\npam_service = "{SERVICE}"\nfull = ["{USER}"]\n'


@pytest.fixture(scope="module")
def person() -> Iterator[None]:
    """An account of this machine that may do everything."""
    with pam_service(SERVICE), account(USER):
        yield


@pytest.fixture
def guarded(tmp_path: Path, person: None) -> Iterator[Daemon]:
    with Daemon(tmp_path / "state", CONFIG) as daemon:
        yield daemon


def test_login_shows_the_key_pins_it_and_keeps_a_token(guarded: Daemon, ctl: Ctl) -> None:
    pin = file_pin(guarded.state_dir / "tls" / "certificate.pem")
    no = ctl("login", guarded.url, "--user", USER, text="n\n")
    assert no.returncode == 1
    assert not (ctl.home / ".config").exists()
    wrong = ctl("login", guarded.url, "--user", USER, text="y\nwrong\n")
    assert wrong.returncode == 77
    done = ctl("login", guarded.url, text=f"y\n{USER}\n{PASSWORD}\n")
    assert done.returncode == 0, done.stderr
    assert pin in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    profile = profiles_file(ctl.home)
    assert profile.stat().st_mode & 0o777 == 0o600
    # From here on nothing need be said, and nothing is asked.
    assert lines(ctl("identify", "--json"))[0]["pin"] == pin
    assert ctl("run", "--", "echo", "by profile").stdout == "by profile\n"
    again = ctl("login", guarded.url, "--user", USER, text=f"{PASSWORD}\n")
    assert again.returncode == 0, again.stderr
    # The new one takes the place of the old one.
    (token,) = guarded_tokens(guarded)
    assert token["name"] == default_profile(ctl.home)["name"]
    logout = ctl("logout")
    assert (logout.returncode, logout.stderr) == (0, "")
    assert not profile.exists()
    assert guarded_tokens(guarded) == []
    assert ctl("logout").returncode == 1


@pytest.mark.parametrize("role", ["limited", "full"])
def test_logout_ends_the_token_whatever_the_role(
    tmp_path: Path, person: None, ctl: Ctl, role: str
) -> None:
    config = CONFIG.replace("full = ", "full = []\nlimited = ") if role == "limited" else CONFIG
    with Daemon(tmp_path / "state", config) as daemon:
        login = ("login", daemon.url, "--user", USER, "--name", "laptop")
        assert ctl(*login, text=f"y\n{PASSWORD}\n").returncode == 0
        taken = ctl(*login, text=f"{PASSWORD}\n")
        assert taken.returncode == 1
        assert "sysadmctl logout" in taken.stderr
        assert len(guarded_tokens(daemon)) == 1
        done = ctl("logout")
        assert (done.returncode, done.stderr) == (0, "")
        assert guarded_tokens(daemon) == []
        assert ctl(*login, text=f"y\n{PASSWORD}\n").returncode == 0


def guarded_tokens(daemon: Daemon) -> list[dict[str, str]]:
    with daemon.client() as client:
        found: list[dict[str, str]] = client.ask("rpc", "tokens", {"action": "list"})["tokens"]
        return found


def test_an_input_that_ends_before_the_answer_is_said(guarded: Daemon, ctl: Ctl) -> None:
    done = ctl("login", guarded.url, "--user", USER)
    assert done.returncode == 1
    assert "the input ended" in done.stderr


def test_a_revoked_token_is_not_permitted(guarded: Daemon, ctl: Ctl) -> None:
    assert ctl("login", guarded.url, "--user", USER, text=f"y\n{PASSWORD}\n").returncode == 0
    (token,) = guarded_tokens(guarded)
    with guarded.client() as client:
        client.ask("rpc", "tokens", {"action": "revoke", "name": token["name"]})
    assert ctl("jobs").returncode == 77
    assert ctl("run", "--", "true").returncode == 77
    # Who is there may be asked all the same; and another token may be named.
    assert ctl("identify").returncode == 0
    assert ctl("jobs", SYSADMCTL_TOKEN=guarded.token).returncode == 0


def test_a_server_with_another_key_gets_no_token(guarded: Daemon, ctl: Ctl) -> None:
    assert ctl("login", guarded.url, "--user", USER, text=f"y\n{PASSWORD}\n").returncode == 0
    url = guarded.url
    guarded.stop()
    shutil.rmtree(guarded.state_dir / "tls")
    guarded.listen = guarded.address
    guarded.start()
    refused = ctl("jobs", "--url", url)
    assert refused.returncode == 69
    assert "another key" in refused.stderr
    warned = ctl("login", url, "--user", USER, text="n\n")
    assert warned.returncode == 1
    assert "somebody may be in between" in warned.stderr


@pytest.mark.parametrize("role", ["read", "limited"])
def test_what_a_role_does_not_allow_exits_with_77(daemon: Daemon, ctl: Ctl, role: str) -> None:
    with daemon.client() as client:
        add = {"action": "add", "name": role, "role": role}
        token = client.ask("rpc", "tokens", add)["token"]
    cafile = str(daemon.state_dir / "tls" / "certificate.pem")
    where = ["--url", daemon.url, "--token", token, "--cafile", cafile]
    assert ctl(*where, "jobs").returncode == 0
    assert ctl(*where, "state").returncode == 0
    for words in (["run", "--", "true"], ["kill", "x"], ["queue", "pause", "q"], ["audit"]):
        refused = ctl(*where, *words)
        assert refused.returncode == 77, words
        assert refused.stdout == ""
        assert refused.stderr.startswith("sysadmctl: ")


def test_who_may_not_read_the_state_directory_is_told_to_log_in(
    daemon: Daemon, ctl: Ctl
) -> None:
    needs_root()
    nobody = "import os, sysadmd.ctl.jobs; os.seteuid(65534); "
    refused = ctl("--state-dir", str(daemon.state_dir), "jobs", before=nobody)
    assert refused.returncode == 69
    assert "sysadmctl login" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_ctrl_c_ends_a_question_at_once(daemon: Daemon, ctl: Ctl) -> None:
    with ctl.started("login", daemon.url) as asking:
        assert asking.stderr is not None
        shown = ""
        while not shown.endswith("[y/N]: "):
            character = asking.stderr.read(1)
            assert character, shown
            shown += character
        # A signal just before the read would wait for the next line of input.
        process = psutil.Process(asking.pid)
        wait_for(lambda: process.status() == psutil.STATUS_SLEEPING, "the question to wait")
        asking.send_signal(signal.SIGINT)
        # No second Ctrl-C, and no answer.
        assert asking.wait(DEADLINE) == 130
