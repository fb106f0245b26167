"""Where a subscription begins: at a time, at the last events; and when it has caught up."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.dialects.values import parse_rfc3339, rfc3339
from sysadmd.events import SYSTEMS
from tests.kit import QUIET, Client, Daemon
from tests.kit.state_file import append_events, line

ALL = list(SYSTEMS)
# When the first of the stored events was told, and how many there are; s since 1970.
BEGIN = 1_790_000_000
COUNT = 300
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def subscribe(client: Client, systems: list[str], **more: Any) -> Any:
    return client.ask("events", "subscribe", {"systems": systems, **more})


def refusal(client: Client, **more: Any) -> tuple[int, str]:
    """Code and detail."""
    args = {"systems": ALL, **more}
    error = client.ask_raw("events", "subscribe", args)["args"]
    return error["code"], error["detail"]


def moment(second: float) -> str:
    """So long after the first stored event."""
    return rfc3339(round((BEGIN + second) * 1000))


def is_mark(frame: dict[str, Any]) -> bool:
    return frame["name"] == "heartbeat" and frame["args"].get("caught_up") is True


def until_caught_up(client: Client, reply: dict[str, Any]) -> list[dict[str, Any]]:
    """The events up to the frame that says so; the chain is whole up to there."""
    *frames, mark = client.until(is_mark)
    prev = reply["prev"]
    for frame in frames:
        if frame["name"] != "snapshot":
            assert frame["prev"] == prev, frame
            prev = frame["cursor"]
    assert mark["prev"] == mark["args"]["prev"] == prev
    assert mark["cursor"] == mark["args"]["cursor"]
    return frames


def numbers(frames: list[dict[str, Any]]) -> list[int]:
    """Which of the stored events these are."""
    return [round(datetime.fromisoformat(f["time"]).timestamp() - BEGIN) for f in frames]


@pytest.fixture
def stored(tmp_path: Path) -> Daemon:
    """A daemon that is not running, with an event a second in its journal: of life-preserver,
    and every third of system-state."""
    daemon = Daemon(tmp_path / "state", QUIET)
    daemon.start().stop()
    state = b'{"hostname":"h","hostnamechanged":"true","zpools":{},"priority":"3/Warning"}'
    append_events(
        daemon.state_dir,
        (
            ("system-state", state, BEGIN + number)
            if number % 3 == 2
            else ("life-preserver", line(number), BEGIN + number)
            for number in range(COUNT)
        ),
    )
    return daemon


def test_the_first_event_told_is_the_first_at_or_after_a_time(stored: Daemon) -> None:
    with stored, stored.client() as client:
        for since, systems, first in (
            (moment(100), ALL, 100),
            (moment(99.001), ALL, 100),
            (moment(100).replace("000Z", "0000001Z"), ALL, 100),
            (moment(99.001).replace("Z", "0001+00:00"), ALL, 100),
            (moment(100), ["system-state"], 101),
            (moment(0), ALL, 0),
            # Before what is kept.
            ("1999-12-31T23:59:59Z", ALL, 0),
            ("0001-01-01T00:00:00+14:00", ALL, 0),
        ):
            reply = subscribe(client, systems, since=since, caught_up=True)
            told = numbers(until_caught_up(client, reply))
            every = (n for n in range(COUNT) if systems == ALL or n % 3 == 2)
            assert told == [n for n in every if n >= first], since


def test_a_time_may_be_written_with_any_offset(stored: Daemon) -> None:
    with stored, stored.client() as client:
        utc = datetime.fromtimestamp(BEGIN + 290, UTC)
        for offset in (timedelta(hours=5, minutes=30), -timedelta(hours=8), timedelta()):
            since = utc.astimezone(timezone(offset)).isoformat()
            reply = subscribe(client, ALL, since=since, caught_up=True)
            assert numbers(until_caught_up(client, reply)) == list(range(290, COUNT))


def test_a_number_is_so_many_seconds_ago_by_the_servers_clock(stored: Daemon) -> None:
    with stored, stored.client() as client:
        for first in (0, 17, COUNT - 1):
            # The events are a second apart.
            ago = time.time() - (BEGIN + first - 0.5)
            reply = subscribe(client, ALL, since=ago, caught_up=True)
            assert numbers(until_caught_up(client, reply)) == list(range(first, COUNT))


def test_of_a_time_to_come_nothing_is_told_but_what_is_new(stored: Daemon) -> None:
    with stored, stored.client() as client:
        reply = subscribe(client, ALL, since="9999-12-31T23:59:59Z", caught_up=True)
        assert until_caught_up(client, reply) == []
        client.ask("rpc", "dispatcher", {"action": "run", "job": []})
        assert client.event()["prev"] == reply["prev"]


@pytest.mark.parametrize("systems", [ALL, ["system-state"], ["dispatcher", "system-state"]])
@pytest.mark.parametrize("last", [1, 7, 100, 10_000])
def test_the_last_events_are_those_of_the_systems_that_are_asked_for(
    stored: Daemon, systems: list[str], last: int
) -> None:
    with stored, stored.client() as client:
        reply = subscribe(client, systems, last=last, caught_up=True)
        told = numbers(until_caught_up(client, reply))
        every = [n for n in range(COUNT) if systems == ALL or n % 3 == 2]
        assert told == every[-last:]


def test_with_a_snapshot_the_last_events_come_behind_it(stored: Daemon) -> None:
    with stored, stored.client() as client:
        reply = subscribe(client, ALL, last=3, snapshot=True, caught_up=True)
        snapshot, *frames = until_caught_up(client, reply)
        assert snapshot["name"] == "snapshot"
        assert numbers(frames) == [COUNT - 3, COUNT - 2, COUNT - 1]


@pytest.mark.parametrize("since", ["now", "oldest", None])
def test_who_has_nothing_to_catch_up_with_is_told_at_once(daemon: Daemon, since: Any) -> None:
    with daemon.client() as client:
        more = {} if since is None else {"since": since}
        for _ in range(2):
            reply = subscribe(client, ALL, caught_up=True, **more)
            assert until_caught_up(client, reply) == []
        # Who has not asked is told nothing of it.
        subscribe(client, ALL, since="now")
        client.ask("rpc", "dispatcher", {"action": "run", "job": []})
        assert client.event()["args"]["state"] == "pending"


def test_what_was_acknowledged_before_is_told_before_one_has_caught_up(daemon: Daemon) -> None:
    with daemon.client() as client:
        for number in range(50):
            client.ask("rpc", "dispatcher", {"action": "run", f"job {number}": []})
            reply = subscribe(client, ["dispatcher"], last=2, caught_up=True)
            # What came before the reply is of the subscription before.
            client.events.clear()
            told = [frame["args"] for frame in until_caught_up(client, reply)]
            assert [(args["process_id"], args["state"]) for args in told] == [
                (f"job {number}", state) for state in ("pending", "finished")
            ]


def test_a_reader_that_subscribes_to_more_meanwhile_is_told_once(stored: Daemon) -> None:
    with stored, stored.client() as client:
        subscribe(client, ["system-state"], since="oldest", caught_up=True)
        subscribe(client, ["life-preserver"])
        subscribe(client, ["dispatcher"], caught_up=True)
        client.ask("rpc", "dispatcher", {"action": "run", "job": []})
        frames = client.until(lambda frame: frame["args"].get("state") == "finished")
        # The first may have caught up before the last request came: that is another one.
        assert 1 <= sum(map(is_mark, frames)) <= 2


@pytest.mark.parametrize(
    "since",
    [
        *("yesterday", "1 hour ago", "2026-11-24", "2026-11-24T18:00:02", "", "NOW"),
        *("2026-02-30T00:00:00Z", "2026-11-24T25:00:00Z", "٢٠٢٦-11-24T18:00:02Z"),
    ],
)
def test_what_is_neither_cursor_nor_time_is_refused_with_what_may_be_said(
    stored: Daemon, since: str
) -> None:
    with stored, stored.client() as client:
        code, detail = refusal(client, since=since)
        assert code == 400
        for allowed in ("since", "cursor", "2026-11-24T18:00:02Z", '"oldest"', '"now"'):
            assert allowed in detail
        code, other = refusal(client, since=[7])
        assert code == 400
        assert '"oldest"' in other


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"since": True}, "a number of seconds ago"),
        ({"since": -1}, "a number of seconds ago"),
        ({"since": 1e12}, "a number of seconds ago"),
        ({"last": 0}, "args.last must be a whole number from 1 to 10000"),
        ({"last": 10_001}, "args.last must be a whole number from 1 to 10000"),
        ({"last": "5"}, "args.last must be a whole number from 1 to 10000"),
        ({"last": True}, "args.last must be a whole number from 1 to 10000"),
        ({"last": 5, "since": "now"}, "name one of them"),
        ({"caught_up": 1}, "args.caught_up must be true or false"),
        ({"caught_up": None}, "args.caught_up must be true or false"),
    ],
)
def test_what_is_wrong_with_the_others_is_said(
    daemon: Daemon, wrong: dict[str, Any], said: str
) -> None:
    with daemon.client() as client:
        code, detail = refusal(client, **wrong)
        assert code == 400
        assert said in detail
        listed = client.ask("rpc", "clients", {"action": "list"})["clients"]
        assert listed[0]["systems"] == []


# Times as text.


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_a_time_that_is_told_can_be_asked_for(ms: int) -> None:
    assert parse_rfc3339(rfc3339(ms)) == ms


@given(
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])),
    st.sampled_from(["T", "t", " "]),
)
def test_a_time_between_two_milliseconds_is_the_later_one(at: datetime, between: str) -> None:
    found = parse_rfc3339(at.isoformat(between))
    assert found is not None
    assert timedelta() <= EPOCH + timedelta(milliseconds=found) - at < timedelta(milliseconds=1)


@given(st.text() | st.from_regex(r"[0-9:TZ.+ -]*"))
def test_any_other_text_is_no_time(text: str) -> None:
    found = parse_rfc3339(text)
    assert found is None or text[:4].isdigit()


@given(ms=st.integers())
def test_any_number_is_told_as_a_time(ms: int) -> None:
    # A job may give its log any time that its file system takes.
    found = parse_rfc3339(rfc3339(ms))
    assert found is not None
    assert found == ms or (abs(found) < abs(ms) and rfc3339(ms)[:4] in ("0001", "9999"))
