"""Puts a restored state in the place of the one that was there. By renames alone; no database.

    restoring/           being made: worth nothing, and removed by whoever finds it
    restored/            complete: from this rename on it is the state
    restored/before/     what was there, on its way to before-restore-TIME/

What is in `restored` goes to its place name by name, the old one before the new one. Each step
is one rename, and says by what is there that it is done: so whoever has the directory's lock
next finishes what was cut off, and nobody opens a mixture.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Final

from sysadmd.copies import to_disk

RESTORING: Final = "restoring"
RESTORED: Final = "restored"
_BEFORE: Final = "before"
# What was there, with the time of the restore behind it.
ASIDE: Final = "before-restore-"
DATABASE: Final = "state.db"
# What SQLite, or a migration, takes for part of whatever `state.db` it lies beside.
_BESIDE: Final = ("-wal", "-shm", "-journal", ".before", ".before.new")


def is_pending(state_dir: Path) -> bool:
    """Is what lies at its place not all of one state? Raises: OSError."""
    return (state_dir / RESTORED).is_dir()


def commit(state_dir: Path) -> None:
    """What is in `restoring`, which is on disk, is the state now; to be settled."""
    # From there on nothing is made any more, for which a full disk may have no room.
    (state_dir / RESTORING / _BEFORE).mkdir(mode=0o700)
    (state_dir / RESTORING).rename(state_dir / RESTORED)
    to_disk(state_dir)


def settle(state_dir: Path) -> Path | None:
    """Finish, or remove, what a restore has begun, in a directory that is locked for us.

    Where what was there before is now; None: nothing was to be done, or nothing was there.
    Raises: OSError; then it is begun again by the next call.
    """
    if (state_dir / RESTORING).exists():
        shutil.rmtree(state_dir / RESTORING)
    if not is_pending(state_dir):
        return None
    restored = state_dir / RESTORED
    before = restored / _BEFORE
    before.mkdir(mode=0o700, exist_ok=True)
    for new in sorted(restored.iterdir()):
        if new != before:
            _put(new, state_dir, before)
    aside = _free(state_dir) if any(before.iterdir()) else None
    if aside is None:
        before.rmdir()
    else:
        before.rename(aside)
    restored.rmdir()
    to_disk(state_dir)
    return aside


def moved(name: str) -> list[str]:
    """The names in the state directory that make room for this one."""
    return [name, *(name + end for end in _BESIDE)] if name == DATABASE else [name]


def _put(new: Path, state_dir: Path, before: Path) -> None:
    for old in moved(new.name):
        path = state_dir / old
        if path.exists() or path.is_symlink():
            path.rename(before / old)
    # An old WAL that came back after a power cut would be worked into the new file.
    for directory in (state_dir, before):
        to_disk(directory)
    new.rename(state_dir / new.name)
    for directory in (state_dir, new.parent):
        to_disk(directory)


def _free(state_dir: Path) -> Path:
    """Where what was there is to be kept."""
    wanted = state_dir / time.strftime(ASIDE + "%Y%m%dT%H%M%SZ", time.gmtime())
    path, number = wanted, 1
    while path.exists():
        number += 1
        path = wanted.with_name(f"{wanted.name}-{number}")
    return path
