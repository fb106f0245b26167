"""A directory server that does not answer: PAM hangs, the daemon does not."""

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kit import QUIET, Daemon
from tests.kit.accounts import pam_service

SERVICE = "sysadmd-hang"
HANGS = f"auth required pam_exec.so quiet {shutil.which('sleep') or '/bin/sleep'} 25\n"


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Daemon]:
    auth = f'[auth]\npam_service = "{SERVICE}"\npam_calls = 2\npam_wait = 1.0\n'
    with (
        pam_service(SERVICE, HANGS),
        Daemon(tmp_path / "state", QUIET + auth) as daemon,
    ):
        yield daemon


def log_in(daemon: Daemon) -> tuple[int, float]:
    """The error's code, and how long it took."""
    with daemon.stranger() as client:
        begun = time.monotonic()
        args = {"username": "root", "password": "secret"}
        code = client.ask_raw("rpc", "auth", args)["args"]["code"]
        return int(code), time.monotonic() - begun


def test_hanging_logins_hold_up_nobody_else(hanging: Daemon) -> None:
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(log_in, [hanging] * 6))
    assert {code for code, _ in answers} == {429}
    assert max(seconds for _, seconds in answers) < 5
    with hanging.client() as admin:
        assert admin.ask("rpc", "dispatcher", {"action": "list"})["jobs"] == {}
    begun = time.monotonic()
    assert hanging.stop() == 0
    assert time.monotonic() - begun < 20
