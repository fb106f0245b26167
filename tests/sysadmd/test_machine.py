"""What the machine says of itself need not be text."""

import errno
import os
import ssl
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysadmd.machine import plainly
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


@given(st.sampled_from(sorted(errno.errorcode)), st.none() | st.text(min_size=1))
def test_an_error_of_the_system_is_told_in_words(number: int, name: str | None) -> None:
    error = OSError(number, os.strerror(number), name)
    assert plainly(error) == os.strerror(number) + (f" ({name})" if name else "")
    assert plainly(ValueError(str(OSError(number, os.strerror(number))))) == os.strerror(number)


@given(st.text())
def test_any_error_is_told_by_something(text: str) -> None:
    for error in (ValueError(text), OSError(text), OSError(1, text)):
        assert plainly(error)


def test_openssls_numbers_and_lines_are_left_out() -> None:
    said = "[SSL: KEY_VALUES_MISMATCH] key values mismatch (_ssl.c:4061)"
    assert plainly(ssl.SSLError(116, said)) == "key values mismatch"
    assert plainly(ssl.SSLError(9, "[SSL] PEM lib (_ssl.c:4065)")) == "PEM lib"
    # An address is none of that.
    assert plainly(ValueError("[::1]:1 is taken")) == "[::1]:1 is taken"
