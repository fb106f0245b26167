"""Any text gives a request or the declared error."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.orders import MAX_TEXT
from server.dialects import DIALECTS
from server.wire.protocol import (
    MAX_CONTAINERS,
    MAX_DEPTH,
    ProtocolError,
    Request,
    parse_request,
)

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


def test_so_many_objects_and_lists_that_all_would_wait_are_refused() -> None:
    def text(count: int) -> str:
        return '{"namespace":"a","name":"b","args":[' + ",".join(["{}"] * count) + "]}"

    assert len(parse_request(text(MAX_CONTAINERS - 2)).args) == MAX_CONTAINERS - 2
    with pytest.raises(ProtocolError, match="ask in parts"):
        parse_request(text(MAX_CONTAINERS - 1))
    # A job of nothing but brackets is no such request.
    job = json.dumps({"namespace": "a", "name": "b", "args": "[" * MAX_TEXT})
    assert len(parse_request(job).args) == MAX_TEXT


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


def body(args: str, id: str = '"c"') -> str:
    return '{"namespace":"a","name":"b","id":' + id + ',"args":' + args + "}"


@pytest.mark.parametrize(
    ("args", "detail"),
    [
        ("[NaN]", "NaN is no JSON"),
        ("Infinity", "Infinity is no JSON"),
        ('{"x":-Infinity}', "-Infinity is no JSON"),
        ("1e999", "the number 1e999 is out of range"),
        ("[-1.5E+400]", "out of range"),
        ("1" * 33, "more than 32 digits"),
        ("-0." + "1" * 32, "more than 32 digits"),
        ('{"a":1,"a":1}', "the key 'a' stands twice"),
        ('{"\\ud83d":1,"\\ud83d":2}', r"the key '\ud83d' stands twice"),
        (r'"\ud800"', "half of a character"),
        (r'["\udc00\ud800"]', "half of a character"),
        (r'{"\uDBFFx":1}', "half of a character"),
        ("[" * 64 + "]" * 64, "nested deeper"),
    ],
)
def test_what_has_a_flaw_is_refused_and_who_sent_it_is_told(args: str, detail: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        parse_request(body(args))
    assert detail in raised.value.detail
    assert (raised.value.namespace, raised.value.id) == ("a", "c")
    with pytest.raises(ProtocolError) as raised:
        parse_request(body(args, id="7"))
    assert (raised.value.namespace, raised.value.id) == ("a", "")


@pytest.mark.parametrize(
    "args",
    [
        *("9" * 32, "-" + "9" * 32, "1.5e300", "[" * 63 + "]" * 63, '[{"a":{}},{"a":[]}]'),
        r'{"\ud83d\ude00":[1000000000000000000000000,"\\ud800"]}',
    ],
)
def test_what_just_fits_is_taken(args: str) -> None:
    assert parse_request(body(args)).args == json.loads(args)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "[]", "null", '"{}"', "7", "\ufeff{}", "{}{}", body("1") + "x", body("tru")),
        *(body('"a\nb"'), body('"a\0b"'), body("01"), body("1."), body("[1,]"), body("'a'")),
        *("[" * 100_000, '{"a":' * 100_000, body("[" * 100_000 + "]" * 100_000)),
        *('"' + "x" * 100_000, body('"' + "x" * 100_000), body("9" * 100_000)[:-1]),
    ],
)
def test_what_is_no_request_is_refused_in_few_words(text: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        parse_request(text)
    assert raised.value.code == 400
    assert len(raised.value.detail) < 200


@pytest.mark.parametrize("key", ["id", "namespace"])
def test_half_of_a_character_is_not_echoed(key: str) -> None:
    names = {"namespace": "a", "name": "b", "id": "c", key: "x\ud800"}
    with pytest.raises(ProtocolError, match="half of a character") as raised:
        parse_request(json.dumps(names))
    echoed = {"namespace": raised.value.namespace, "id": raised.value.id}
    assert echoed == {"namespace": "a", "id": "c", key: "error" if key == "namespace" else ""}


SPOKEN = DIALECTS["documented"]
# Pieces of JSON, right and wrong, in any order.
PIECES = st.sampled_from(
    (
        *('{"namespace":"a","name":"b","id":"c","args":', '{"a":', '"a":', "{", "}", "[", "]"),
        *(",", ":", '"', "\\", r"\ud83d", r"\ude00", r'"\ud800"', "1", "-", "1e999", "NaN"),
        *("9" * 33, "0.5", "true", "null", " ", "\n", "\ufeff", "\0", "x", '"a"', "[" * 70),
    )
)


@given(st.lists(PIECES | st.characters(codec="utf-8")).map("".join))
def test_whatever_is_taken_or_refused_can_be_written_again(text: str) -> None:
    try:
        request = parse_request(text)
    except ProtocolError as error:
        assert error.code == 400
        SPOKEN.error(error)
    else:
        SPOKEN.reply(request, request.args)


def test_what_is_too_long_to_be_echoed_is_left_out_of_the_error() -> None:
    for names, echoed in (
        ({"namespace": "a", "name": "b", "id": "x" * 1025}, ("a", "")),
        ({"namespace": "a", "name": "b" * 1025, "id": "x"}, ("a", "x")),
        ({"namespace": "a" * 1025, "name": "b", "id": "x"}, ("error", "x")),
    ):
        with pytest.raises(ProtocolError, match="at most") as raised:
            parse_request(json.dumps(names))
        assert (raised.value.namespace, raised.value.id) == echoed
