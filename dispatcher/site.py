"""What all parts of the dispatcher work with, and none of them owns. No job, no process."""

from __future__ import annotations

import os
import pwd
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dispatcher import logs
from dispatcher.identity import boot_clock
from dispatcher.keepers import Limits
from dispatcher.steps import Now
from sysadmd.machine import COMMAND_PATH
from sysadmd.settings import DispatcherSettings
from sysadmd.store import Store


@dataclass(slots=True)
class Site:
    """The settings are replaced as a whole; all else stays. limits: those that commands get."""

    store: Store
    settings: DispatcherSettings
    state_dir: Path
    limits: Limits
    boot_id: str

    def now(self) -> Now:
        """The present moment, by both clocks."""
        return Now(time.time(), boot_clock(), self.boot_id)

    @property
    def room(self) -> Path:
        """Where books, sockets and locks of the keepers are."""
        return self.state_dir / "keeper"

    def log(self, uid: int, n: int) -> Path:
        """Where a command's log is."""
        return logs.path(self.state_dir, uid, n)

    def limits_of_queues(self) -> dict[str | None, int]:
        """How many jobs of each queue may run at once."""
        limits: dict[str | None, int] = {None: self.settings.default_parallel}
        limits.update(self.settings.queues)
        return limits


def environment(own: dict[str, str]) -> dict[str, str]:
    """The whole environment of a command: the fixed part, and what the job adds."""
    return {"PATH": COMMAND_PATH, "LANG": "C.UTF-8", "HOME": _home(), **own}


@cache
def _home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"
