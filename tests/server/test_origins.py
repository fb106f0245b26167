"""Which Origins may connect, and what the log says of the others."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.wire.origins import AGAIN, LOGGED, Origins

HOSTS = st.from_regex(r"[a-z0-9.-]{1,40}(:[0-9]{1,5})?", fullmatch=True)
SCHEMES = st.from_regex(r"[a-z][a-z0-9+.-]{0,10}", fullmatch=True)


@given(SCHEMES, HOSTS)
def test_what_a_browser_sends_is_refused_and_a_bare_word_is_not(scheme: str, host: str) -> None:
    origins = Origins(tuple)
    page = f"{scheme}://{host}"
    assert origins.refused("::1", [page]) == page
    assert origins.refused("::1", ["sysadm-client", page]) == page
    assert Origins(lambda: [page]).refused("::1", [page]) is None
    for page in ("null", "NULL", "", " ", "a b", f"{scheme}:x", "http://", "[::1]", "ä"):
        assert origins.refused("::1", [page]) == page
    for program in ("sysadm-client", "sysadm-server", "curl", "my.tool_2"):
        assert origins.refused("::1", [program]) is None
    assert origins.refused("::1", []) is None


def test_an_origin_is_logged_once_an_hour_and_a_flood_of_them_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    origins = Origins(tuple, lambda: now)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            origins.refused("192.0.2.1", ["https://a\x1b[2J"])
        assert caplog.messages == [
            "192.0.2.1: a web page of 'https://a\\x1b[2J' was refused; if it is one that may"
            " connect, add it to server.origins of the configuration"
        ]
        for number in range(1000):
            origins.refused("192.0.2.1", [f"https://{number}"])
        assert len(caplog.messages) == LOGGED
        now = AGAIN
        origins.refused("192.0.2.1", ["https://a"])
    assert len(caplog.messages) == LOGGED + 1
