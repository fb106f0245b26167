"""A disk on which no file can be made: a job that can't start has its reason all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import QUIET, Daemon, wait_for
from tests.kit.disks import small_disk


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A file system that holds few files."""
    with small_disk(tmp_path / "mount", 30, "nr_inodes=70") as where:
        yield where


def test_a_start_for_which_no_file_can_be_made_has_its_reason(mount: Path) -> None:
    with Daemon(mount / "state", QUIET) as daemon, daemon.client() as client:

        def ask(action: str, id: str) -> dict[str, object]:
            args = {"action": action, "job_id": id}
            answer: dict[str, object] = client.ask("rpc", "dispatcher", args)
            return answer

        def submit(id: str) -> None:
            job = {"id": id, "commands": [["true"]]}
            client.ask("rpc", "dispatcher", {"action": "submit", "job": job})

        client.ask("events", "subscribe", {"systems": ["dispatcher"]})
        submit("warm")
        client.until(lambda frame: frame["args"]["state"] == "finished")
        fillers = list[Path]()
        with pytest.raises(OSError, match="No space"):
            while True:
                fillers.append(mount / f"filler {len(fillers)}")
                fillers[-1].touch()
        # The first ones have what starters have made ahead.
        details = dict[str, object]()
        for number in range(12):
            submit(f"job {number}")
            frames = client.until(lambda frame: frame["args"]["state"] == "finished")
            details = dict(frames[-1]["args"]["process_details"])
        log = ask("log", "job 11")
        expected = (
            "sysadmd: cannot start it: its log can't be written: No space left on device\n"
        )
        assert log["text"] == details["true"] == expected
        assert log["complete"]
        assert log["size"] == len(expected)
        assert details["return_codes/true"] == "126"
        for filler in fillers:
            filler.unlink(missing_ok=True)
        submit("after")
        client.until(lambda frame: frame["args"]["state"] == "finished")
        wait_for(lambda: "succeeded" in str(ask("show", "after")), "the end of a later job")
