"""What of a program's output reaches a terminal: no hand of its own on it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysadmd.ctl.program_text import LONGEST_LINE, ProgramText, harmless

SGR = re.compile(r"\x1b\[[0-9;:]*m")
# Pieces of which escape sequences are made, right and wrong, beside any text.
WORDS = [
    "\x1b",
    "[",
    "\x1b[",
    "0",
    "31",
    "38",
    ";",
    ":",
    "5",
    "2",
    "m",
    "K",
    "G",
    "?25",
    "l",
    "\x08",
    "\x07",
    "\x9b",
    "\x1b]0;t\x07",
    "\x1b[2J",
    "\x1b[38;5;9m",
]
PIECES = st.one_of(st.sampled_from([*WORDS, "\r", "\n", "\t"]), st.text(max_size=4))
TEXTS = st.lists(PIECES, max_size=40).map("".join)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("a\nb", "a\nb"),
        ("a\r\nb\r\n", "a\nb\n"),
        ("10 %\r20 %\r100 %\n", "100 %\n"),
        ("100 %\r20\n", "200 %\n"),
        ("100 %\r\x1b[K20\n", "20\n"),
        ("100 %\x1b[2K\r20\n", "20\n"),
        ("abc\x1b[1K\n", "   \n"),
        ("abc\x1b[1GX\x1b[5GY\n", "Xbc Y\n"),
        ("|\b/\b-\b\\\bok\n", "ok\n"),
        ("\x1b[?25lbusy\x1b[?25h\n", "busy\n"),
        ("\x1b[31mred\x1b[0m plain\n", "\x1b[31mred\x1b[0m plain\n"),
        ("\x1b[1;32mtwo\nlines\n", "\x1b[1;32mtwo\x1b[0m\n\x1b[1;32mlines\x1b[0m\n"),
        ("\x1b[1mb\x1b[22mn\x1b[m", "\x1b[1mb\x1b[0mn"),
        ("\x1b[38;5;208mo\x1b[39mn", "\x1b[38;5;208mo\x1b[0mn"),
        ("\x1b[48:2::1:2:3mo", "\x1b[48:2::1:2:3mo\x1b[0m"),
        ("\x1b[8mhidden", "hidden"),
        ("\x1b[2Jx\x1b[5Ay", r"\x1b[2Jx\x1b[5Ay"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m\u202e", r"\x9b31m\u202e"),
        ("end\x1b[3", r"end\x1b[3"),
        ("a\tb\n", "a\tb\n"),
    ],
)
def test_output_is_shown_as_a_terminal_has_it_in_the_end(written: str, shown: str) -> None:
    assert harmless(written, colours=True) == shown
    assert harmless(written, colours=False) == SGR.sub("", shown)


def test_a_line_that_has_not_ended_is_shown_as_it_looks_now() -> None:
    text = ProgramText(colours=True)
    assert text.feed("a\n\x1b[31m10 %") == "a\n"
    assert text.line == "\x1b[31m10 %\x1b[0m"
    assert text.feed("\r20 %\x1b[") == ""
    assert text.line == "\x1b[31m20 %\x1b[0m"
    assert text.end() == "\x1b[31m20 %\\x1b[\x1b[0m"
    assert text.feed("plain\n") == "plain\n"


@given(TEXTS)
def test_no_escape_but_of_colours_is_let_through(text: str) -> None:
    shown = harmless(text, colours=True)
    rest = SGR.sub("", shown)
    assert all(char.isprintable() or char in "\n\t" for char in rest)
    assert harmless(text, colours=False) == rest


@given(TEXTS)
def test_each_line_ends_without_colours(text: str) -> None:
    for line in harmless(text, colours=True).split("\n"):
        found = SGR.findall(line)
        assert not found or found[-1] == "\x1b[0m"


@given(st.lists(TEXTS, max_size=6))
def test_where_a_portion_ends_makes_no_difference(portions: list[str]) -> None:
    text = ProgramText(colours=True)
    shown = "".join(text.feed(portion) for portion in portions) + text.end()
    assert shown == harmless("".join(portions), colours=True)


@given(st.lists(st.sampled_from("ab\x1b\r\n").map(lambda c: c * 1500), max_size=8))
def test_a_line_is_never_longer_than_it_may_be(pieces: list[str]) -> None:
    text = ProgramText(colours=True)
    for piece in pieces:
        shown = text.feed(piece)
        assert all(len(line) <= LONGEST_LINE for line in shown.split("\n"))
        assert len(text.line) <= LONGEST_LINE


@given(st.text(alphabet=st.characters(categories=["L", "N", "P"], include_characters=" \t\n")))
def test_plain_text_is_left_alone(text: str) -> None:
    assert harmless(text, colours=True) == text
