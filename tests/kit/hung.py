"""A file system that does not answer, as a suspended pool or a dead server."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Generator
from pathlib import Path

from tests.kit.needs import needed, needs_linux

# Source: mount(2), umount2(2): MNT_DETACH.
_DETACH = 2


@contextlib.contextmanager
def hung_file_system(place: Path) -> Generator[Path]:
    """Mounted at `place`, which is made; at the end whoever waits gets an error.

    FUSE without anybody who serves it: not even its first request is answered. Killed processes
    are let go, as by most file systems that hang.
    """
    needs_linux("FUSE by mount(2)")
    if os.geteuid() or not Path("/dev/fuse").exists():
        needed("root and /dev/fuse")
    place.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"hung", os.fsencode(place), b"fuse", 0, options):
        os.close(device)
        needed(f"leave to mount: {os.strerror(ctypes.get_errno())}")
    try:
        yield place
    finally:
        os.close(device)
        libc.umount2(os.fsencode(place), _DETACH)
