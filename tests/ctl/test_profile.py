"""What `login` has kept, and cannot be read: no other machine is meant by that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit import Daemon
from tests.kit.ctl import Ctl

NOWHERE = '{"url": "there", "token": "", "pin": "", "name": ""}'


def kept(ctl: Ctl) -> Path:
    """Where the profile is."""
    file = ctl.home / ".config" / "sysadmd" / "profile.json"
    file.parent.mkdir(parents=True)
    return file


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"url": "wss://there"}', NOWHERE, "\0", "\xff", "[" * 9999]
)
def test_a_damaged_profile_means_no_other_machine(ctl: Ctl, text: str) -> None:
    file = kept(ctl)
    file.write_bytes(text.encode("latin-1"))
    for words in (("run", "--", "true"), ("jobs", "--url", "wss://127.0.0.1:1")):
        done = ctl(*words)
        assert done.returncode == 69
        assert str(file) in done.stderr
        assert "is damaged" in done.stderr
        assert "Log in again" in done.stderr


def test_a_profile_that_may_not_be_read_means_no_other_machine(ctl: Ctl) -> None:
    file = kept(ctl)
    file.mkdir()
    done = ctl("jobs")
    assert done.returncode == 69
    assert str(file) in done.stderr


def test_a_server_that_is_named_needs_no_profile(daemon: Daemon, ctl: Ctl) -> None:
    kept(ctl).write_text("{")
    assert ctl("jobs", "--state-dir", str(daemon.state_dir)).returncode == 0
    cafile = str(daemon.state_dir / "tls" / "certificate.pem")
    where = ("--url", daemon.url, "--token", daemon.token, "--cafile", cafile)
    assert ctl("jobs", *where).returncode == 0
    # Out of it again.
    assert ctl("logout").returncode == 0
    assert ctl("logout").returncode == 1
