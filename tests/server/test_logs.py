"""rpc/logs read_logs: windows of time, pages, equal moments."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.classes.log_window import DEFAULT_WINDOW, FARTHEST, window
from tests.kit import QUIET, Client, Daemon
from tests.kit.state_file import append_events, line

NOW = 1_700_000_000_000


def test_windows_are_read_in_every_format() -> None:
    assert window("time_t_seconds", "", "", NOW) == (NOW - DEFAULT_WINDOW, NOW)
    assert window("time_t_seconds", "100", "200", NOW) == (100_000, 200_000)
    assert window("epoch_mseconds", "5000000000000", "", NOW)[0] == 5_000_000_000_000
    assert window("relative_second", "60", "10", NOW) == (NOW - 70_000, NOW - 10_000)
    assert window("relative_second", "-60", "", NOW) == (NOW - 60_000, NOW)
    assert window("relative_day", "1", "", NOW)[0] == NOW - 86_400_000
    assert window("relative_month", "1", "", NOW)[0] == NOW - 30 * 86_400_000
    ever = window("relative_month", "9" * 15, "", NOW)[0]
    assert ever == window("time_t_seconds", "-" + "9" * 15, "", NOW)[0] == -FARTHEST
    assert window("yyyy-MM-dd hh:mm:ss", "2023-11-14 22:13:20", "", NOW) == (NOW, NOW)
    assert window("d.M.yy 'at' H:mm", "14.11.23 at 22:13", "", NOW)[0] == NOW - 20_000


@given(st.text(), st.text(), st.text())
def test_any_text_gives_a_window_or_says_what_is_allowed(
    form: str, start: str, end: str
) -> None:
    try:
        first, last = window(form, start, end, NOW)
    except ValueError as error:
        assert "time" in str(error)
    else:
        # SQLite has 64 bits.
        assert abs(first) < 2**63 > abs(last)


def read(client: Client, **args: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.ask("rpc", "logs", {"action": "read_logs", **args})
    return found


def test_entries_of_one_moment_are_all_there_and_come_in_pages(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "state", QUIET)
    daemon.start().stop()
    now = time.time()
    moments = [now - 1000] * 20 + [now] * 5
    append_events(
        daemon.state_dir,
        [("life-preserver", line(number), at) for number, at in enumerate(moments)],
    )
    with daemon, daemon.client() as client:
        everything = read(client, logs="events-lifepreserver")
        texts = [entry["message"] for entry in everything["events-lifepreserver"].values()]
        assert texts == [f"m{n}" for n in range(25)]
        pages: list[str] = []
        after = ""
        while True:
            page = read(client, logs=["events-lifepreserver"], limit=10, after=after)
            pages += [e["message"] for e in page["events-lifepreserver"].values()]
            if "next" not in page:
                break
            after = page["next"]
        assert pages == texts
        recent = read(
            client, logs="events-lifepreserver", time_format="relative_second", start_time="500"
        )
        assert len(recent["events-lifepreserver"]) == 5
        assert read(client, logs="events-state") == {}


def test_jobs_are_in_the_logs_of_the_dispatcher(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.ask("events", "subscribe", "dispatcher")
        client.ask("rpc", "dispatcher", {"action": "run", "job": ["echo a", "echo b"]})
        client.until(lambda frame: frame["args"]["state"] == "finished")
        logs = read(client)
        assert {"dispatcher", "events-dispatcher", "hostinfo"} <= logs.keys()
        (details,) = logs["dispatcher"].values()
        assert '"echo a":"a\\n"' in details
        states = [entry["state"] for entry in logs["events-dispatcher"].values()]
        assert states == ["running", "finished"]


WRONG: list[dict[str, object]] = [
    {"logs": "weather"},
    {"logs": 7},
    {"logs": [[]]},
    {"logs": [{}]},
    {"limit": 0},
    {"limit": True},
    {"after": "x"},
    {"time_format": "yyyy", "start_time": "soon"},
    {"start_time": 7},
]


@pytest.mark.parametrize("args", WRONG)
def test_what_makes_no_sense_is_refused(daemon: Daemon, args: dict[str, object]) -> None:
    with daemon.client() as client:
        error = client.ask_raw("rpc", "logs", {"action": "read_logs", **args})
        assert error["args"]["code"] == 400
        assert "args." in error["args"]["detail"] or "unknown log" in error["args"]["detail"]


def test_what_a_clock_of_days_ago_said_is_found_among_all_else(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "state", QUIET)
    daemon.start().stop()
    now = round(time.time())
    days_ago = now - 10 * 86400
    others = [("system-state", b"{}", float(now))] * 120
    for number in range(3):
        append_events(daemon.state_dir, others)
        append_events(daemon.state_dir, [("life-preserver", line(number), float(days_ago))])
    append_events(daemon.state_dir, others)
    with daemon, daemon.client() as client:
        args = {"action": "read_logs", "logs": ["events-lifepreserver"]}
        window = {"start_time": str(days_ago - 5), "end_time": str(days_ago + 5)}
        found = client.ask("rpc", "logs", {**args, **window})["events-lifepreserver"]
        assert [entry["message"] for entry in found.values()] == ["m0", "m1", "m2"]
        # And where they were told.
        found = client.ask("rpc", "logs", {**args, "start_time": str(now - 5)})
        assert len(found["events-lifepreserver"]) == 3
        window = {"start_time": str(days_ago + 6), "end_time": str(now - 6)}
        assert client.ask("rpc", "logs", {**args, **window}) == {}
