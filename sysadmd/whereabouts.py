"""Are the files that were opened still those at their paths? Looks only; opens nothing.

What is written into a file that was deleted, or moved away, or covered by a mount, is gone with
the process, and nothing else ever says so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sysadmd.errors import StoreLost

# Of each: which file it is, its size, and the time of its last change.
Stamp = tuple[tuple[int, int, int, int], ...]


class Whereabouts:
    """Files that are open, as they were when this was made."""

    def __init__(self, paths: Sequence[Path], contents: Sequence[Path]) -> None:
        """paths: a directory before what is in it. contents: those nobody else is to write."""
        # As text: a Path takes as long to be looked at as the file.
        self._opened = {os.fspath(path): _identity(path.stat()) for path in paths}
        self._contents = [os.fspath(path) for path in contents]

    def check(self) -> None:
        """Raises: StoreLost naming the first that is not the one that was opened."""
        for path, opened in self._opened.items():
            if _identity(_stat(path)) != opened:
                raise StoreLost(_lost(path, "is another one than at the daemon's start"))

    def stamp(self) -> Stamp:
        """What changes with every change of contents, and with other files in their place.

        Raises: StoreLost.
        """
        return tuple(map(_look, self._contents))

    def are_untouched(self, stamp: Stamp) -> bool:
        """Are those of the contents that are still there as they were at this stamp?"""
        for path, before in zip(self._contents, stamp, strict=True):
            with suppress(StoreLost):
                if _look(path) != before:
                    return False
        return True


def _look(path: str) -> tuple[int, int, int, int]:
    stat = _stat(path)
    return *_identity(stat), stat.st_size, stat.st_mtime_ns


def _stat(path: str) -> os.stat_result:
    try:
        return os.stat(path)  # noqa: PTH116 - four times a commit
    except FileNotFoundError:
        raise StoreLost(_lost(path, "is not there any more")) from None
    except OSError as error:
        raise StoreLost(_lost(path, f"can't be seen: {error.strerror}")) from error


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def _lost(path: str, what: str) -> str:
    return (
        f"{path} {what} (deleted, moved, or another mounted over it?): nothing can be kept."
        " Put back what was there, and all goes on; if it is gone, stop the daemon, and start"
        " it again. If that is state.db itself, restore a backup in between: without one the"
        " history begins anew"
    )
