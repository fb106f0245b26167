"""Real pools: zfs-fuse on file vdevs, one instance for the machine."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon import wait_for

Zpool = Callable[..., subprocess.CompletedProcess[str]]

LOCK = Path("/tmp/sysadmd-tests-zfs-fuse.lock")


def needed(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{what} is needed here")
    pytest.skip(f"{what} is needed")


def zpool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["zpool", *arguments], capture_output=True, text=True, check=False)


# For a file's tests, not a session's: another process may be waiting for its turn.
@pytest.fixture(scope="module")
def zfs_fuse() -> Iterator[Zpool]:
    """`zpool`, with a zfs-fuse that runs; until the end its pools are ours alone."""
    program = shutil.which("zfs-fuse")
    if os.geteuid() != 0 or program is None or not Path("/dev/fuse").exists():
        needed("zfs-fuse, root and /dev/fuse")
    assert program is not None
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = zpool("list").returncode == 0
        process = (
            None
            if running
            else subprocess.Popen(
                [program, "--no-daemon"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        )
        wait_for(lambda: zpool("list").returncode == 0, "zfs-fuse")
        yield zpool
        if process is not None:
            process.terminate()
            process.wait(20)


@pytest.fixture
def mirror(zfs_fuse: Zpool, tmp_path: Path) -> Iterator[str]:
    """A mirrored pool of two (sparse) file vdevs, destroyed at the end.

    A smaller one keeps a quarter of itself back and can't be filled above 90 %.
    """
    name = f"t{os.getpid()}x{time.monotonic_ns() % 10**9}"
    for side in ("a", "b"):
        (tmp_path / side).touch()
        os.truncate(tmp_path / side, 512 * 2**20)
    made = zfs_fuse("create", name, "mirror", str(tmp_path / "a"), str(tmp_path / "b"))
    assert made.returncode == 0, made.stderr
    yield name
    if zfs_fuse("list", name).returncode == 0:
        destroy(zfs_fuse, name)


def destroy(zfs_fuse: Zpool, pool: str) -> None:
    """Destroy it: right after writes it is busy for a while."""
    wait_for(lambda: zfs_fuse("destroy", "-f", pool).returncode == 0, f"the end of {pool}")
