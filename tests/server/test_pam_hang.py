"""A directory server that does not answer: PAM hangs, the daemon does not."""

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import QUIET
from tests.daemon import Daemon

SERVICE = "sysadmd-hang"
HANGS = f"auth required pam_exec.so quiet {shutil.which('sleep') or '/bin/sleep'} 25\n"


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Daemon]:
    if os.geteuid() != 0 or not Path("/etc/pam.d").is_dir():
        if os.environ.get("CI"):
            pytest.fail("root and PAM are needed here")
        pytest.skip("root and PAM are needed")
    service = Path(f"/etc/pam.d/{SERVICE}")
    service.write_text(HANGS)
    auth = f'[auth]\npam_service = "{SERVICE}"\npam_calls = 2\npam_wait = 1.0\n'
    try:
        with Daemon(tmp_path / "state", QUIET + auth) as daemon:
            yield daemon
    finally:
        service.unlink()


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
