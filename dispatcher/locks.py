"""Who of guard, keeper and starters lives: by the locks that they hold for life, never by pids.

    keeper/ID.guard    the guard, alone (a record lock)
    keeper/ID.keeper   the keeper, alone
    keeper/ID.starts   keeper and starters, as long as anything may still begin
    keeper/ID.ends     keeper and starters, as long as any end may still be told

Standard library only.
"""

from __future__ import annotations

import fcntl
from pathlib import Path


def lives(room: Path, id: str, role: str) -> bool:
    """Does the `guard` or the `keeper` of this pair live? If it can't be told: yes."""
    try:
        with (room / f"{id}.{role}").open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        # Held; or there is no descriptor to look with, and it is asked again.
        return True
    return False


def begins(room: Path, id: str) -> bool:
    """May this pair, or a starter of it, still begin anything? If it can't be told: yes."""
    # A guard says by the book when nothing begins any more.
    return (
        lives(room, id, "keeper") or lives(room, id, "guard") or is_held(room / f"{id}.starts")
    )


def tells(room: Path, id: str) -> bool:
    """May anything still be written into the book of this pair? If it can't be told: yes."""
    return begins(room, id) or is_held(room / f"{id}.ends")


def is_held(path: Path) -> bool:
    """Has anybody the lock that several share by inheritance? If it can't be told: yes."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
