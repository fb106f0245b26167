"""Real pools, by zfs-fuse; the settings that watch pools; what is told of them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final

import psutil

from tests.kit.client import Client
from tests.kit.corpus import records
from tests.kit.daemon import ROOT
from tests.kit.needs import needed
from tests.kit.waiting import DEADLINE, wait_for

# There is one zfs-fuse on a machine; who holds the lock has it.
_LOCK: Final = Path("/tmp/sysadmd-tests-zfs-fuse.lock")
_STAND_IN: Final = ROOT / "tests" / "collectors" / "zpool_stand_in.py"
# struct ucred: pid, uid, gid.
_CREDENTIALS: Final = struct.Struct("iii")


class Zpool:
    """The command `zpool`, and the zfs-fuse behind it."""

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end, whatever that is."""
        command = ["zpool", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def succeeds(self, *arguments: str) -> bool:
        """Run it: is its status 0?"""
        return self(*arguments).returncode == 0

    def destroy(self, pool: str) -> None:
        """Destroy a pool: right after writes it is busy for a while."""
        wait_for(lambda: self.succeeds("destroy", "-f", pool), f"the end of {pool}")

    def server(self) -> psutil.Process:
        """The process that answers it. Source: unix(7), SO_PEERCRED."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect("/var/run/zfs/zfs_socket")
            found = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return psutil.Process(_CREDENTIALS.unpack(found)[0])


@contextlib.contextmanager
def zfs_fuse_running() -> Generator[Zpool]:
    """`zpool`, with a zfs-fuse that runs; until the end its pools are ours alone."""
    program = shutil.which("zfs-fuse")
    if os.geteuid() != 0 or program is None or not Path("/dev/fuse").exists():
        needed("zfs-fuse, root and /dev/fuse")
    zpool = Zpool()
    with contextlib.ExitStack() as stack:
        fcntl.flock(stack.enter_context(_LOCK.open("w")), fcntl.LOCK_EX)
        if not zpool.succeeds("list"):
            command = [program, "--no-daemon"]
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(process.wait, DEADLINE)
            stack.callback(process.terminate)
            wait_for(lambda: zpool.succeeds("list"), "zfs-fuse")
        yield zpool


class StandIn:
    """A `zpool` of recorded answers, put into one state of the pools after the other."""

    def __init__(self, directory: Path) -> None:
        """directory: where `command` is to be."""
        self.directory = directory
        self.command = directory / "zpool"

    def put(self, state: str, phase: int) -> None:
        """From now on `zpool` answers so."""
        found = [
            record
            for record in records(state)
            if record.get("argv") and record.get("phase", 1) == phase
        ]
        if any("spawn_error" in record for record in found):
            self.command.unlink(missing_ok=True)
            return
        self._replace("records.jsonl", "".join(json.dumps(r) + "\n" for r in found))
        words = [sys.executable, "-IS", str(_STAND_IN), str(self.directory)]
        self._replace("zpool", f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')

    def _replace(self, name: str, text: str) -> None:
        new = self.directory / "new"
        new.write_text(text)
        new.chmod(0o755)
        new.rename(self.directory / name)


def watching(command: str = "zpool", *, enabled: str = "true", hostname: str = "false") -> str:
    """Settings that ask this `zpool`, every second."""
    return f"""
        [collectors.hostname]
        enabled = {hostname}
        interval = 0.2
        [collectors.zpool]
        enabled = {enabled}
        command = "{command}"
        interval = 1
        timeout = 1
        [collectors.life_preserver]
        enabled = false
    """


def next_state(client: Client, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The args of the next system-state event that fits."""
    found: dict[str, Any] = client.until(
        lambda f: f["name"] == "system_state" and fits(f["args"])
    )[-1]["args"]
    return found
