"""What the daemon holds in memory of its jobs: who waits, who runs, which keepers there are.

A copy of what is committed, changed only after the commit; decides nothing and asks nobody. It
is small on purpose: of a waiting job the uid, all else is in the tables.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import time
from dataclasses import dataclass, field
from pathlib import Path

from dispatcher import logs
from dispatcher.identity import Identity, boot_clock
from dispatcher.keepers import KeeperPair, Limits
from dispatcher.queue import Queues
from dispatcher.transitions import Now, Orphan, Verdict
from sysadmd.journal import Note, no_note
from sysadmd.machine import COMMAND_PATH
from sysadmd.settings import DispatcherSettings
from sysadmd.store import Store


@dataclass(slots=True)
class Running:
    """A running job and its present command.

    identity: None: not read in the book yet. heard: loop time of its last running event.
    size: of its log when progress was last looked at. doomed: it is being killed.
    """

    uid: int
    queue: str | None
    n: int
    deadline: float | None = None
    identity: Identity | None = None
    heard: float = 0.0
    size: int = 0
    doomed: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """How a running job ends, decided while nothing could be written; note: to go with it."""

    word: str
    note: Note = no_note


@dataclass(slots=True)
class Board:
    """All of it. `wake`: there is something for the next step forward."""

    store: Store
    settings: DispatcherSettings
    state_dir: Path
    limits: Limits
    boot_id: str
    queues: Queues = field(default_factory=Queues)
    used: set[str | None] = field(default_factory=set[str | None])
    running: dict[int, Running] = field(default_factory=dict[int, Running])
    pairs: dict[str, KeeperPair] = field(default_factory=dict[str, KeeperPair])
    # Commands committed as running that no keeper has been asked to start.
    unsent: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    orphans: list[Orphan] = field(default_factory=list[Orphan])
    # Of running jobs, decided while the disk was full; committed with the next step.
    endings: dict[int, Ending] = field(default_factory=dict[int, Ending])
    verdicts: list[Verdict] = field(default_factory=list[Verdict])
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    # There are orphans to be looked after.
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    # Something runs: time and progress are to be looked at.
    busy: asyncio.Event = field(default_factory=asyncio.Event)

    def now(self) -> Now:
        """The present moment, by both clocks."""
        return Now(time.time(), boot_clock(), self.boot_id)

    def taker(self) -> KeeperPair | None:
        """The keeper that starts commands; None: there is none just now."""
        return next((pair for pair in self.pairs.values() if pair.takes), None)

    def log_size(self, uid: int, n: int) -> int | None:
        """Bytes in a command's log; None: it is gone."""
        path = logs.path(self.state_dir, uid, n)
        return logs.size(path) if logs.is_there(path) else None

    @property
    def room(self) -> Path:
        """Where books, sockets and locks of the keepers are."""
        return self.state_dir / "keeper"


def limits_of(settings: DispatcherSettings) -> dict[str | None, int]:
    """How many jobs of each queue may run at once."""
    limits: dict[str | None, int] = {None: settings.default_parallel}
    limits.update(settings.queues)
    return limits


def environment(own: dict[str, str]) -> dict[str, str]:
    """The whole environment of a command: the fixed part, and what the job adds."""
    return {"PATH": COMMAND_PATH, "LANG": "C.UTF-8", "HOME": _home(), **own}


def _home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"
