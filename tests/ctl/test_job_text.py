"""What is said of jobs, and what has room in a table."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysadmd.ctl.columns import widths
from sysadmd.ctl.following import Stamps
from sysadmd.ctl.job_text import (
    code_text,
    ended,
    how_far,
    one_word,
    shell_words,
    size_text,
    waiting_reason,
)

NOW = datetime(2026, 11, 30, 9, 0, 5, tzinfo=UTC)


def command(text: str, state: str = "finished", code: str | None = "0") -> dict[str, Any]:
    return {"command": text, "argv": [text], "state": state, "return_code": code}


def job(result: str, *commands: dict[str, Any]) -> dict[str, Any]:
    times = {"time_started": "2026-11-30T09:00:00Z", "time_finished": "2026-11-30T09:00:05Z"}
    return {"id": "j", "result": result, "commands": list(commands), **times}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("0", "succeeded"),
        ("7", "exited with 7"),
        ("127", "exited with 127 (not found)"),
        ("-9", "was killed by SIGKILL"),
        ("-100", "was killed by signal 100"),
        (None, "ended with a code that is not known"),
    ],
)
def test_codes_are_said_in_words(code: str | None, said: str) -> None:
    assert code_text(code) == said


def test_the_closing_line_says_which_command_failed_how_and_what_was_skipped() -> None:
    failed = job("failed", command("a"), command("b", code="-9"), command("c", "skipped", None))
    assert ended(failed) == (
        "job j failed after 5 s; command 2 of 3 (b) was killed by SIGKILL;"
        " 1 command was skipped"
    )
    assert ended(job("succeeded", command("a"))) == "job j succeeded in 5 s"
    assert ended(job("timed-out", command("a", code="-15"))) == (
        "job j was ended because its time was up after 5 s; it was at a"
    )
    assert ended(job("failed", command("a b", code="1")), "x").endswith(
        "x failed after 5 s; 'a b' exited with 1"
    )
    assert how_far(failed["commands"]) == "2/3 (SIGKILL)"


def test_why_a_job_waits_is_said_with_what_to_do() -> None:
    waits = {"queue": "pkg_queue", "position": 2}
    open_, full = {"paused": False, "limit": 1, "running": 0}, {"limit": 1, "running": 1}
    assert waiting_reason(waits, {"pkg_queue": open_}) == (
        "in pkg_queue: 2 jobs before it; 0 of at most 1 run"
    )
    assert "sysadmctl queue resume pkg_queue" in waiting_reason(
        waits, {"pkg_queue": {**open_, "paused": True}}
    )
    # Those that run are before it, too, in its place.
    assert waiting_reason(waits, {"pkg_queue": full}) == (
        "in pkg_queue: 1 job before it; 1 of at most 1 runs"
    )
    assert waiting_reason({**waits, "position": 1}, {"pkg_queue": full}) == (
        "in pkg_queue: it is next; 1 of at most 1 runs"
    )
    assert waiting_reason({**waits, "position": 1}, None) == "in pkg_queue: 1 job before it"


def test_words_of_a_shell_are_remarked_on() -> None:
    assert "'|' is an argument of ls" in (shell_words([["ls", "|", "wc"]]) or "")
    assert shell_words([["date", "+%s"], ["echo", "a;b", "x|y"]]) is None


def test_a_command_in_one_word_is_remarked_on_only_if_it_was_not_found() -> None:
    text = "ls -la /tmp"
    assert "one word" in (one_word(job("failed", command(text, code="127"))) or "")
    assert one_word(job("failed", command(text, code="1"))) is None
    assert one_word(job("failed", command("nothing", code="127"))) is None


@pytest.mark.parametrize(
    ("size", "said"), [(1, "1 byte"), (1023, "1023 bytes"), (1536, "1.5 KiB")]
)
def test_sizes_have_units(size: int, said: str) -> None:
    assert size_text(size) == said


@given(
    st.lists(st.integers(1, 60), min_size=3, max_size=8),
    st.integers(1, 200),
    st.integers(1, 20),
)
def test_columns_give_way_in_their_order_and_others_never(
    wanted: list[int], room: int, least: int
) -> None:
    last = len(wanted) - 1
    found = widths(wanted, room, {last: least, 0: 8}, drops=(2,) if last > 2 else ())
    assert found[1] == wanted[1]
    shown = [width for width in found if width is not None]
    if sum(wanted) + 2 * last <= room:
        assert found == wanted
    elif sum(shown) + 2 * (len(shown) - 1) > room:
        # Then nothing is left to give.
        assert found[last] == min(least, wanted[last])
        assert found[0] == min(8, wanted[0])


def test_lines_are_marked_with_the_moment_at_which_they_came() -> None:
    stamps = Stamps()
    assert stamps.marked("old\npart", NOW) == f"{' ' * 9}old\n{' ' * 9}part"
    stamps.live = True
    assert stamps.marked("ly\n1\r2\nnew", NOW) == "ly\n09:00:05 1\r2\n09:00:05 new"
