"""How far a job is: what is made of what a server says, and the line on a terminal."""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from sysadmd.client import EventFrame
from sysadmd.ctl.bar import Bar, HowFar, drawn, rows
from sysadmd.ctl.event_text import describe
from tests.kit.ctl import Ctl, lines

Play = Callable[
    [Callable[[str, dict[str, Any]], Any]], tuple[list[str], list[tuple[str, dict[str, Any]]]]
]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FAR = st.fixed_dictionaries(
    {"percent": st.integers() | st.floats() | JSON},
    optional=dict.fromkeys(("phase", "package", "done", "total"), JSON),
)
# Standard error on the terminal, too.
BOTH = "import os; os.dup2(1, 2); "


@given(
    fields=JSON | st.fixed_dictionaries({"progress": FAR | JSON}), columns=st.integers(0, 200)
)
def test_whatever_is_said_is_progress_that_fits_in_a_line_or_none(
    fields: Any, columns: int
) -> None:
    far = HowFar.read(fields)
    if far is not None:
        assert 0 <= far.percent <= 100
        line = "".join(drawn(far, columns))
        assert cell_len(line) <= columns
        assert line.isprintable()
        assert str(far).isprintable()


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (79, "[########------------]  42 %  fetch bigdata  2/5"),
        (45, "[########------------]  42 %  fetch bigdata"),
        (43, " 42 %  fetch bigdata  2/5"),
        (9, " 42 %  fe"),
        (0, ""),
    ],
)
def test_the_line_is_as_wide_as_there_is_room(columns: int, line: str) -> None:
    far = HowFar(percent=42, phase="fetch", package="bigdata", done=2, total=5)
    assert "".join(drawn(far, columns)) == line


def progress(percent: int, **more: object) -> dict[str, Any]:
    """The fields of a job that is so far."""
    said = {"phase": "fetch", "package": "bigdata", "done": 2, "total": 5, **more}
    return {"progress": {"percent": percent, **said}}


def staged(texts: list[str], fields: list[dict[str, Any]]) -> Callable[..., Any]:
    """A job of a class: a look at it sees the next fields, and then there is the next text.

    It has ended when it was seen with the last of them.
    """
    looks = itertools.count()
    seen = 0

    def answer(_to: str, args: dict[str, Any]) -> Any:
        nonlocal seen
        if args["action"] == "show":
            seen = min(next(looks), len(fields) - 1)
            state = "finished" if seen == len(fields) - 1 else "running"
            job = {"state": state, "time_created": "t", "commands": [{"return_code": "0"}]}
            told = {"event_system": "sysadm/pkg", "fields": fields[seen], "id": "job"}
            return {"job": {**job, **told, "result": "succeeded"}}
        given = int(args["offset"])
        text = texts[given] if given <= seen and given < len(texts) else ""
        complete = given + bool(text) >= len(texts)
        return {"text": text, "next": given + bool(text), "offset": given, "complete": complete}

    return answer


def on_terminal(ctl: Ctl, columns: int, *words: str, **more: str) -> str:
    """All that is written to a terminal of that width, on both streams."""
    size = struct.pack("HHHH", 24, columns, 0, 0)
    wide = f"import fcntl, termios; fcntl.ioctl(1, termios.TIOCSWINSZ, {size!r}); "
    where, _, written = ctl.on_terminal(*words, before=BOTH + wide, **more).partition("\r\n")
    assert where.startswith("sysadmctl: on 127.0.0.1:")
    return written


def screen(written: str) -> list[str]:
    """The lines that stand there in the end."""
    lines: list[list[str]] = [[]]
    column, at = 0, 0
    for part in re.findall(r"\x1b\[A|.", written, re.DOTALL):
        if part == "\x1b[A":
            at -= 1
        elif part == "\r":
            column = 0
        elif part == "\n":
            at, column = at + 1, 0
            if at == len(lines):
                lines.append([])
        else:
            lines[at][column : column + 1] = [part]
            column += 1
    return ["".join(line).rstrip() for line in lines]


def test_a_bar_is_drawn_below_the_output_and_is_gone_in_the_end(ctl: Ctl, play: Play) -> None:
    fields = [progress(10), progress(42), progress(50, package="\x1b[2J\x9b"), {}]
    where, _ = play(staged(["one\n", "two\n", "three\n", "four\n"], fields))
    written = on_terminal(ctl, 80, *where, "log", "--follow", "job", NO_COLOR="1")
    assert "\r[##------------------]  10 %  fetch bigdata  2/5" in written
    assert "\r[########------------]  42 %  fetch bigdata  2/5" in written
    assert r"50 %  fetch \x1b[2J\x9b" in written
    assert "\x1b" not in written
    assert "\x9b" not in written
    assert screen(written) == ["one", "two", "three", "four", ""]


def test_a_line_that_has_not_ended_waits_for_its_end_while_there_is_a_bar(
    ctl: Ctl, play: Play
) -> None:
    fields = [progress(10), progress(20), progress(30), progress(40)]
    where, _ = play(staged(["ha", "lf", " done\n", "end"], fields))
    written = on_terminal(ctl, 80, *where, "log", "--follow", "job", NO_COLOR="1")
    assert screen(written) == ["half done", "end"]
    assert "30 %" in written
    # pkg draws its own bars, of dots, for minutes: progress goes on meanwhile.
    assert "20 %" in written


