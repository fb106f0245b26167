"""`sysadmctl tail`: where it begins and ends, what it leaves out, and how it goes on."""

from __future__ import annotations

import json
import os
import re
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysadmd.ctl.tail_wanted import priority_of_word, since_of
from tests.kit import DEADLINE, Daemon, wait_for
from tests.kit.ctl import Ctl, lines

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def at(shared: Daemon) -> Ctl:
    """A daemon that has told of three jobs, the last of which failed."""
    ctl = Ctl(Path("/nonexistent"), "--state-dir", str(shared.state_dir))
    for id, script in (("one", "echo out 1"), ("two", "echo out 2"), ("bad", "exit 3")):
        ctl("run", "--id", f"tail-{id}", "--", "sh", "-c", script)
    return ctl


def told(ctl: Ctl, *words: str) -> list[tuple[str, str]]:
    """Of which jobs what was told."""
    found = lines(ctl("tail", *words, "--json"))
    return [(frame["args"]["process_id"], frame["args"]["state"]) for frame in found]


STATES = ("pending", "running", "finished")


def test_the_last_events_are_told_and_then_it_ends(at: Ctl) -> None:
    last = [("tail-bad", state) for state in STATES]
    assert told(at, "-n", "3", "--no-follow") == last
    assert told(at, "-n", "2", "--count", "2") == last[1:]
    assert told(at, "-n", "0", "--no-follow") == []
    assert told(at, "--no-follow")[-3:] == last


def test_events_are_chosen_by_job_priority_and_text(at: Ctl) -> None:
    one = [("tail-one", state) for state in STATES]
    ended = ("--since", "oldest", "--no-follow")
    assert set(told(at, "--job", "tail-one", *ended)) == set(one)
    assert set(told(at, "--job", "tail-o", *ended)) == set(one)
    assert set(told(at, "--priority", "warning", *ended)) >= {("tail-bad", "finished")}
    assert "succeeded" not in at("tail", "--priority", "3", *ended).stdout
    shown = at("tail", "--grep", "^  tail-.*out 2$", *ended)
    assert shown.stdout == "  tail-two| out 2\n"
    # The last of those that are chosen, however many others came behind.
    assert told(at, "--job", "tail-one", "-n", "2", "--no-follow") == one[1:]


def test_output_is_shown_once_under_its_job_or_not_at_all(at: Ctl) -> None:
    words = ("--job", "tail-one", "--since", "oldest", "--no-follow")
    shown = at("tail", *words).stdout
    assert shown.count("out 1\n") == 1
    assert "  tail-one| out 1\n" in shown
    assert "tail-one finished: succeeded after" in shown
    assert "| " not in at("tail", "--no-output", *words).stdout
    verbose = at("tail", "-v", *words).stdout
    assert "    1 of 1 succeeded after" in verbose
    assert "    cursor " in verbose


def test_who_comes_in_the_middle_is_told_where_the_rest_is(daemon: Daemon) -> None:
    ctl = Ctl(Path("/nonexistent"), "--state-dir", str(daemon.state_dir))
    ctl("run", "--id", "job", "--", "echo", "out")
    shown = ctl("tail", "-n", "1", "--no-follow").stdout
    assert "job finished: succeeded" in shown
    assert "(output before this is not shown: `sysadmctl log job`)" in shown


def test_on_a_narrow_terminal_nothing_is_cut(at: Ctl) -> None:
    words = ("tail", "--job", "tail-bad", "--since", "oldest", "--no-follow")
    wide = at.on_terminal(*words, NO_COLOR="1", COLUMNS="200")
    narrow = at.on_terminal(*words, NO_COLOR="1", COLUMNS="40")
    assert all(len(line) <= 40 for line in narrow.splitlines())
    assert re.match(r"-- \d{4}-\d\d-\d\d --\r\n\d\d:\d\d:\d\d jobs tail-bad pending", narrow)
    for shown in (wide, narrow):
        whole = " ".join(shown.split())
        assert "sh -c 'exit 3' exited with 3" in whole


def test_a_job_that_writes_for_long_is_one_line_and_its_output(daemon: Daemon) -> None:
    ctl = Ctl(Path("/nonexistent"), "--state-dir", str(daemon.state_dir))
    script = "for i in 1 2 3 4 5; do echo line $i; sleep 0.5; done; exit 7"
    ctl("run", "--id", "long", "--", "sh", "-c", script, "+", "true")
    shown = ctl("tail", "--since", "oldest", "--no-follow").stdout.splitlines()
    assert [line for line in shown if line.startswith("  ")] == [
        f"  long| line {n}" for n in range(1, 6)
    ]
    events = [line for line in shown if not line.startswith("  ")]
    assert len(events) == 3
    assert "long running 1 of 2: sh -c" in events[1]
    assert re.search(
        r"long finished: failed after .*; command 1 of 2 .* exited with 7", events[2]
    )


