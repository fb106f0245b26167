"""What is wrong with a pool, in words: from recorded outputs of zpool, and from nonsense."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.pools import combine
from collectors.zpool_output import list_arguments, parse_list, parse_status
from sysadmd.ctl.pool_text import (
    briefly,
    device_rows,
    percent_used,
    pool_reasons,
    scan_text,
)
from sysadmd.ctl.priorities import priority_of
from sysadmd.text import printable
from tests.kit.corpus import records


def recorded(state: str, name: str = "tank", warning: int = 90) -> dict[str, Any]:
    """A pool as an event tells it, when `zpool` answered what was recorded."""
    answers = {
        tuple(record["argv"]): record["stdout"]
        for record in reversed(records(state))
        if record.get("argv") and "stdout" in record and record.get("phase", 1) == 1
    }
    listed = parse_list(answers[("zpool", *list_arguments(frozenset()))], frozenset())
    details = parse_status(answers[("zpool", "status")])
    pool = combine(listed.pools, details, warning)[name]
    return {
        **pool,
        "priority": f"{pool['priority']}/{'Urgent' if pool['priority'] > 8 else ''}",
    }


@pytest.mark.parametrize(
    ("state", "reasons"),
    [
        ("ozfs-mirror-healthy", []),
        (
            "ozfs-data-errors-no-redundancy",
            [
                "/vdev/d0 has 62 checksum errors",
                "27 data errors",
                "the last scrub found 27 errors",
            ],
        ),
        (
            "ozfs-mirror-degraded-faulted-side",
            ["/vdev/d1 is FAULTED (external device fault)"],
        ),
        # The disk's name, not the number that stands in its place.
        ("ozfs-mirror-degraded-missing-device", ["/vdev/d1 is UNAVAIL"]),
        ("ozfs-mirror-degraded-offline", ["/vdev/d1 is OFFLINE"]),
        (
            "ozfs-spare-in-use",
            ["/vdev/d1 is FAULTED (external device fault)", "a spare is in use"],
        ),
        (
            "ozfs-suspended-failmode-wait",
            ["sus0 has 3 read and 2 write errors", "38 data errors"],
        ),
        # A scrub that runs is no trouble.
        ("ozfs-scrub-in-progress", []),
    ],
)
def test_a_pool_says_why_it_is_not_fine(state: str, reasons: list[str]) -> None:
    assert pool_reasons(recorded(state), "tank") == reasons


def test_a_pool_that_is_fuller_than_the_server_wants_says_so() -> None:
    pool = recorded("ozfs-bigger-disk-waits", "full", warning=50)
    assert pool_reasons(pool, "full") == ["55 % full"]
    assert pool_reasons(recorded("ozfs-bigger-disk-waits", "full"), "full") == []


def test_only_its_health_is_told_when_nothing_more_is_known() -> None:
    pool = {"health": "DEGRADED", "capacity": "95%", "priority": "9/Urgent"}
    assert pool_reasons(pool) == ["health DEGRADED", "95 % full"]


def test_what_the_disks_are_part_of_is_told_when_no_disk_is_to_blame() -> None:
    mirror = {"name": "mirror-0", "state": "DEGRADED", "read": "0", "write": "0", "cksum": "1"}
    own = {"name": "tank", "state": "ONLINE", "read": "0", "write": "0", "cksum": "1.2K"}
    told = ["mirror-0 is DEGRADED, has 1 checksum error", "tank has 1.2K checksum errors"]
    assert pool_reasons({"vdevs": [mirror, own]}, "tank") == told
    disk = {"name": "da1", "state": "DEGRADED", "read": "3", "write": "0", "cksum": "1"}
    told = ["da1 is DEGRADED, has 3 read and 1 checksum error"]
    assert pool_reasons({"vdevs": [mirror, own, disk]}, "tank") == told


def test_a_shelf_that_goes_dark_says_how_many_are_left_out() -> None:
    vdevs = [{"name": f"da{number}", "state": "REMOVED"} for number in range(4)]
    reasons = pool_reasons({"vdevs": vdevs, "vdevs_left_out": 5})
    assert reasons[-1] == "5 more devices not well"
    assert briefly(reasons, 2) == "da0 is REMOVED, da1 is REMOVED and 3 more"
    assert briefly(reasons[:2], 2) == "da0 is REMOVED, da1 is REMOVED"


def test_a_spare_that_is_named_is_told_by_its_name() -> None:
    assert pool_reasons({"vdevs": [{"name": "da5", "state": "INUSE"}]}) == [
        "spare da5 is in use"
    ]


@pytest.mark.parametrize(
    ("scan", "text"),
    [
        (
            {"function": "scrub", "state": "running", "percent": 12.5},
            "scrub running, 12.5 % done",
        ),
        (
            {"function": "resilver", "state": "paused", "percent": 40.0},
            "resilver paused, 40 % done",
        ),
        ({"function": "scrub", "state": "canceled"}, "scrub canceled"),
        (
            {"function": "scrub", "state": "finished", "errors": 0},
            "scrub finished without errors",
        ),
        (
            {"function": "scrub", "state": "finished", "errors": 2, "ended": "Tue Nov 24"},
            "scrub finished Tue Nov 24 with 2 errors",
        ),
        ({"function": "scrub", "state": "running", "percent": math.inf}, "scrub running"),
        ({"function": "scrub", "state": "running", "percent": 10**400}, "scrub running"),
        (None, ""),
    ],
)
def test_a_scrub_is_told_with_how_far_it_is(scan: object, text: str) -> None:
    assert scan_text({"scan": scan}) == text


def test_a_resilver_that_runs_is_a_reason() -> None:
    scan = {"function": "resilver", "state": "running", "percent": 3}
    assert pool_reasons({"health": "ONLINE", "scan": scan}) == ["resilver running, 3 % done"]


def test_the_devices_that_are_not_well_are_rows() -> None:
    assert device_rows(recorded("ozfs-mirror-degraded-faulted-side")) == [
        ("mirror-0", "DEGRADED", "0", "0", "0", ""),
        ("/vdev/d1", "FAULTED", "0", "0", "0", "external device fault"),
    ]


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
_DEVICE = st.dictionaries(
    st.sampled_from(("name", "state", "read", "write", "cksum", "note")),
    _JUNK | st.sampled_from(("mirror-0", "spare-1", "da1", "ONLINE", "INUSE", "0", "was x")),
)
_SCAN = st.dictionaries(
    st.sampled_from(("function", "state", "percent", "ended", "errors")),
    _JUNK | st.sampled_from(("scrub", "resilver", "running", "finished")),
)
_POOL = st.fixed_dictionaries(
    {},
    optional={
        "vdevs": _JUNK | st.lists(_DEVICE),
        "vdevs_left_out": _JUNK,
        "scan": _JUNK | _SCAN,
        "data_errors": _JUNK,
        "health": _JUNK | st.sampled_from(("ONLINE", "DEGRADED")),
        "capacity": _JUNK | st.from_regex(r"\d{1,3}%", fullmatch=True),
        "priority": _JUNK | st.sampled_from(("6/Critical", "9/Urgent")),
    },
)


@given(_POOL, st.text())
def test_whatever_a_server_says_gives_texts_that_print(pool: dict[str, Any], name: str) -> None:
    texts = [*pool_reasons(pool, name), scan_text(pool)]
    texts += [cell for row in device_rows(pool) for cell in row]
    assert all(printable(text) == text for text in texts)
    assert all(text.strip() for text in pool_reasons(pool, name))
    assert priority_of(pool) >= 0
    assert percent_used(pool) is None or percent_used(pool) in range(1000)
