"""Readings of pools: what is news between two of them, and how much it weighs."""

import contextlib
import sqlite3
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.pools import DEVICES as DEVICE_KEYS
from collectors.pools import VDEV_LIMIT, combine, compare, highest, priority
from collectors.system_state import SCHEMA, read, write
from collectors.zpool_output import COLUMNS, Detail
from sysadmd.events import format_priority

WELL = dict.fromkeys(COLUMNS, "-") | {"health": "ONLINE", "capacity": "10%"}
DISK = {"name": "d0", "state": "ONLINE", "read": "0", "write": "0", "cksum": "62"}
SCRUB = {"function": "scrub", "state": "finished", "ended": "Tue Nov 24", "errors": 0}


def pool(
    health: str = "ONLINE",
    capacity: str = "10%",
    vdevs: tuple[dict[str, str], ...] = (),
    scan: dict[str, Any] | None = None,
) -> dict[str, Any]:
    columns = {**WELL, "health": health, "capacity": capacity}
    return combine({"tank": columns}, {"tank": Detail(vdevs, scan)}, 90)["tank"]


@pytest.mark.parametrize(
    ("health", "capacity", "number"),
    [
        *[("ONLINE", "0%", 0), ("ONLINE", "90%", 0), ("ONLINE", "91%", 6), ("ONLINE", "-", 0)],
        *[("DEGRADED", "5%", 9), ("SUSPENDED", "95%", 9), ("FAULTED", "-", 9)],
        ("SOMETHING", "5%", 9),
    ],
)
def test_a_pool_has_the_documented_priority(health: str, capacity: str, number: int) -> None:
    assert priority({"health": health, "capacity": capacity}, 90) == number


def test_a_healthy_machine_is_no_news_at_the_very_first_look() -> None:
    assert not compare(None, {}).told
    assert not compare(None, {"tank": pool(scan=SCRUB)}).told


@pytest.mark.parametrize(
    ("first", "number"),
    [
        (pool("DEGRADED"), 9),
        (pool(capacity="95%"), 6),
        (pool(vdevs=(DISK,)), 6),
        (pool(scan={**SCRUB, "errors": 27}), 6),
    ],
)
def test_what_is_not_well_is_told_at_the_very_first_look(
    first: dict[str, Any], number: int
) -> None:
    news = compare(None, {"a": pool(), "tank": first})
    assert (news.told, news.priority) == (True, number)


SICK = {**DISK, "cksum": "0", "state": "OFFLINE"}


