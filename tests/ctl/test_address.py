"""Addresses as people write them: which server is meant, and what it is called."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sysadmd.ctl.address import names, server_url, shown
from sysadmd.errors import BadRequest
from sysadmd.target import Target


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("web1", "wss://web1:12150"),
        ("web1.example.org", "wss://web1.example.org:12150"),
        ("web1:443", "wss://web1:443"),
        ("192.0.2.7", "wss://192.0.2.7:12150"),
        ("2001:db8::1", "wss://[2001:db8::1]:12150"),
        ("::1", "wss://[::1]:12150"),
        ("[2001:db8::1]", "wss://[2001:db8::1]:12150"),
        ("[2001:db8::1]:99", "wss://[2001:db8::1]:99"),
        ("wss://web1:12150", "wss://web1:12150"),
        ("wss://web1", "wss://web1"),
        ("wss://[::1]:7", "wss://[::1]:7"),
    ],
)
def test_a_host_alone_is_enough(text: str, url: str) -> None:
    assert server_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "a b", " web1", "web1:", "web1:x", "web1:0", "web1:65536", "a:b:c", "[::1"),
        *("https://web1", "ws://web1:1", "wss://", "web1/x", "u@web1", "wss://u:p@web1", "\0"),
        *("wss://web1?x", "web1#x", "[web1]:1", "web1\x1b[m", "::g", "/"),
    ],
)
def test_what_is_no_address_is_said_with_what_is_one(text: str) -> None:
    with pytest.raises(BadRequest, match=r"HOST, HOST:PORT or wss://HOST:PORT"):
        server_url(text)


@given(st.text())
@example("[v1.x]")
def test_any_text_is_an_address_of_a_target_or_none(text: str) -> None:
    with contextlib.suppress(BadRequest):
        url = server_url(text)
        Target(url)
        assert server_url(url) == url
        assert names(url)
        assert shown(url)


@pytest.mark.parametrize(
    ("url", "first", "last", "people"),
    [
        ("wss://web1.example.org:12150", "web1", "web1.example.org:12150", "web1.example.org"),
        ("wss://192.0.2.7:12150", "192.0.2.7", "192.0.2.7:12150", "192.0.2.7"),
        ("wss://[::1]:99", "::1", "::1:99", "[::1]:99"),
        ("wss://web1", "web1", "web1:443", "web1:443"),
    ],
)
def test_names_are_short_if_they_may_be(url: str, first: str, last: str, people: str) -> None:
    assert (names(url)[0], names(url)[-1], shown(url)) == (first, last, people)
