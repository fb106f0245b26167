"""A systemd of its own for a test: process 1 of a room of processes, on a copy of this machine.

The copy is an overlay in memory: what is written there nobody else sees. Its control groups are
below one of its own. All of it ends with the call.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Final

from tests.kit.daemon import ROOT
from tests.kit.needs import needed, needs_root
from tests.kit.waiting import DEADLINE

SYSTEMD: Final = "/usr/lib/systemd/systemd"
# Ends it all with the status of what was to be run.
_UNIT: Final = """
[Unit]
DefaultDependencies=no
After=systemd-journald.socket
Requires=systemd-journald.socket
[Service]
Type=oneshot
TimeoutStartSec={deadline}
ExecStart=/bin/sh {script}
ExecStopPost=/bin/systemctl --no-block exit
"""
# `none COMMAND`: it must fail; of a plain `!` sh takes no notice.
_SCRIPT: Final = """
exec > {directory}/out 2> {directory}/trace
set -ex
none() {{
    if "$@"; then exit 1; fi
}}
"""
_ROOM: Final = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs {room}
mkdir {room}/up {room}/work {room}/root
mount -t overlay overlay -o lowerdir=/,upperdir={room}/up,workdir={room}/work {room}/root
cd {room}/root
mount -t proc proc proc
mount --rbind /sys sys
mount -t tmpfs tmpfs dev
for name in null zero full random urandom tty; do
    : > dev/$name
    mount --bind /dev/$name dev/$name
done
mkdir dev/shm
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
# Where these are no part of the overlay they are not to be written; but what the test has.
for path in {visible}; do
    mkdir -p ./$path
    mount --bind -o ro $path ./$path
done
mkdir -p ./{shared}
mount --bind {shared} ./{shared}
: > {shared}/console
: > dev/console
mount --bind {shared}/console dev/console
# Nothing that a machine does when it boots: it would empty /tmp.
rm -rf usr/lib/systemd/system/*.wants
rm -rf etc/systemd/system var/log/journal var/db etc/sysadmd
mkdir -p etc/systemd/system etc/sysadmd
cp {shared}/units/* etc/systemd/system/
echo uninitialized > etc/machine-id
exec chroot . env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin {systemd} \\
    --unit=test.service --log-target=console --show-status=0
"""


def under_systemd(directory: Path, units: Mapping[str, str], script: str) -> str:
    """What this script of sh prints as a service there, beside these units; it must succeed.

    directory: for files of ours; in there it is the same. Raises: AssertionError.
    """
    needs_root("unshare", "systemctl")
    if not Path(SYSTEMD).exists():
        needed("systemd")
    (directory / "room").mkdir()
    (directory / "units").mkdir()
    file = directory / "script"
    file.write_text(f"{_SCRIPT.format(directory=directory)}{script}\ntouch {directory}/done\n")
    text = _UNIT.format(deadline=int(DEADLINE), script=file)
    for name, unit in {**units, "test.service": text}.items():
        (directory / "units" / name).write_text(unit)
    visible = {str(ROOT), sys.prefix, sys.base_prefix}
    room = _ROOM.format(
        room=directory / "room",
        shared=directory,
        visible=" ".join(map(shlex.quote, sorted(visible))),
        systemd=SYSTEMD,
    )
    with _cgroup() as group:
        enter = f'echo $$ > {group}/cgroup.procs; exec "$@"'
        namespaces = (
            "--mount",
            "--pid",
            "--fork",
            "--cgroup",
            "--uts",
            "--ipc",
            "--kill-child",
        )
        argv = ["sh", "-c", enter, "sh", "unshare", *namespaces, "sh", "-c", room]
        said = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=2 * DEADLINE,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    texts = [directory / name for name in ("console", "trace", "out")]
    told = [text.read_text(errors="replace") if text.exists() else "" for text in texts]
    assert (directory / "done").exists(), "\n".join((said.stderr, *told))
    return told[-1]


@contextlib.contextmanager
def _cgroup() -> Generator[Path]:
    """A control group of its own, in the unified hierarchy."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    there = [Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"]
    if not there or not os.access(there[0], os.W_OK):
        needed("a cgroup2 file system that can be written")
    group = there[0] / f"sysadmd-test-{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        until = time.monotonic() + DEADLINE
        for each in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            _remove(each, until)
        _remove(group, until)


def _remove(group: Path, until: float) -> None:
    while True:
        try:
            group.rmdir()
        except OSError:
            # Busy for as long as its last processes are on their way out.
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return
