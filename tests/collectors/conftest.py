"""Fixtures: zfs-fuse, and a pool of it; a log, and its reader."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.log_reader import Reader, append
from tests.kit.pools import Zpool, zfs_fuse_running


# For a file's tests, not a session's: another process may be waiting for its turn.
@pytest.fixture(scope="module")
def zfs_fuse() -> Iterator[Zpool]:
    """`zpool`, with a zfs-fuse that runs."""
    with zfs_fuse_running() as zpool:
        yield zpool


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
    if zfs_fuse.succeeds("list", name):
        zfs_fuse.destroy(name)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """An empty log."""
    path = tmp_path / "a.log"
    path.touch()
    return path


@pytest.fixture
def told(log: Path) -> Iterator[Reader]:
    """What has read the lines `line 0` to `line 29`."""
    told = Reader(log)
    told.lines()
    append(log, *(b"25 18:00:%02d: line %d" % (n, n) for n in range(30)))
    assert len(told.lines()) == 30
    yield told
    told.down()
