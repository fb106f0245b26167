"""docs/protocol.md says what really is: its examples, said to a running daemon."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.transcript import DOCUMENT, Differs, Names, differences, layout, steps

TEXT = DOCUMENT.read_text()
# What is named by people: jobs, commands, pools, queues, systems, logs. All else is a key.
NAMED = re.compile(r".*[ /:-].*|tank|later|nothing|wrong|pkg_queue|PASSWORD", re.DOTALL)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
CURSOR = "0123456789abcdef:{}:{}.0.0:4gT0wKXbqOeqzUOMpCLxKg"


def keys(value: Any) -> set[str]:
    """The keys of all objects in it."""
    found = set[str]()

    def note(pairs: list[tuple[str, Any]]) -> None:
        found.update(key for key, _ in pairs)

    json.loads(json.dumps(value), object_pairs_hook=note)
    return found


def test_the_examples_are_as_they_are_shown(tmp_path: Path) -> None:
    for step, why, came in differences(TEXT, tmp_path):
        raise AssertionError(f"{why}\n{step.text}came:\n{came}")


def test_every_key_of_an_example_is_explained() -> None:
    tables = "\n".join(line for line in TEXT.splitlines() if line.startswith("|"))
    for step in steps(TEXT):
        if step.kind in ("send", "reply", "event", "file"):
            for key in keys(step.value):
                assert NAMED.fullmatch(key) or re.search(rf"[`\"]{key}[`\"]", tables), key


def test_every_frame_has_its_answer() -> None:
    asked = [step.value["id"] for step in steps(TEXT) if step.kind == "send"]
    answered = [step.value["id"] for step in steps(TEXT) if step.kind == "reply"]
    assert len(asked) > 30
    assert asked == answered


@given(JSON)
def test_a_frame_is_laid_out_as_it_is(value: Any) -> None:
    assert json.loads(layout(value)) == value
    Names().match(value, json.loads(layout(value)))


def test_a_value_that_is_shown_twice_has_to_come_twice() -> None:
    names = Names()
    one, two, other = (CURSOR.format(n, n) for n in (1, 2, 3))
    names.match(
        [one, two, "2026-11-30T09:11:35.985Z"], [two, other, "2026-11-30T09:11:36.000Z"]
    )
    names.match({"prev": one}, {"prev": two})
    wrong: list[Any] = [[one, other], [other, other], ["a", "b"], [1, True], [["a"], []]]
    for shown, real in wrong:
        with pytest.raises(Differs):
            names.match(shown, real)
    with pytest.raises(Differs):
        names.match({"text": "a"}, {"text": "a", "more": 1})
