"""What only a FreeBSD can show of the collectors: its kernel's ZFS, devd, kqueue, newsyslog."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.kit import Daemon, needs_freebsd, needs_root, wait_for
from tests.kit.daemon import following
from tests.kit.log_reader import append
from tests.kit.pools import next_state, watching

POOL = "sysadmd_test"
LINE = "Thu Nov 26 18:00:02 UTC 2026: {}"


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout.strip()


def succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def disks() -> Iterator[tuple[str, str]]:
    """Two disks in memory; the kernel has no ZFS before and after."""
    needs_freebsd("zfs.ko")
    needs_root("mdconfig", "kldload", "zpool")
    if succeeds("kldstat", "-q", "-m", "zfs"):
        pytest.skip("the kernel has ZFS already")
    made = [run("mdconfig", "-a", "-t", "swap", "-s", "64m") for _ in range(2)]
    try:
        yield made[0], made[1]
    finally:
        if succeeds("kldstat", "-q", "-m", "zfs"):
            succeeds("zpool", "destroy", "-f", POOL)
            wait_for(lambda: succeeds("kldunload", "zfs"), "the end of ZFS")
        for disk in made:
            wait_for(partial(succeeds, "mdconfig", "-d", "-u", disk), "the end of a disk")


def test_pools_are_watched_from_when_the_kernel_has_zfs_and_devd_hints_at_changes(
    disks: tuple[str, str], tmp_path: Path
) -> None:
    has_devd = succeeds("service", "devd", "onestatus")
    if not has_devd:
        run("service", "devd", "onestart")
    settings = watching(enabled='"auto"').replace("timeout = 1", "timeout = 300")
    daemon = Daemon(tmp_path / "state", settings)
    try:
        with daemon, daemon.client() as client:
            client.ask("events", "subscribe", {"systems": ["system-state"], "since": "oldest"})
            wait_for(lambda: "kernel has no ZFS" in daemon.log.read_text(), "the log line")
            assert not succeeds("kldstat", "-q", "-m", "zfs")
            run("kldload", "zfs")
            run("zpool", "create", POOL, "mirror", *disks)
            pools = next_state(client, lambda args: POOL in args["zpools"])["zpools"]
            assert pools[POOL]["health"] == "ONLINE"
        # From here on no look is due that devd does not bring about.
        daemon.config.write_text(settings.replace("interval = 1", "interval = 86400"))
        with daemon, daemon.client() as client:
            client.ask("events", "subscribe", {"systems": ["system-state"], "since": "now"})
            wait_for(lambda: is_heard_by_devd(daemon), "a connection to devd")
            run("zpool", "offline", POOL, disks[1])
            next_state(client, lambda args: args["zpools"][POOL]["health"] == "DEGRADED")
    finally:
        if not has_devd:
            succeeds("service", "devd", "onestop")


def is_heard_by_devd(daemon: Daemon) -> bool:
    return "devd.seqpacket.pipe" in run("procstat", "-f", str(daemon.pid))


def test_each_line_is_told_once_when_newsyslog_turns_the_log_over(tmp_path: Path) -> None:
    needs_freebsd("newsyslog(8)")
    needs_root("newsyslog")
    log, config = tmp_path / "lpreserver.log", tmp_path / "newsyslog.conf"
    log.touch()
    # Forced to, it waits for no size and no time. N: nobody is to be signalled.
    config.write_text(f"{log}\t600\t2\t1\t*\tN\n")
    made = [f"Creating snapshot on tank/{number}" for number in range(6)]
    with Daemon(tmp_path / "state", following(log)) as daemon, daemon.client() as client:
        client.ask("events", "subscribe", {"systems": ["life-preserver"], "since": "now"})
        for number, text in enumerate(made):
            append(log, LINE.format(text).encode())
            if number % 2:
                run("newsyslog", "-F", "-f", str(config))
                assert log.with_name("lpreserver.log.0").exists()
            assert client.event()["args"]["message"] == text
