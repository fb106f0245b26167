"""Any text gives a request or the declared error."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.wire.protocol import MAX_DEPTH, ProtocolError, Request, parse_request

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.text() | JSON.map(json.dumps))
def test_any_text_gives_a_request_or_the_error(text: str) -> None:
    try:
        assert isinstance(parse_request(text), Request)
    except ProtocolError as error:
        assert error.code == 400
        assert error.detail


@given(st.text(min_size=1), st.text(min_size=1), st.text(), JSON)
def test_a_request_comes_out_as_it_was_put_in(
    namespace: str, name: str, id: str, args: object
) -> None:
    body = {"namespace": namespace, "name": name, "id": id, "args": args, "extra": 1}
    try:
        request = parse_request(json.dumps(body))
    except ProtocolError as error:
        assert "digits" in error.detail or "JSON" in error.detail
        return
    assert (request.namespace, request.name, request.id) == (namespace, name, id)
    assert request.key == f"{namespace}/{name}".lower()


@pytest.mark.parametrize("id", [None, 7, ["a"], {"a": 1}])
def test_an_id_that_is_no_string_is_echoed_as_nothing(id: object) -> None:
    body: dict[str, Any] = {"namespace": "rpc", "name": "query", "id": id}
    assert parse_request(json.dumps(body)).id == ""
    assert parse_request(json.dumps(body)).args == {}


def test_nesting_is_limited_and_brackets_in_strings_do_not_count() -> None:
    deep = "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)
    with pytest.raises(ProtocolError, match="nested"):
        parse_request('{"namespace":"a","name":"b","args":' + deep + "}")
    text = json.dumps({"namespace": "a", "name": "b", "args": "[{" * 500})
    assert parse_request(text).args == "[{" * 500


def test_numbers_of_absurd_length_are_refused_and_digits_in_strings_are_not() -> None:
    with pytest.raises(ProtocolError, match="digits"):
        parse_request('{"namespace":"a","name":"b","args":{"x":' + "9" * 60 + "}}")
    assert parse_request('{"namespace":"a","name":"b","args":"' + "9" * 60 + '"}')


@pytest.mark.parametrize(
    "args", ['{"job":"sleep 1","job":"false"}', '[{"x":{"a":1,"b":2,"\\u0061":1}}]']
)
def test_a_key_that_stands_twice_is_refused(args: str) -> None:
    with pytest.raises(ProtocolError, match="stands twice") as raised:
        parse_request('{"namespace":"a","name":"b","id":"c","args":' + args + "}")
    assert (raised.value.namespace, raised.value.id) == ("a", "c")
    twice = '{"namespace":"a","name":"b","args":[{"a":1},{"a":{"a":1}}]}'
    assert parse_request(twice).args == [{"a": 1}, {"a": {"a": 1}}]


def test_what_is_too_long_to_be_echoed_is_left_out_of_the_error() -> None:
    for names, echoed in (
        ({"namespace": "a", "name": "b", "id": "x" * 1025}, ("a", "")),
        ({"namespace": "a", "name": "b" * 1025, "id": "x"}, ("a", "x")),
        ({"namespace": "a" * 1025, "name": "b", "id": "x"}, ("error", "x")),
    ):
        with pytest.raises(ProtocolError, match="at most") as raised:
            parse_request(json.dumps(names))
        assert (raised.value.namespace, raised.value.id) == echoed
