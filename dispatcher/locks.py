"""Who of guard, keeper and starters lives: by the locks that they hold for life, never by pids.

    keeper/ID.guard    the guard, alone (a record lock)
    keeper/ID.keeper   the keeper, alone
    keeper/ID.starts   keeper and starters, as long as anything may still begin
    keeper/ID.ends     keeper and starters, as long as any end may still be told
    keeper/ID.starters each starter, the byte at its pid (record locks)

Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from pathlib import Path
from typing import Final

# Fields of struct flock. Source: fcntl(2) of Linux; of FreeBSD, <sys/fcntl.h>.
_LINUX: Final = sys.platform.startswith("linux")
_FLOCK: Final = struct.Struct("@hhqqi0q" if _LINUX else "@qqihhi")


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


def holder(room: Path, id: str, role: str) -> int | None:
    """The pid of the living `guard` or `keeper` of this pair; None: there is none, or it
    can't be told."""
    return owner(room / f"{id}.{role}")


def owner(path: Path) -> int | None:
    """The pid of who has the record lock on this file; None: nobody, or it can't be told."""
    pids = _holders(path)
    return pids[0] if pids else None


def starters(room: Path, id: str) -> list[int]:
    """The pids of the living starters of this pair, as far as they can be told."""
    return _holders(room / f"{id}.starters")


def _holders(path: Path) -> list[int]:
    found: list[int] = []
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return found
    try:
        # First byte, and how many; 0: all that follow. The system tells one lock at once.
        parts = [(0, 0)]
        while parts:
            start, length = parts.pop()
            seen = _lock(file, start, length)
            if seen is None:
                continue
            first, number, pid = seen
            # Of another machine, or of another room of processes, it has no pid here.
            found += [pid] if pid > 0 else []
            if first > start:
                parts.append((start, first - start))
            after, end = first + number, start + length
            if number and (not length or after < end):
                parts.append((after, end - after if length else 0))
    except OSError:
        pass
    finally:
        os.close(file)
    return found


def _lock(file: int, start: int, length: int) -> tuple[int, int, int] | None:
    """One lock in this part of the file: first byte, how many, and whose. Raises: OSError."""
    if _LINUX:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    else:
        asked = _FLOCK.pack(start, length, 0, fcntl.F_WRLCK, os.SEEK_SET, 0)
    told = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
    if _LINUX:
        kind, _, first, number, pid = told
    else:
        first, number, pid, kind, _, _ = told
    return None if kind == fcntl.F_UNLCK else (first, number, pid)


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
