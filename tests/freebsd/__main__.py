"""`make test-freebsd`: what only a real FreeBSD can show, in a guest under qemu.

The guest is booted twice from one disk. First the wheel is installed as on a machine of one's
own, the tests of the service and those that fast.txt lists run, and the service is left behind
with two jobs; the guest is powered off. Then it must have come up by itself, and know what
became of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
# Beside a checkout, unless it is said where.
GUEST: Final = Path(os.environ.get("FREEBSD_GUEST") or ROOT.parent / "shared" / "freebsd-guest")
FIRMWARE: Final = Path("/usr/share/ovmf/OVMF.fd")
# The guest has no acceleration. A minute or so is the boot; s.
FIRST: Final = 45 * 60
SECOND: Final = 10 * 60
# What the tests, and what they test, are for; the rest is not missed there.
TREE: Final = (
    *("sysadmd", "collectors", "dispatcher", "server", "rc.d", "tests", "packaging", "docs"),
    *("pyproject.toml", "sysadmd.toml.sample", "README.md"),
)


def main() -> int:
    """Exit status: 0 as well if there is no guest."""
    programs = ("qemu-system-x86_64", "zstd")
    lacks = [str(path) for path in (GUEST / "boot.sh", FIRMWARE) if not path.exists()]
    lacks += [program for program in programs if shutil.which(program) is None]
    if lacks:
        print(f"skipped: there is no {lacks[0]}")
        return 0
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        status = boot(scratch, "first", FIRST)
        return status or boot(scratch, "second", SECOND)


def boot(scratch: Path, which: str, limit: int) -> int:
    """Boot the guest, have it run {which}_boot.sh; returns that's status."""
    job = scratch / which
    job.mkdir()
    shutil.copy(ROOT / "tests" / "freebsd" / f"{which}_boot.sh", job / "run.sh")
    if which == "first":
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        subprocess.run([*pip, "-w", str(job), str(ROOT)], check=True)
        tree = ["git", "ls-files", "-z", *TREE]
        files = subprocess.run(tree, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
        pack = ["tar", "cf", str(job / "tree.tar"), "--null", "--files-from=-"]
        subprocess.run(pack, cwd=ROOT, check=True, input=files)
    print(f"--- {which} boot", flush=True)
    began = time.monotonic()
    done = subprocess.run(
        [GUEST / "boot.sh", job, str(limit)],
        check=False,
        env={**os.environ, "IMG": str(scratch / "disk"), "KEEP": "1"},
    )
    print(f"--- status {done.returncode} after {time.monotonic() - began:.0f} s", flush=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
