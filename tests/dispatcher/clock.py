"""A wall clock that is wrong, for one process: `clock.c`, built where there is a compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("clock.c")


def wall_clock_off_by(seconds: int, room: Path) -> dict[str, str]:
    """The environment that sets a process' wall clock off, and its children's; what it needs
    is built in `room`."""
    compiler = shutil.which("cc")
    if compiler is None:
        if os.environ.get("CI"):
            pytest.fail("a C compiler (cc) is needed here")
        pytest.skip("a C compiler (cc) is needed")
    library = room / "clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(seconds)}
