"""How much is kept where a file system takes only so many directories in one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from server.retention import room_for_logs
from tests.kit import QUIET, Daemon, wait_for
from tests.kit.backups import output, run
from tests.kit.state_file import state_file

ROOM = 5
# Retention looks twenty times a second, where there is little room.
CROWDED = (
    "import server.retention as r; r.INTERVAL = 0.05;"
    f" r.room_for_logs = lambda state_dir: {ROOM}"
)


@pytest.mark.parametrize(
    ("platform", "most", "room"),
    [
        ("freebsd13", 32_767, 24_576),
        ("freebsd14", 2**31 - 1, 3 * 2**29),
        ("freebsd14", -1, None),
        ("freebsd14", None, None),
        ("linux", 127, None),
    ],
)
def test_a_part_of_what_a_directory_takes_is_left_free(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    most: int | None,
    room: int | None,
) -> None:
    def pathconf(path: Path, name: str) -> int:
        assert (path, name) == (tmp_path, "PC_LINK_MAX")
        if most is None:
            raise OSError
        return most

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "pathconf", pathconf)
    assert room_for_logs(tmp_path) == room


def test_the_newest_jobs_are_kept_with_their_logs_and_events(tmp_path: Path) -> None:
    ids = [f"job{number}" for number in range(3 * ROOM)]
    newest = ids[-ROOM:]
    with Daemon(tmp_path / "state", QUIET, before=CROWDED) as daemon, daemon.client() as client:
        for id in ids:
            run(client, id, f"echo {id}")
        jobs = daemon.state_dir / "jobs"
        wait_for(lambda: len([*jobs.iterdir()]) == ROOM, "retention")
        history = client.ask("rpc", "dispatcher", {"action": "history"})["jobs"]
        assert [job["id"] for job in history] == newest[::-1]
        assert [output(client, id) for id in newest] == [f"{id}\n" for id in newest]
        with state_file(daemon.state_dir) as db:
            (told,) = db.execute(
                "SELECT count(*) FROM events JOIN jobs ON last_seq = seq"
            ).fetchone()
        assert told == ROOM
