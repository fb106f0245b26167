"""What a service manager is told, over the socket that it names: a real one each time."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest

from tests.kit import DEADLINE, QUIET, Client, Daemon, wait_for
from tests.kit.processes import clean, holders


@pytest.fixture
def manager(tmp_path: Path) -> Generator[socket.socket]:
    """Who is told; its address is what NOTIFY_SOCKET says."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(DEADLINE)
        yield sock


def heard(manager: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())


def managed(tmp_path: Path, address: str, config: str = QUIET) -> Daemon:
    return Daemon(tmp_path / "state", config, env={"NOTIFY_SOCKET": address})


def test_it_hears_of_readiness_reloads_and_the_end(
    tmp_path: Path, manager: socket.socket
) -> None:
    with managed(tmp_path, manager.getsockname()) as daemon:
        serving = f"serving on {daemon.url}"
        assert heard(manager) == {"READY": "1", "STATUS": serving}
        daemon.reload()
        begun = heard(manager)
        assert begun.pop("RELOADING") == "1"
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert 0 < int(begun.pop("MONOTONIC_USEC")) <= now
        assert heard(manager) == {"READY": "1", "STATUS": serving}
        # One that is refused is over, too.
        daemon.config.write_text("nonsense = 1\n")
        daemon.reload("reload refused")
        assert heard(manager)["RELOADING"] == "1"
        ready = heard(manager)
        assert ready["READY"] == "1"
        assert ready["STATUS"] == f"{serving}; the last reload has changed nothing"
        assert daemon.stop() == 0
        assert heard(manager)["STOPPING"] == "1"
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(1)


def test_who_waits_for_it_finds_the_daemon(tmp_path: Path, manager: socket.socket) -> None:
    daemon = managed(tmp_path, manager.getsockname())
    with daemon, Client("", None, daemon.state_dir / "sysadmd.sock") as client:
        assert heard(manager)["READY"] == "1"
        assert client.ask("rpc", "identify")["type"] == "server"


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="abstract names are Linux's")
def test_its_address_may_be_an_abstract_one(tmp_path: Path) -> None:
    name = f"sysadmd-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        sock.settimeout(DEADLINE)
        with managed(tmp_path, f"@{name}"):
            assert heard(sock)["READY"] == "1"


@pytest.mark.parametrize("address", ["/nowhere/notify", "vsock:2:1234", "@", "/" + "x" * 200])
def test_one_that_is_not_there_stops_nobody(tmp_path: Path, address: str) -> None:
    with managed(tmp_path, address) as daemon:
        daemon.reload()
        assert daemon.stop() == 0


def test_one_that_reads_late_is_waited_for_by_nobody_and_hears_all_the_same(
    tmp_path: Path, manager: socket.socket
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                other.sendto(b"full", manager.getsockname())
    with managed(tmp_path, manager.getsockname()) as daemon:
        daemon.reload()
        while (first := manager.recv(4096)) == b"full":
            pass
        assert first.startswith(b"READY=1\n")
        assert heard(manager)["RELOADING"] == "1"
        assert heard(manager)["READY"] == "1"


def test_nobody_else_is_given_its_address(tmp_path: Path, manager: socket.socket) -> None:
    with managed(tmp_path, manager.getsockname()) as daemon:
        with daemon.local() as client:
            job = {"id": "env", "commands": [["sh", "-c", "env; exec sleep 600"]]}
            client.ask("rpc", "dispatcher", {"action": "submit", "job": job})
        jobs = daemon.state_dir / "jobs"
        wait_for(lambda: any("PATH=" in log.read_text() for log in jobs.glob("*/0.log")))
        (log,) = jobs.glob("*/0.log")
        assert "NOTIFY_SOCKET" not in log.read_text()
        others = [psutil.Process(pid) for pid in holders(daemon.state_dir)]
        # The watchdog.
        others += psutil.Process(daemon.pid).children()
        assert len(others) > 2
        for each in others:
            assert "NOTIFY_SOCKET" not in each.environ()
        daemon.stop()
    clean(tmp_path / "state")
