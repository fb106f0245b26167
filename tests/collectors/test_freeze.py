"""A `zpool` that sits in the kernel and outlives KILL: its disk is frozen for real."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit import Daemon, needs_root, wait_for
from tests.kit.pools import next_state, watching
from tests.kit.processes import command_line, family

TOOLS = ("mkfs.ext4", "mount", "fsfreeze", "umount")
ROW = "tank\\t1G\\t1M\\t1023M\\t0%\\t-\\t1.00x\\t-\\t0%\\t{health}\\n"
# Of the collector's interval, which is a second; each a little longer.
ROUNDS, ROUND = 10, 1.1


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    needs_root(*TOOLS)
    image, mounted = tmp_path / "image", tmp_path / "disk"
    image.touch()
    os.truncate(image, 16 * 2**20)
    mounted.mkdir()
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    try:
        yield mounted
    finally:
        subprocess.run(["fsfreeze", "-u", mounted], capture_output=True, check=False)
        # Who wrote here ends with the thaw.
        wait_for(
            lambda: not subprocess.run(["umount", mounted], check=False).returncode, "umount"
        )


def stand_in(directory: Path, disk: Path) -> Path:
    """A `zpool` that writes to the disk before it answers."""
    command = directory / "zpool"
    command.write_text(
        f"#!/bin/sh\n"
        f'[ "$1" = events ] && exec sleep 1000\n'
        f"echo $$ >> {directory}/asking\n"
        f"echo asked >> {disk}/log\n"
        f'[ "$1" = list ] && cat {directory}/list\n'
        f"exit 0\n"
    )
    command.chmod(0o755)
    say(directory, "ONLINE")
    return command


def say(directory: Path, health: str) -> None:
    new = directory / "new"
    new.write_text(ROW.format(health=health).encode().decode("unicode_escape"))
    new.rename(directory / "list")


def queries(command: Path) -> list[int]:
    """Processes that ask, by their pids: each has noted it before anything else."""
    noted = command.with_name("asking").read_text().split()
    return [
        process.pid
        for process in family(map(int, noted))
        if str(command) in command_line(process)
    ]


def rounds(check: Callable[[], None]) -> None:
    """Look all the time while the collector could have asked so often."""
    end = time.monotonic() + ROUNDS * ROUND
    while time.monotonic() < end:
        check()
        time.sleep(ROUND / 20)


@pytest.mark.long
def test_one_zpool_at_most_sits_in_the_kernel_whatever_happens(
    tmp_path: Path, disk: Path
) -> None:
    command = stand_in(tmp_path, disk)
    settings = watching(str(command)).replace("timeout = 1", "timeout = 0.5")
    with Daemon(tmp_path / "state", settings) as daemon:
        with daemon.client() as client:
            client.ask("events", "subscribe", {"systems": ["system-state"], "since": "now"})
            wait_for(lambda: (disk / "log").exists(), "the first question")
            subprocess.run(["fsfreeze", "-f", disk], check=True)
            stuck = next_state(client, lambda args: "does not answer" in args.get("error", ""))
            assert stuck["priority"] == "6/Critical"
            (sitting,) = queries(command)

            def still_alone() -> None:
                assert queries(command) == [sitting]

            rounds(still_alone)
            assert not client.events
            assert client.ask("rpc", "identify")["type"] == "server"
        daemon.kill()
        daemon.start()
        rounds(still_alone)
        begun = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - begun < 20
        daemon.start()
        with daemon.client() as client:
            client.ask("events", "subscribe", {"systems": ["system-state"], "since": "now"})
            rounds(still_alone)
            assert not client.events
            say(tmp_path, "DEGRADED")
            subprocess.run(["fsfreeze", "-u", disk], check=True)
            thawed = next_state(client, lambda args: "error" not in args)
            assert thawed["zpools"]["tank"]["health"] == "DEGRADED"
            assert thawed["zpools"]["tank"]["priority"] == "9/Urgent"
        wait_for(lambda: sitting not in queries(command), "the first question's end")
