"""What is made of fetch(1): every recording, cut anywhere, any bytes, and its file growing."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.reports import Report
from server.job_classes.fetch_report import FetchReport
from tests.kit.corpus import CORPUS

NAMES = sorted(path.stem for path in (CORPUS / "fetch").glob("*.json"))
RESULTS = ("succeeded", "failed", "killed", "timed-out", "lost")
SIZE = 3_000_000
DISC = "/scratch/vm/.iso/disc1.iso"
URL = "http://localhost:8088/"
# Of each recording: phase, percent, done, what else is told at its end, and problems.
FINAL: dict[str, tuple[str, int, int, dict[str, str], list[str]]] = {
    "bad-directory": (
        *("start", 0, 0, {}),
        ["fetch: /scratch/none/dir/: open(): No such file or directory"],
    ),
    "killed-term": ("fetch", 0, 0, {"filename": DISC}, []),
    "no-length-tty": (
        *("done", 100, 1),
        {"filename": DISC, "percent_done": "100%", "download_rate": "574 kBps"},
        [f"fetch: {URL}disc1.iso: size of remote file is not known"],
    ),
    "not-found": ("start", 0, 0, {}, [f"fetch: {URL}none.iso: Not Found"]),
    "piped": (
        *("done", 100, 1),
        {"filename": DISC, "percent_done": "100%", "download_rate": "580 kBps"},
        [],
    ),
    "refused": (
        *("start", 0, 0, {}),
        ["fetch: http://localhost:8090/disc1.iso: Connection refused"],
    ),
    "truncated": (
        *("fetch", 0, 0, {"filename": DISC, "download_rate": "573 kBps"}),
        [f"fetch: {DISC} appears to be truncated: 999424/3000000 bytes"],
    ),
    "tty": (
        *("done", 100, 1),
        {"filename": DISC, "percent_done": "100%", "download_rate": "578 kBps"},
        [],
    ),
}


def recording(name: str) -> tuple[list[bytes], str]:
    """The chunks of a recorded run, and the result that a job of it has."""
    found = json.loads((CORPUS / "fetch" / f"{name}.json").read_text())
    result = "killed" if found["signal"] else "failed" if found["rc"] else "succeeded"
    return [text.encode() for _, text in found["output"]], result


def report(size: int | None = SIZE, told: dict[str, Any] | None = None) -> Report:
    return FetchReport({} if size is None else {"size": size}, told or {})


def begun(name: str = DISC, size: int | None = SIZE) -> Report:
    """A download that has said its name, into a pipe."""
    fetching = report(size)
    fetching.output(0, f"{name:46}".encode())
    return fetching


def play(chunks: Iterable[bytes], result: str) -> dict[str, Any]:
    played = report()
    for chunk in chunks:
        played.output(0, chunk)
    return dict(played.ended(result))


def expected(name: str) -> dict[str, Any]:
    phase, percent, done, more, problems = FINAL[name]
    progress = {
        "phase": phase,
        "package": more.get("filename", ""),
        "percent": percent,
        "done": done,
        "total": 1,
    }
    return {"progress": progress, **({"problems": problems} if problems else {}), **more}


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_gives_these_fields_at_its_end(name: str) -> None:
    assert play(*recording(name)) == expected(name)


@pytest.mark.parametrize("name", NAMES)
def test_wherever_the_output_is_cut_the_end_is_the_same(name: str) -> None:
    chunks, result = recording(name)
    whole = b"".join(chunks)
    assert play([whole], result) == expected(name)
    assert play((bytes([byte]) for byte in whole), result) == expected(name)
    for cut in range(len(whole)):
        assert play([whole[:cut], whole[cut:]], result) == expected(name)


@pytest.mark.parametrize("name", NAMES)
def test_progress_never_falls_and_is_whole_only_by_success(name: str) -> None:
    chunks, result = recording(name)
    played = report()
    looks = [played.fields()]
    whole = b"".join(chunks)
    for number, byte in enumerate(whole):
        played.output(0, bytes([byte]))
        played.grown(number * SIZE // len(whole), float(number))
        looks.append(played.fields())
    assert all(look["progress"]["percent"] < 100 for look in looks)
    looks.append(played.ended(result))
    for before, after in itertools.pairwise(looks):
        assert before["progress"]["percent"] <= after["progress"]["percent"]
        assert before["progress"]["done"] <= after["progress"]["done"]
        assert percent(before) <= percent(after)
    assert (looks[-1]["progress"]["percent"] == 100) == (result == "succeeded")
    assert (looks[-1].get("percent_done") == "100%") == (result == "succeeded")


def percent(fields: Any) -> int:
    return int(fields.get("percent_done", "0%").removesuffix("%"))


def test_a_terminal_says_percent_and_rate_itself() -> None:
    played = report(None)
    seen: list[tuple[str | None, str | None]] = []
    for chunk in recording("tty")[0][:-1]:
        played.output(0, chunk)
        # What the file's size says is not needed then.
        played.grown(2_900_000, 1.0)
        told = played.fields()
        seen.append((told.get("percent_done"), told.get("download_rate")))
    assert seen == [
        ("0%", "0  Bps"),
        ("5%", "642 kBps"),
        ("25%", "578 kBps"),
        ("44%", "576 kBps"),
        ("64%", "579 kBps"),
        ("84%", "577 kBps"),
    ]


def test_the_name_is_known_once_its_column_is_full() -> None:
    fetching = report()
    for byte in f"{DISC:46}"[:-1]:
        fetching.output(0, byte.encode())
        assert fetching.watched is None
        assert "filename" not in fetching.fields()
    fetching.output(0, b" ")
    assert fetching.watched == DISC
    told = fetching.fields()
    assert told["filename"] == DISC
    assert (told["progress"]["phase"], told["progress"]["package"]) == ("fetch", DISC)


def test_a_long_name_is_whole_in_a_pipe_and_is_not_watched_where_it_is_cut() -> None:
    name = "/vm/.iso/FreeBSD 14.1-RELEASE-amd64-bootonly disc.iso"
    fetching = begun(name)
    assert fetching.watched == name
    fetching.output(0, b"            12 MB   3 MBps    05s\n")
    assert fetching.fields()["filename"] == name
    assert fetching.watched == name
    fetching = report()
    fetching.output(0, f"\r{name[:46]:46}  3% of 2929 kB  577 kBps".encode())
    assert fetching.watched is None
    assert fetching.fields()["filename"] == name[:46]


def test_only_an_absolute_path_is_watched() -> None:
    fetching = begun("disc1.iso")
    assert fetching.watched is None
    assert fetching.fields()["filename"] == "disc1.iso"
    assert begun("/vm/a\0b").watched is None
    assert begun("/vm/a\0b").fields()["filename"] == "/vm/a\\x00b"


def test_an_error_of_vm_bhyve_is_no_name() -> None:
    line = "/usr/local/sbin/vm: ERROR: unable to locate path for datastore 'x'"
    fetching = report()
    fetching.output(0, line.encode())
    assert fetching.watched is None
    fetching.output(0, b"\n")
    ended = fetching.ended("failed")
    assert ended["problems"] == [line]
    assert "filename" not in ended


def test_what_comes_before_the_name_is_passed_over() -> None:
    fetching = report()
    fetching.output(
        0, b"Fetching http://a/disc1.iso, which goes to the pool of the machines...\n"
    )
    assert "filename" not in fetching.fields()
    fetching.output(0, f"{DISC:46}".encode())
    assert fetching.fields()["filename"] == DISC


def test_percent_and_rate_come_of_how_the_file_grows() -> None:
    fetching = begun()
    seen: list[tuple[str | None, str | None, int]] = []
    for size, at in (
        *((0, 10.0), (150_000, 10.25), (300_000, 10.5), (870_000, 11.5), (871_000, 11.6)),
        *((2_999_999, 13.5), (3_000_000, 14.0), (9_000_000, 15.0)),
    ):
        fetching.grown(size, at)
        told = fetching.fields()
        now = told["progress"]["percent"]
        seen.append((told.get("percent_done"), told.get("download_rate"), now))
    assert seen == [
        ("0%", None, 0),
        ("5%", None, 5),
        ("10%", "585 kBps", 10),
        ("29%", "556 kBps", 29),
        ("29%", "556 kBps", 29),
        ("99%", "1040 kBps", 99),
        ("99%", "2  Bps", 99),
        ("99%", "5859 kBps", 99),
    ]
    fetching.output(0, b"        2929 kB  580 kBps    05s\n")
    fetching.grown(9_000_000, 20.0)
    assert fetching.fields()["download_rate"] == "580 kBps"


@pytest.mark.parametrize(
    ("per_second", "text"),
    [
        (0, "0  Bps"),
        (9_999, "9999  Bps"),
        (10_000, "9 kBps"),
        (10_238_976, "9999 kBps"),
        (10_240_000, "9 MBps"),
        (10**12, "931 GBps"),
        (10**18, "888 PBps"),
    ],
)
def test_a_rate_is_written_as_fetch_does(per_second: int, text: str) -> None:
    fetching = begun(size=None)
    for seconds in range(2):
        fetching.grown(seconds, float(seconds))
    fetching.grown(1 + per_second, 2.0)
    told = fetching.fields()
    assert told["download_rate"] == text
    assert "percent_done" not in told


def test_a_file_that_was_there_before_says_nothing() -> None:
    fetching = begun()
    for second in range(5):
        fetching.grown(SIZE, float(second))
    assert fetching.fields().keys() == {"progress", "filename"}
    assert fetching.fields()["progress"]["percent"] == 0


def test_a_file_that_shrinks_does_no_harm() -> None:
    fetching = begun()
    for size, at in ((0, 0.0), (SIZE // 2, 1.0), (10, 2.0), (10 + 1024 * 100, 3.0)):
        fetching.grown(size, at)
    told = fetching.fields()
    assert told["percent_done"] == "50%"
    assert told["download_rate"] == "100 kBps"


def test_a_report_goes_on_where_the_last_daemon_had_come_to() -> None:
    told = {"progress": {"percent": 60, "done": 0, "total": 1}, "percent_done": "60%"}
    fetching = report(told=told)
    fetching.output(0, f"{DISC:46}".encode())
    fetching.grown(300_000, 1.0)
    fetching.grown(600_000, 2.0)
    assert fetching.fields()["percent_done"] == "60%"
    assert fetching.fields()["progress"]["percent"] == 60
    fetching.grown(2_100_000, 3.0)
    assert fetching.fields()["percent_done"] == "70%"


@pytest.mark.parametrize("size", [0, -1, True, "3", None, 1.5])
def test_a_size_that_is_none_is_not_known(size: Any) -> None:
    fetching = FetchReport({"size": size}, {"percent_done": 3, "progress": []})
    fetching.output(0, f"{DISC:46}".encode())
    fetching.grown(0, 0.0)
    fetching.grown(100, 1.0)
    assert "percent_done" not in fetching.fields()


def test_what_is_kept_is_bounded_and_read_in_no_time() -> None:
    fetching = report()
    started = time.process_time()
    for _ in range(300):
        fetching.output(0, b" " * 5000 + b"\r")
        fetching.output(0, b"/" + b"        1 kB " * 400 + b"\n")
    fetching.output(0, b"/a" * 1_000_000)
    assert time.process_time() - started < 10
    assert len(fetching.watched or "") <= 1024
    for number in range(1000):
        fetching.output(0, b"\nfetch: %d \xff\x1b" % number + b"y" * 2000)
    ended = fetching.ended("failed")
    assert len(ended["problems"]) == 50
    assert max(map(len, ended["problems"])) == 500
    assert all(text.isprintable() for text in ended["problems"])


PIECES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            *(f"{DISC:46}".encode(), b"/vm/" + b"x" * 60, b"\r", b"\n", b"\r\n", b" " * 50),
            *(b"        2929 kB  580 kBps    05s\n", b" 42% of 2929 kB  577 kBps", b"999% of"),
            *(b"fetch: a: Not Found\n", b"vm: ERROR: b\n", b"        1 kB ?? Bps"),
        ]
    ),
)
GROWTH = st.tuples(st.integers(-5), st.floats())


@given(st.lists(st.tuples(st.integers(0, 1), PIECES) | GROWTH), st.sampled_from(RESULTS))
def test_any_bytes_and_sizes_give_fields_that_only_grow(
    said: list[tuple[int, bytes] | tuple[int, float]], result: str
) -> None:
    played = report()
    played.event(b"{")
    before = played.fields()
    for number, what in said:
        if isinstance(what, bytes):
            played.output(number, what)
        else:
            played.grown(number, what)
        after = played.fields()
        assert before["progress"]["percent"] <= after["progress"]["percent"] < 100
        assert percent(before) <= percent(after) < 100
        assert after.get("filename", "a").isprintable()
        watched = played.watched
        assert watched is None or watched.startswith("/")
        before = after
    ended = played.ended(result)
    json.dumps(ended)
    assert (ended["progress"]["percent"] == 100) == (result == "succeeded")


@given(st.lists(PIECES).map(b"".join), st.data())
def test_any_bytes_give_the_same_wherever_they_are_cut(
    whole: bytes, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    bounds = itertools.pairwise([0, *cuts, len(whole)])
    assert play((whole[a:b] for a, b in bounds), "failed") == play([whole], "failed")
