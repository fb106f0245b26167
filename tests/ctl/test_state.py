"""`sysadmctl state`: pools with what is wrong with them, jobs, on terminals wide and narrow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sysadmd.ctl.state import jobs_text, stacked
from tests.kit import Daemon, wait_for
from tests.kit.ctl import Ctl, lines
from tests.kit.pools import StandIn, watching


@pytest.fixture(scope="module")
def ill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ctl]:
    """`sysadmctl` at a daemon whose pool has errors."""
    directory = tmp_path_factory.mktemp("ill")
    stand_in = StandIn(directory)
    stand_in.put("ozfs-data-errors-no-redundancy", 1)
    ctl = Ctl(directory, "--state-dir", str(directory / "state"))
    with Daemon(directory / "state", watching(str(stand_in.command))):
        wait_for(lambda: "tank" in ctl("state").stdout, "the first reading")
        yield ctl


def test_a_pool_with_errors_names_the_disk_and_the_scrub(ill: Ctl) -> None:
    text = ill("state").stdout
    assert "tank: /vdev/d0 has 62 checksum errors\n" in text
    assert "tank: 27 data errors\n" in text
    assert "tank: scrub finished Tue Nov 24 19:13:09 2026 with 27 errors\n" in text
    assert "no job runs or waits\n" in text
    (state,) = lines(ill("state", "--json"))
    assert state["zpools"]["tank"]["vdevs"][0]["cksum"] == "62"


@pytest.mark.parametrize("columns", ["40", "80"])
def test_all_that_matters_is_there_however_narrow_the_terminal_is(
    ill: Ctl, columns: str
) -> None:
    shown = ill.on_terminal("state", COLUMNS=columns, NO_COLOR="1")
    for text in ("ONLINE", "25%", "6/Critical", "62", "27 data errors", "scrub finished"):
        assert text in shown


def test_a_row_is_stacked_where_it_does_not_fit() -> None:
    row: list[tuple[str, str | None]] = [
        (text, None) for text in ("tank", "ONLINE", "50%", "107G", "")
    ]
    shown = [text for text, _ in stacked(["POOL", "HEALTH", "CAP", "SIZE", "NOTE"], row, 20)]
    assert shown == ["tank ONLINE", "  cap 50%, size 107G"]
    assert [
        text for text, _ in stacked(["POOL", "HEALTH", "CAP", "SIZE", "NOTE"], row, 10)
    ] == [*("tank ONLINE", "  cap 50%", "  size 107G")]


def test_jobs_are_counted_and_paused_queues_are_named() -> None:
    jobs: list[Any] = [{"state": "running"}, {"state": "pending"}, {"state": "pending"}]
    assert jobs_text(jobs, {"a": {"paused": True}, "b": {"paused": False}, "c": 7}) == (
        "jobs: 1 running, 2 waiting; paused: a"
    )
    assert jobs_text([], {}) == "no job runs or waits"
