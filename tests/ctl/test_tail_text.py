"""What an event says for people, and how it stands in a terminal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from sysadmd.client import EventFrame
from sysadmd.ctl.event_text import EventText, describe
from sysadmd.ctl.layout import Columns, head, lay_out
from sysadmd.text import printable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
COMMAND = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from(["pending", "running", "finished", "skipped"]) | JSON,
        "return_code": st.sampled_from(["0", "-9", "127"]) | JSON,
        "time_started": st.just("2026-11-30T08:52:15.286Z") | JSON,
        "time_finished": st.just("2026-11-30T08:52:18.118Z") | JSON,
        **dict.fromkeys(("command", "log_size", "log"), JSON),
    },
)
DETAILS = st.fixed_dictionaries(
    {},
    optional={
        "commands": st.lists(COMMAND, max_size=3) | JSON,
        "result": st.sampled_from(["succeeded", "failed", "lost"]) | JSON,
        **dict.fromkeys(("time_started", "time_finished", "current_cmd", "process_id"), JSON),
    },
)
ARGS = JSON | st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from(["pending", "running", "finished"]) | JSON,
        "process_details": DETAILS | JSON,
        "zpools": st.dictionaries(st.text(), JSON, max_size=2) | JSON,
        **dict.fromkeys(
            ("process_id", "priority", "message", "problems", "vanished", "error", "count"),
            JSON,
        ),
    },
)
NAMES = st.sampled_from(["dispatcher", "life_preserver", "system_state", "gap", "snapshot"])


def told(name: str, args: Any) -> EventText:
    return describe(EventFrame(name, args, "c", "t"))


def job(state: str, commands: list[dict[str, Any]], **details: Any) -> str:
    inner = {"commands": commands, **details}
    return told(
        "dispatcher", {"process_id": "ID", "state": state, "process_details": inner}
    ).text


def command(text: str, state: str, code: str | None = None, seconds: int = 0) -> dict[str, Any]:
    began = None if state in ("pending", "skipped") else "2026-11-30T08:00:00.000Z"
    ended = f"2026-11-30T08:00:{seconds:02}.000Z" if code is not None else None
    return {
        "command": text,
        "state": state,
        "return_code": code,
        "time_started": began,
        "time_finished": ended,
    }


WHEN = {
    "time_started": "2026-11-30T08:00:00.000Z",
    "time_finished": "2026-11-30T08:03:05.000Z",
}


@given(name=NAMES, args=ARGS)
def test_whatever_a_server_says_is_told_somehow(name: str, args: Any) -> None:
    text = told(name, args)
    assert text.word in ("information", "warning", "critical", "urgent")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (job("pending", []), "ID pending"),
        (
            job("running", [command("make", "running")], current_cmd="make"),
            "ID running: make",
        ),
        (
            job(
                "running",
                [command("a", "finished", "0"), command("b", "running")],
                current_cmd="b",
            ),
            "ID running 2 of 2: b",
        ),
        (
            job("finished", [command("a", "finished", "0")], result="succeeded", **WHEN),
            "ID finished: succeeded after 3 min 5 s (a)",
        ),
        (
            job(
                "finished",
                [
                    command("a", "finished", "0"),
                    command("b x", "finished", "3"),
                    command("c", "skipped"),
                ],
                result="failed",
                **WHEN,
            ),
            "ID finished: failed after 3 min 5 s; command 2 of 3 (b x) exited with 3;"
            " 1 skipped",
        ),
        (
            job("finished", [command("a", "finished", "-9")], result="failed", **WHEN),
            "ID finished: failed after 3 min 5 s; a was killed by SIGKILL",
        ),
        (
            job(
                "finished",
                [command("a", "finished", "0"), command("b", "finished", "-15")],
                result="killed",
                **WHEN,
            ),
            "ID finished: killed after 3 min 5 s; it was at command 2 of 2 (b)",
        ),
        (
            job("finished", [command("a", "skipped")], result="killed", **WHEN),
            "ID finished: killed before it started",
        ),
        (
            job("finished", [command("a", "finished")], result="lost", **WHEN),
            "ID finished: lost after 3 min 5 s; it was at a",
        ),
    ],
)
def test_a_job_is_told_with_its_commands_codes_and_times(text: str, said: str) -> None:
    assert text == said


@pytest.mark.parametrize(
    ("result", "word"),
    [
        ("succeeded", "information"),
        ("failed", "warning"),
        ("killed", "warning"),
        ("timed-out", "warning"),
        ("lost", "critical"),
    ],
)
def test_a_job_that_did_not_succeed_is_a_warning_at_least(result: str, word: str) -> None:
    args = {"process_id": "ID", "state": "finished", "process_details": {"result": result}}
    assert told("dispatcher", args).word == word


def test_a_pool_in_trouble_is_told_with_its_cause_and_others_are_counted() -> None:
    sick = {
        "health": "ONLINE",
        "capacity": "50%",
        # Errors of a device are no part of the pool's own priority.
        "priority": "0/Information",
        "vdevs": [
            {"name": "ada1", "state": "ONLINE", "read": "0", "write": "0", "cksum": "574"}
        ],
    }
    fine = {"health": "ONLINE", "capacity": "7%", "priority": "0/Information"}
    args: dict[str, Any] = {
        "hostname": "vm",
        "hostnamechanged": "false",
        "priority": "6/Critical",
        "zpools": {"tank": sick, "a": fine, "b": fine},
    }
    state = told("system_state", args)
    assert state.text == "tank ONLINE 50 %: ada1 has 574 checksum errors, 2 pools fine"
    assert (state.system, state.word, state.colour) == (
        "system-state",
        "critical",
        "bright_red",
    )
    assert state.details[0] == "host vm"
    assert "a ONLINE 7 %" in state.details
    assert any("ada1" in line and "cksum 574" in line for line in state.details)
    args = {
        **args,
        "zpools": {},
        "vanished": ["tank"],
        "hostnamechanged": "true",
        "previous_hostname": "old",
    }
    assert told("system_state", args).text == "host vm (was old), tank vanished"
    assert told("system_state", {**args, "vanished": [], "hostnamechanged": ""}).text == (
        "host vm"
    )


def test_many_pools_that_vanish_are_counted_and_named_in_the_details() -> None:
    names = [f"p{n}" for n in range(5)]
    state = told("system_state", {"zpools": {}, "vanished": names})
    assert state.text == "5 pools vanished: p0, p1, p2 and 2 more"
    assert state.details == tuple(f"{name} vanished" for name in names)
    state = told("system_state", {"zpools": {}, "vanished": names[:3]})
    assert state.text == "p0 vanished, p1 vanished, p2 vanished"


def test_a_gap_is_red_and_says_how_many_and_why() -> None:
    gap = told("gap", {"count": 7, "reason": "retention"})
    assert (gap.text, gap.colour) == ("7 events are gone: retention", "red")


@given(
    before=st.text("ab ", max_size=30),
    text=st.text(max_size=200) | st.text("ab \u4e2d\u0301", max_size=200),
    width=st.integers(4, 120),
)
def test_no_line_is_wider_than_the_terminal_and_no_character_is_lost(
    before: str, text: str, width: int
) -> None:
    text = printable(text)
    lines = lay_out(before, text, width)
    assert "".join(lines).replace(" ", "") == (before + text).replace(" ", "")
    for line in lines:
        assert cell_len(line) <= max(width, cell_len(before) + 2)
    assert all(cell_len(line) <= width for line in lines[1:])
    assert lay_out(before, text, None) == [before + text]


def test_words_are_kept_whole_and_stand_below_each_other() -> None:
    before = "18:00:02  state  critical  "
    assert lay_out(before, "tank is DEGRADED: ada3 is FAULTED", 60) == [
        "18:00:02  state  critical  tank is DEGRADED: ada3 is FAULTED",
    ]
    assert lay_out(before, "tank is DEGRADED: ada3 is FAULTED", 59) == [
        "18:00:02  state  critical  tank is DEGRADED: ada3 is",
        "  FAULTED",
    ]
    assert lay_out("18:00:02 state critical ", "/a/very/long/path/without/spaces", 40) == [
        "18:00:02 state critical",
        "  /a/very/long/path/without/spaces",
    ]


def test_the_columns_shrink_with_the_terminal() -> None:
    columns = Columns(time="18:00:02", system="life-preserver", word="information")
    assert head(columns, None) == head(columns, 100)
    assert head(columns, 100) == "18:00:02  life-preserver  information  "
    assert head(columns, 80) == "18:00:02  lp     info      "
    assert head(columns, 40) == "18:00:02 lp "
    critical = Columns(time="18:00:02", system="system-state", word="critical")
    assert head(critical, 40) == "18:00:02 state critical "
    widths = {len(head(c, width)) for c in (columns, critical) for width in (None, 100, 80)}
    assert len(widths) == 2
