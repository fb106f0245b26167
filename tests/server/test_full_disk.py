"""A full disk: refusals that say so, nothing lost, and everything again when there is room."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import QUIET, Daemon, wait_for
from tests.kit.disks import fill, small_disk

CONFIG = QUIET + '[retention]\nevents_size = "64KiB"\n'


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose state directory lies on a file system of eight mebibytes."""
    with (
        small_disk(tmp_path / "mount", 8) as mount,
        Daemon(mount / "state", CONFIG) as daemon,
    ):
        yield daemon


@pytest.mark.long
def test_a_full_disk_is_said_and_survived(small: Daemon) -> None:
    with small.client() as client:
        add = {"action": "add", "name": "short", "role": "read", "expires": "1h"}
        client.ask("rpc", "tokens", add)
        # More events than retention keeps: it will want to write, too.
        jobs: dict[str, list[str]] = {f"job {number}": [] for number in range(1500)}
        client.ask("rpc", "dispatcher", {"action": "run", **jobs})
        filler = small.state_dir / "filler"
        fill(filler)

        def refused() -> bool:
            big = {"action": "run", f"big {os.urandom(4).hex()}": ["true " + "y" * 60_000]}
            frame = client.ask_raw("rpc", "dispatcher", big)
            return bool(frame["name"] == "error" and frame["args"]["code"] == 507)

        wait_for(refused, "a refusal")
        assert small.fetch("/healthz")[0] == 503
        # Retention and everything else that writes by itself has its turn meanwhile.
        wait_for(lambda: "retention could not" in small.log.read_text(), "retention", 70)
        assert client.ask("rpc", "identify")["type"] == "server"
        filler.unlink()
        wait_for(lambda: not refused(), "room")
        wait_for(lambda: small.fetch("/healthz")[0] == 200, "health")