def test_it_ends_with_what_was_told_until_then(at: Ctl) -> None:
    frames = lines(at("tail", "--since", "oldest", "--no-follow", "--json"))
    moment = next(f["time"] for f in frames if f["args"]["process_id"] == "tail-two")
    until = lines(at("tail", "--until", moment, "--json"))
    assert until
    assert until == [frame for frame in frames if frame["time"] <= moment]
    since = lines(at("tail", "--since", moment, "--no-follow", "--json"))
    assert [f["cursor"] for f in since] == [f["cursor"] for f in frames if f["time"] >= moment]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--since", "1 huor ago"], "10 min ago"),
        (["--until", "nonsense"], "18:00"),
        (["--grep", "("], "--grep"),
        (["--priority", "high"], "critical"),
        (["--since", "oldest", "-n", "1"], "name one"),
        (["--job", "x", "system-state"], "dispatcher"),
    ],
)
def test_what_can_not_be_meant_is_said_before_a_server_is_asked(
    words: list[str], said: str
) -> None:
    done = Ctl(Path("/nonexistent"), "--url", "wss://127.0.0.1:1", "--token", "x")(
        "tail", *words
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr


def test_what_is_neither_time_nor_cursor_is_told_with_what_is_allowed(at: Ctl) -> None:
    done = at("tail", "--since", "tomorow")
    assert done.returncode == 1
    assert "10 min ago" in done.stderr
    assert done.stderr.count("tomorow") <= 2


def test_a_system_is_known_by_both_spellings_and_printed_by_one(at: Ctl) -> None:
    for name in ("life_preserver", "life-preserver"):
        assert at("tail", name, "--no-follow").returncode == 0
    assert "'life-preserver'" in at("tail", "life").stderr


def test_the_place_is_kept_and_gone_on_from(at: Ctl, tmp_path: Path) -> None:
    place = tmp_path / "place"
    words = ("--cursor-file", str(place), "--since", "oldest")
    first = lines(at("tail", *words, "--count", "2", "--json"))
    assert place.read_text().strip() == first[-1]["cursor"]
    rest = lines(at("tail", *words, "--no-follow", "--json"))
    assert rest[0]["prev"] == first[-1]["cursor"]
    assert place.read_text().strip() == rest[-1]["cursor"]
    # What is left out moves it, too.
    place.write_text(first[-1]["cursor"])
    assert told(at, *words, "--job", "nobody", "--no-follow") == []
    assert place.read_text().strip() == rest[-1]["cursor"]


def test_a_reader_that_is_killed_loses_nothing(daemon: Daemon, tmp_path: Path) -> None:
    ctl = Ctl(Path("/nonexistent"), "--state-dir", str(daemon.state_dir))
    place = tmp_path / "place"
    words = ("tail", "--cursor-file", str(place), "--since", "oldest", "--json")
    ctl("run", "--id", "first", "--", "true")
    with ctl.started(*words) as tail:
        wait_for(place.exists, "the place")
        tail.send_signal(signal.SIGKILL)
        output, _ = tail.communicate(timeout=DEADLINE)
    seen = [json.loads(line)["cursor"] for line in output.splitlines()]
    assert place.read_text().strip() in seen
    ctl("run", "--id", "second", "--", "true")
    rest = [frame["cursor"] for frame in lines(ctl(*words, "--no-follow"))]
    everything = lines(ctl("tail", "--since", "oldest", "--no-follow", "--json"))
    assert {*seen, *rest} == {frame["cursor"] for frame in everything}


def test_a_place_that_makes_no_sense_names_its_file(at: Ctl, tmp_path: Path) -> None:
    place = tmp_path / "place"
    for content in (b"", b"two words\n", b"\xff\xfe"):
        place.write_bytes(content)
        done = at("tail", "--cursor-file", str(place))
        assert done.returncode == 2, done.stderr
        assert str(place) in done.stderr
        assert place.read_bytes() == content
    done = at("tail", "--cursor-file", str(tmp_path))
    assert done.returncode == 2
    # Nobody writes to it, and a device would be replaced.
    os.mkfifo(pipe := tmp_path / "pipe")
    for other in (str(pipe), "/dev/zero"):
        done = at("tail", "--cursor-file", other)
        assert done.returncode == 2
        assert f"{other} is no regular file" in done.stderr
    place.write_text("nonsense\n")
    done = at("tail", "--cursor-file", str(place))
    assert done.returncode == 1
    assert str(place) in done.stderr


def test_a_token_that_is_revoked_is_said_once(daemon: Daemon, tmp_path: Path) -> None:
    ctl = Ctl(Path("/nonexistent"), "--url", daemon.url)
    pem = str(daemon.state_dir / "tls" / "certificate.pem")
    with daemon.client() as client:
        said = client.ask("rpc", "tokens", {"action": "add", "name": "t", "role": "read"})
        token = str(said["token"])
        words = ("tail", "-n", "0", "--token", token, "--cafile", pem)
        with ctl.started(*words) as tail:
            listed = {"action": "list"}
            wait_for(
                lambda: any(
                    peer["systems"] for peer in client.ask("rpc", "clients", listed)["clients"]
                ),
                "the subscription",
            )
            client.ask("rpc", "tokens", {"action": "revoke", "name": "t"})
            _, errors = tail.communicate(timeout=DEADLINE)
    assert tail.returncode == 77
    assert len(errors.splitlines()) == 1
    assert "log in again" in errors


@given(text=st.text(max_size=20))
def test_where_to_begin_is_known_or_said(text: str) -> None:
    try:
        found = since_of(text, NOW)
    except ValueError as error:
        assert "10 min ago" in str(error)
    else:
        assert isinstance(found, float) or found


def test_times_and_cursors_are_told_apart() -> None:
    assert since_of("10 min ago", NOW) == 600
    assert since_of("oldest", NOW) == "oldest"
    assert since_of("today", NOW) == "2026-11-30T00:00:00+00:00"
    assert since_of("8a:1:x", NOW) == "8a:1:x"
    assert [priority_of_word(word) for word in ("0", "10", "Warning", "urgent")] == [
        0,
        10,
        3,
        9,
    ]