def test_colour_is_for_the_bar_alone_and_a_narrow_terminal_has_none(
    ctl: Ctl, play: Play
) -> None:
    where, _ = play(staged(["x\n"], [progress(50), {}]))
    written = on_terminal(ctl, 80, *where, "log", "--follow", "job")
    assert "\x1b[36m[##########----------]\x1b[0m  50 %" in written
    where, _ = play(staged(["x\n"], [progress(50), {}]))
    written = on_terminal(ctl, 20, *where, "log", "--follow", "job")
    assert "\r 50 %  fetch bigdat" in written
    assert "[#" not in written
    assert screen(written) == ["x", ""]


def test_there_is_no_bar_where_one_stream_is_no_terminal(ctl: Ctl, play: Play) -> None:
    where, asked = play(staged(["x\n"], [progress(50), {}]))
    assert ctl.on_terminal(*where, "log", "--follow", "job") == "x\r\n"
    where, asked = play(staged(["x\n"], [progress(50)]))
    done = ctl(*where, "log", "--follow", "--command", "0", "job")
    assert (done.stdout, done.stderr) == ("x\n", "")
    # Who shows no progress does not ask for it.
    assert {args["action"] for _, args in asked} == {"log"}


def test_progress_is_a_line_of_json_when_it_has_changed(ctl: Ctl, play: Play) -> None:
    fields = [progress(10), progress(10), progress(42), {"progress": 7}, {}]
    where, _ = play(staged(["a", "b", "c", "d", "e"], fields))
    told = lines(ctl(*where, "log", "--follow", "job", "--json"))
    assert [line["progress"]["percent"] for line in told if "progress" in line] == [10, 42]
    assert "".join(line.get("text", "") for line in told) == "abcde"


def test_a_job_that_can_not_be_shown_is_followed_without_progress(ctl: Ctl, play: Play) -> None:
    offsets = itertools.count()

    def answer(_to: str, args: dict[str, Any]) -> Any:
        if args["action"] == "show":
            return ("error", {"code": 404, "message": "Not Found"})
        given = next(offsets)
        text = "x" if given == args["offset"] == 0 else ""
        return {"text": text, "next": 1, "offset": 0, "complete": given > 2}

    where, asked = play(answer)
    told = lines(ctl(*where, "log", "--follow", "--command", "0", "job", "--json"))
    assert [line["text"] for line in told] == ["x"]
    assert [args["action"] for _, args in asked].count("show") == 1


def test_a_reply_that_is_strange_ends_no_bar_with_a_traceback(ctl: Ctl, play: Play) -> None:
    jobs: list[Any] = [None, [], {"fields": "x"}, {"event_system": 3, "fields": [1]}]
    for job in jobs:

        def answer(_to: str, args: dict[str, Any], job: Any = job) -> Any:
            if args["action"] == "show":
                return {"job": job}
            return {"text": "x\n", "next": 1, "offset": 0, "complete": args["offset"] == 1}

        where, _ = play(answer)
        words = ("log", "--follow", "--command", "0", "job")
        assert screen(on_terminal(ctl, 80, *where, *words, NO_COLOR="1")) == ["x", "x", ""]


def test_tail_tells_how_far_a_job_of_a_class_is_and_how_many_problems_it_had() -> None:
    def told(**args: object) -> str:
        details = {"process_id": "ID", "current_cmd": "pkg upgrade -y", "result": "failed"}
        frame = {"event_system": "sysadm/pkg", "process_details": details, **args}
        return describe(EventFrame("dispatcher", frame, "c", "t")).text

    assert told(state="running", process_id="ID", **progress(42)) == (
        "ID running: pkg upgrade -y (42 % fetch bigdata)"
    )
    assert told(state="running", progress=3) == "ID running: pkg upgrade -y"
    assert told(state="finished", problems=["a", "b"]) == "ID finished: failed, 2 problems"
    assert told(state="finished", problems=["a"]) == "ID finished: failed, 1 problem"
    strange: list[Any] = [None, 3, "text", [], {}]
    for problems in strange:
        assert told(state="finished", problems=problems) == "ID finished: failed"


def test_several_jobs_have_a_line_each_and_of_many_the_others_are_counted() -> None:
    jobs = {f"job{n}": HowFar(percent=n) for n in range(7)}
    lines = ["".join(row) for row in rows(jobs, 79, 4)]
    assert lines[1] == "[--------------------]   1 %  job1"
    assert [line.split()[-1] for line in lines[:4]] == ["job0", "job1", "job2", "job3"]
    assert lines[4:] == ["and 3 more"]
    assert [cell_len(line) for line in ("".join(row) for row in rows(jobs, 5, 1))] == [5, 5]


def test_several_lines_are_drawn_over_themselves_and_leave_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bar, "possible", staticmethod(lambda: True))
    bar = Bar(lambda text: text)
    bar.show(HowFar(percent=10), "one")
    bar.show(HowFar(percent=20), "two")
    bar.show(HowFar(percent=30), "one")
    drawn_both = capfd.readouterr().err
    bar.show(None, "one")
    bar.show(None, "two")
    assert drawn_both.rpartition("\x1b[A")[2].count("\n") == 1
    assert [line.rstrip() for line in screen(drawn_both)][-2:] == [
        "[######--------------]  30 %  one",
        "[####----------------]  20 %  two",
    ]
    assert not any(screen(drawn_both + capfd.readouterr().err))
