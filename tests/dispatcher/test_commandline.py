"""Splitting command lines, and the limits of what may be asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.commandline import Spec, join, parse_command, split
from dispatcher.orders import MAX_COMMANDS, MAX_TEXT, Order, check
from sysadmd.errors import BadRequest

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("ls", ("ls",)),
        ("  ls \t -l  ", ("ls", "-l")),
        ('echo "a b" c', ("echo", "a b", "c")),
        ('echo a"b c"d', ("echo", "ab cd")),
        ('echo """', ("echo", '"')),
        ('echo """a b"""', ("echo", '"a', 'b"')),
        ('echo """"a b""""', ("echo", '"a b"')),
        ('echo ""', ("echo", "")),
        ('echo """"""', ("echo", '""')),
        ("echo a\nb", ("echo", "a\nb")),
        ("", ()),
        (" \t ", ()),
    ],
)
def test_a_command_line_is_split_as_documented(text: str, argv: tuple[str, ...]) -> None:
    assert split(text) == argv


@pytest.mark.parametrize("text", ['"', 'a "b', '""""', 'a""""'])
def test_a_quote_left_open_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match=r"^args.x has a quote that is not closed; write"):
        parse_command(text, "args.x")


@given(st.lists(st.one_of(TEXT, st.text('" \ta')), min_size=1))
def test_joining_is_the_inverse_of_splitting(argv: list[str]) -> None:
    assert split(join(argv)) == tuple(argv)


@given(st.one_of(TEXT, st.text('" \ta')))
def test_any_text_is_split_or_refused(text: str) -> None:
    try:
        argv = split(text)
    except BadRequest:
        return
    assert split(join(argv)) == argv


def test_text_is_kept_as_it_was_written_and_a_vector_is_shown_as_text() -> None:
    assert parse_command(" ls  -l") == Spec(("ls", "-l"), " ls  -l")
    assert parse_command(["ls", "a b"]) == Spec(("ls", "a b"), 'ls "a b"')
    assert parse_command("  ") is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "commands\\[2\\] is an empty list; allowed"),
        ("ls \0", "commands\\[2\\] has a NUL character; allowed"),
        (["ls", "\ud800"], "commands\\[2\\] has half of a surrogate pair; allowed"),
    ],
)
def test_a_command_that_can_not_be_run_is_refused_by_name(value: str, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        parse_command(value, "commands[2]")


LS = Spec(("ls",), "ls")


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (Order(commands=(), id=""), "id has 0 characters; allowed: 1 to 256"),
        (Order(commands=(), id="x" * 257), "id has 257 characters; allowed: 1 to 256"),
        (Order(commands=(), id="a\nb"), "id has a control character; allowed"),
        (Order(commands=(), id="a\x85"), "id has a control character; allowed"),
        (Order(commands=(), key=""), "key has 0 characters; allowed"),
        (Order(commands=(LS,) * (MAX_COMMANDS + 1)), "commands has 1001 entries; allowed"),
        (
            Order(commands=(Spec(("x" * (MAX_TEXT + 1),), "x"),)),
            "commands has 65537 bytes of text; allowed: at most 65536",
        ),
        (Order(commands=(), timeout=0), "timeout is 0; allowed: seconds above 0"),
        (Order(commands=(), timeout=float("nan")), "timeout is nan; allowed"),
        (Order(commands=(), timeout=float("inf")), "timeout is inf; allowed"),
        (Order(commands=(), cwd="tmp"), "cwd must be an absolute path; allowed"),
        (Order(commands=(), cwd="/" + "x" * 1023), "cwd must be an absolute path; allowed"),
        (Order(commands=(), cwd="/\0"), "cwd has a NUL character"),
        (Order(commands=(), env={"": "x"}), "env has the name ''; allowed"),
        (Order(commands=(), env={"A=B": "x"}), "env has the name 'A=B'; allowed"),
        (Order(commands=(), env={"A": "\0"}), "env.A has a NUL character; allowed"),
        (Order(commands=(), env={"A": "x" * 70_000}), "env has 70003 bytes; allowed"),
    ],
)
def test_every_refusal_names_field_and_range(order: Order, said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check(order)
    assert str(refused.value).startswith(said)


def test_what_is_just_within_the_limits_is_taken() -> None:
    text = "x" * (MAX_TEXT // MAX_COMMANDS)
    check(Order(commands=(Spec((text,), text),) * MAX_COMMANDS, id="x" * 256, key="k" * 256))
    check(Order(commands=(), timeout=0.001, cwd="/", env={"A": "", "ä": "ö"}))
