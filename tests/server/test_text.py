"""Clipping of logs: nothing is ever longer than allowed, cut in a character, or uncounted."""

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from server.delivery.clipping import Piece, clip, marker
from sysadmd.json_size import json_size

LIMIT = 1024


def left_out(text: str) -> int:
    found = re.search(r"\[\.\.\. (\d+) bytes left out \.\.\.\]\n", text)
    return int(found[1]) if found else 0


@given(st.binary(max_size=3 * LIMIT))
def test_text_costs_at_most_the_limit_as_json(data: bytes) -> None:
    text = clip(Piece(data, b"", len(data)), LIMIT)
    assert json_size(text) <= LIMIT
    assert (
        json_size(text) == len(json.dumps(text, ensure_ascii=False).encode()) - 2
        or "\x7f" in text
    )


@given(st.text(max_size=3 * LIMIT))
def test_text_that_fits_is_whole_and_what_does_not_is_counted(whole: str) -> None:
    data = whole.encode()
    text = clip(Piece(data, b"", len(data)), LIMIT)
    if json_size(whole) <= LIMIT:
        assert text == whole
    else:
        missing = left_out(text)
        shown = text.replace("\n" + marker(missing), "", 1)
        if len(shown.encode()) + missing != len(data):
            shown = text.replace(marker(missing), "", 1)
        assert len(shown.encode()) + missing == len(data)
        assert "\ufffd" not in text or "\ufffd" in whole


def test_head_and_tail_of_a_long_log_stand_around_one_marker_line() -> None:
    piece = Piece(b"first line\n" + b"a" * 500, b"b" * 500 + b"\nlast line\n", 5_000_000)
    text = clip(piece, LIMIT)
    lines = text.splitlines()
    assert lines[0] == "first line"
    assert lines[-1] == "last line"
    assert sum("bytes left out" in line for line in lines) == 1
    assert 5_000_000 - LIMIT <= left_out(text) < 5_000_000


def test_a_log_of_lines_fills_its_limit_and_no_more() -> None:
    lines = "".join(f"{number}\n" for number in range(1000, 3000)).encode()
    for limit in range(1024, 1100):
        half = limit // 2
        text = clip(Piece(lines[:half], lines[-half:], len(lines)), limit)
        assert limit - 16 <= json_size(text) <= limit


def test_bytes_that_are_gone_are_counted() -> None:
    assert clip(Piece(b"", b"", 4711), LIMIT) == marker(4711)
    assert left_out(clip(Piece(b"only this\n", b"", 100), LIMIT)) == 90


def test_control_characters_cost_what_their_escapes_do() -> None:
    text = clip(Piece(b"\x00" * 2000, b"", 2000), LIMIT)
    assert json_size(text) <= LIMIT
    assert text.count("\x00") > 100
