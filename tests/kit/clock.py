"""A wall clock that is wrong, for one process: `clock.c`, built where there is a compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.kit.needs import needed

SOURCE = Path(__file__).with_name("clock.c")


def wall_clock_off_by(seconds: int, room: Path) -> dict[str, str]:
    """The environment that sets the wall clock of a process and its children off.

    What it needs is built in `room`.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        needed("a C compiler (cc)")
    library = room / "clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(seconds)}
