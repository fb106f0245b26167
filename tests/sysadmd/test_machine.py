"""What the machine says of itself need not be text."""

import sys
from pathlib import Path

import pytest

from tests.kit import QUIET, Daemon, needs_root

NAMED = "import os, socket, sys; socket.sethostname({!r}); os.execv(sys.argv[1], sys.argv[1:])"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"b\xfcro-7", "b\ufffdro-7"),
        ("b\u00fcro".encode(), "b\u00fcro"),
        (b"", ""),
        # What would rule the terminal of who reads it, or turn the line around.
        (b"a\x1b[2J\n\xe2\x80\xaeb", "a\\x1b[2J\\n\\u202eb"),
    ],
)
def test_a_host_name_that_is_not_utf_8_is_told_and_ends_nothing(
    tmp_path: Path, name: bytes, shown: str
) -> None:
    needs_root("unshare")
    config = QUIET.replace("hostname]\nenabled = false", "hostname]\nenabled = true")
    wrapper = ("unshare", "--uts", sys.executable, "-c", NAMED.format(name))
    with Daemon(tmp_path / "state", config, wrapper=wrapper) as daemon:
        with daemon.stranger() as stranger:
            assert stranger.ask("rpc", "identify")["hostname"] == shown
        with daemon.client() as client:
            client.documented = bool(shown)
            client.ask("events", "subscribe", ["system-state"])
            assert client.event()["args"]["hostname"] == shown
