"""Clocks that are wrong, for one process: `clock.c`, built where there is a compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.kit.needs import needed

SOURCE = Path(__file__).with_name("clock.c")


class Clocks:
    """Those of processes that are started in `environment` (and of their children).

    The wall clock may be set at any time. How long the machine has been up is what it was when
    a process was started, so no job may run over a change of that.
    """

    def __init__(self, room: Path, seconds: float = 0) -> None:
        """room: where what that needs is made. seconds: as `set` has it."""
        self._file = room / "clock"
        self._library = _library(room)
        self.uptime = 0
        self.set(seconds)

    def set(self, seconds: float) -> None:
        """From now on the wall clock is ahead of the true one by so much; s."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:.0f}\n")
        new.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """For the next process."""
        return {
            "LD_PRELOAD": self._library,
            "CLOCK_FILE": str(self._file),
            "UPTIME_OFFSET": str(self.uptime),
        }


def _library(room: Path) -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        needed("a C compiler (cc)")
    library = room / "clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    return str(library)