@pytest.mark.parametrize(
    ("before", "after", "number"),
    [
        (pool(), pool("DEGRADED"), 9),
        (pool("DEGRADED"), pool(), 0),
        (pool("DEGRADED"), pool("FAULTED"), 9),
        (pool(capacity="90%"), pool(capacity="91%"), 6),
        (pool(capacity="91%"), pool(capacity="90%"), 0),
        (pool(), pool(vdevs=(DISK,)), 6),
        (pool(vdevs=(DISK,)), pool(vdevs=({**DISK, "cksum": "63"},)), 6),
        (pool(vdevs=(DISK,)), pool(), 0),
        # A second disk fails in a pool that is degraded already.
        (
            pool("DEGRADED", vdevs=(SICK,)),
            pool("DEGRADED", vdevs=(SICK, {**SICK, "name": "d1"})),
            9,
        ),
        (pool(scan=SCRUB), pool(scan={**SCRUB, "errors": 3}), 6),
    ],
)
def test_a_change_for_worse_or_better_is_told(
    before: dict[str, Any], after: dict[str, Any], number: int
) -> None:
    news = compare({"tank": before}, {"tank": after})
    assert (news.told, news.priority, news.vanished) == (True, number, ())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (pool(), pool(capacity="11%")),
        (pool(), pool(scan=SCRUB)),
        (pool(scan={"function": "scrub", "state": "running"}), pool(scan=SCRUB)),
        (pool(scan={**SCRUB, "errors": 3}), pool(scan={**SCRUB, "errors": 3})),
        (pool(vdevs=(DISK,)), pool(vdevs=({**DISK, "note": "12K resilvered"},))),
    ],
)
def test_what_changes_all_the_time_is_no_news(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    assert not compare({"tank": before}, {"tank": after}).told


def test_pools_that_come_and_go_are_told() -> None:
    news = compare({"a": pool(), "b": pool()}, {"b": pool(), "c": pool()})
    assert (news.told, news.priority, news.vanished) == (True, 6, ("a",))
    news = compare({}, {"a": pool()})
    assert (news.told, news.priority, news.vanished) == (True, 0, ())


DEVICES = [{**DISK, "name": f"d{n}"} for n in range(3 * VDEV_LIMIT)]


def test_a_change_among_devices_that_are_not_told_is_news() -> None:
    before = pool(vdevs=tuple(DEVICES))
    assert len(before["vdevs"]) == VDEV_LIMIT
    assert before["vdevs_left_out"] == 2 * VDEV_LIMIT
    last = {**DEVICES[-1], "cksum": "63"}
    after = pool(vdevs=(*DEVICES[:-1], last))
    assert {**after, "vdevs_digest": ""} == {**before, "vdevs_digest": ""}
    news = compare({"tank": before}, {"tank": after})
    assert (news.told, news.priority) == (True, 6)
    # Another order, or another note, is none.
    noted = [{**vdev, "note": "resilvering"} for vdev in DEVICES[VDEV_LIMIT:]]
    other = pool(vdevs=(*DEVICES[:VDEV_LIMIT], *noted[::-1]))
    assert not compare({"tank": before}, {"tank": other}).told


def beyond(detail: Detail | None, known: dict[str, Any]) -> dict[str, Any]:
    """What is told of a pool when the next status says this."""
    details = None if detail is None else {"tank": detail}
    found = combine({"tank": WELL}, details, 90, {"tank": known})["tank"]
    return {key: value for key, value in found.items() if key not in COLUMNS}


SICK_POOL = combine({"tank": WELL}, {"tank": Detail((DISK, SICK), SCRUB, 2)}, 90)["tank"]


def test_data_errors_are_news_and_weigh_whatever_else_is_well() -> None:
    damaged = combine({"tank": WELL}, {"tank": Detail(data_errors=2)}, 90)["tank"]
    assert (damaged["data_errors"], damaged["priority"]) == (2, 6)
    said = combine({"tank": WELL}, {"tank": Detail(data_errors="Permanent errors")}, 90)
    for before, after in ((pool(), damaged), (damaged, said["tank"])):
        news = compare({"tank": before}, {"tank": after})
        assert (news.told, news.priority) == (True, 6)
    assert compare({"tank": damaged}, {"tank": pool()}).told
    assert compare(None, {"tank": damaged}).told


def test_without_an_answer_of_status_what_it_said_stays() -> None:
    known = {key: value for key, value in SICK_POOL.items() if key not in COLUMNS}
    assert beyond(None, SICK_POOL) == known
    # A new pool has nothing that could.
    assert combine({"b": WELL}, None, 90, {"tank": SICK_POOL})["b"] == {**WELL, "priority": 0}


def test_of_a_pool_that_status_leaves_out_what_is_known_stays() -> None:
    found = combine({"tank": WELL}, {"other": Detail()}, 90, {"tank": SICK_POOL})
    assert found["tank"]["vdevs"] == SICK_POOL["vdevs"]
    # As where all pools are healthy.
    assert "vdevs" not in combine({"tank": WELL}, {}, 90, {"tank": SICK_POOL})["tank"]


@pytest.mark.parametrize(
    ("state", "health", "weight"),
    [("SUSPENDED", "SUSPENDED", 9), ("ONLINE", "ONLINE", 0), (None, "ONLINE", 0)],
)
def test_the_status_may_know_worse_than_the_list(
    state: str | None, health: str, weight: int
) -> None:
    found = combine({"tank": WELL}, {"tank": Detail(state=state)}, 90)["tank"]
    assert (found["health"], found["priority"]) == (health, weight)


@pytest.mark.parametrize("cut", [True, False])
def test_where_the_end_is_missing_data_errors_stay_as_they_were_known(cut: bool) -> None:
    known = combine({"tank": WELL}, {"tank": Detail(data_errors=2)}, 90)
    found = combine({"tank": WELL}, {"tank": Detail(cut=cut)}, 90, known)["tank"]
    assert found.get("data_errors") == (2 if cut else None)


def test_devices_that_cannot_be_read_stay_as_they_were_known() -> None:
    # None of them: all that is known; some of them: those of which nothing is said.
    many = pool(vdevs=tuple(DEVICES))
    for known in (SICK_POOL, many):
        found = beyond(Detail(unread=True), known)
        assert [found.get(key) for key in DEVICE_KEYS] == [known.get(k) for k in DEVICE_KEYS]
        assert "data_errors" not in found
    two = pool(vdevs=(DISK, {**SICK, "name": "d1"}, {**SICK, "name": "d2"}))
    worse = {**DISK, "cksum": "99"}
    found = beyond(Detail((worse,), unread=True, well=frozenset({"d1"})), two)
    assert [vdev["name"] for vdev in found["vdevs"]] == ["d0", "d2"]
    assert found["vdevs"][0]["cksum"] == "99"


READINGS = st.dictionaries(
    st.sampled_from("abcd"),
    st.builds(
        pool,
        st.sampled_from(("ONLINE", "DEGRADED", "FAULTED")),
        st.sampled_from(("5%", "95%", "-")),
        st.sampled_from(((), (DISK,), (SICK,), (DISK, SICK))),
        st.sampled_from((None, SCRUB, {**SCRUB, "errors": 1})),
    ),
)


@given(READINGS, READINGS)
def test_a_reading_is_news_if_and_only_if_it_says_something_else(
    old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]
) -> None:
    assert not compare(new, new).told
    news = compare(old, new)
    assert news.vanished == tuple(sorted(set(old) - set(new)))
    if set(old) != set(new):
        assert news.told
    if highest(new) > highest(old):
        assert news.told
        assert news.priority >= highest(new) or news.priority >= 6


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@given(st.dictionaries(NAMES, st.sampled_from([0, 6, 9]), max_size=5))
def test_a_reading_of_an_older_version_keeps_its_priorities(numbers: dict[str, int]) -> None:
    pools = {name: {"size": "1G", "priority": number} for name, number in numbers.items()}
    texts = {
        name: {**pool, "priority": format_priority(numbers[name])}
        for name, pool in pools.items()
    }
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA[0])
        write(db, "pools", texts)
        write(db, "hostname", "box")
        db.executescript(SCHEMA[1])
        assert read(db, "pools") == pools
        assert list(read(db, "pools")) == list(pools)
        assert read(db, "hostname") == "box"
