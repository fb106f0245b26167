"""Of the events of jobs what was not shown yet: each byte of their output once."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.delivery.clipping import Piece, clip
from sysadmd.ctl.job_lines import JobLines, unshown


def event(state: str, texts: dict[str, str], *sizes: tuple[str, int]) -> dict[str, Any]:
    """An event of a job with commands of these states and sizes; texts: by their names."""
    commands = [
        {"command": f"c{n}", "state": of, "log_size": size}
        for n, (of, size) in enumerate(sizes)
    ]
    return {
        "process_id": "ID",
        "state": state,
        "process_details": {"commands": commands, **texts},
    }


@given(
    portions=st.lists(st.text(max_size=20), max_size=5),
    rest=st.text(max_size=20),
    again=st.text(max_size=20),
)
def test_output_is_shown_once_whatever_is_told_again(
    portions: list[str], rest: str, again: str
) -> None:
    jobs, shown, written = JobLines(), "", ""
    jobs.take({"process_id": "ID", "state": "pending"})
    jobs.take(event("running", {}, ("running", 0), ("pending", 0)))
    for portion in portions:
        written += portion
        args = event("running", {"c0": portion}, ("running", len(written.encode())))
        news = jobs.take(args)
        shown += news.output
        assert not news.is_line
    whole = written + rest
    ended = ("finished", len(whole.encode()))
    news = jobs.take(event("running", {"c0": whole}, ended, ("running", 0)))
    assert (news.is_line, news.ended, news.missing) == (True, True, False)
    shown += news.output
    last = ("finished", len(again.encode()))
    news = jobs.take(event("finished", {"c0": whole, "c1": again}, ended, last))
    assert (news.is_line, news.missing) == (True, False)
    assert shown + news.output == whole + again


@given(text=st.text(max_size=300), at=st.integers(0, 300), limit=st.integers(40, 300))
def test_of_a_log_that_is_cut_all_bytes_are_shown_or_counted(
    text: str, at: int, limit: int
) -> None:
    before = text[:at]
    data = text.encode()
    half = len(data) // 2
    told = clip(Piece(data[:half], data[half:], len(data)), limit)
    found = unshown(told, len(data), len(before.encode()), len(before))
    if told == text:
        assert found == text[at:]
        return
    counted = sum(int(number) for number in re.findall(r"\[\.\.\. (\d+) bytes", found))
    kept = re.sub(r"\n?\[\.\.\. \d+ bytes left out \.\.\.\]\n", "", found)
    assert abs(len(kept.encode()) + counted - (len(data) - len(before.encode()))) <= 1


def test_bytes_that_are_no_text_are_not_doubled() -> None:
    assert unshown("\ufffd\ufffd\ufffdnew", 6, 3, 3) == "new"


def test_who_joins_in_the_middle_is_told_that_output_is_missing() -> None:
    first = JobLines().take(event("running", {"c0": "now"}, ("running", 30)))
    assert (first.output, first.missing, first.is_line) == ("now", True, True)
    from_start = JobLines().take(event("running", {"c0": "now"}, ("running", 3)))
    assert (from_start.output, from_start.missing) == ("now", False)
    jobs = JobLines()
    at_end = jobs.take(event("finished", {"c0": "all"}, ("finished", 3)))
    assert (at_end.output, at_end.missing) == ("", True)
    nothing = JobLines().take(event("finished", {"c0": ""}, ("finished", 0)))
    assert not nothing.missing


def test_an_id_that_is_used_again_is_another_job() -> None:
    jobs = JobLines()
    for _ in range(2):
        assert jobs.take({"process_id": "ID", "state": "pending"}).is_line
        assert jobs.take(event("running", {"c0": "out"}, ("running", 3))).output == "out"
