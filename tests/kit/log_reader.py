"""A tail of a log that is read to its end whenever a test asks, and what it told."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors.log_folder import FileRefused
from collectors.log_marks import Position
from collectors.log_tail import ROTATION_GRACE, LogTail
from tests.kit.hand_clock import Clock


def append(path: Path, *lines: bytes) -> None:
    """Write the lines, each with its end."""
    with path.open("ab") as out:
        out.writelines(line + b"\n" for line in lines)


def rotate(log: Path, to: str) -> None:
    """Rename it, and begin an empty one."""
    log.rename(log.parent / to)
    log.touch()


class Reader:
    """position: the place behind what it told; lost: what it said was lost."""

    def __init__(self, log: Path, position: Position | None = None, *writers: str) -> None:
        self.log = log
        self.writers = writers
        self.clock = Clock()
        self.tail = LogTail(log, position, self.clock, writers)
        self.position = position
        self.lost: list[str] = []

    def lines(self) -> list[bytes]:
        """What is new, rotations waited out. Raises: OSError."""
        found: list[bytes] = []
        for _ in range(5):
            self.look(found)
        return found

    def look(self, found: list[bytes]) -> None:
        """Add the lines of one look. Raises: OSError, behind the lines before it."""
        self.clock.now += ROTATION_GRACE + 0.1
        while (chunk := self.tail.read()) is not None:
            found += chunk.lines
            self.position = chunk.position
            self.lost += [chunk.lost] if chunk.lost else []

    def refused(self) -> str:
        """Why the log is not read now."""
        with pytest.raises(FileRefused) as caught:
            self.lines()
        assert caught.value.strerror
        return caught.value.strerror

    def down(self) -> None:
        """As a daemon that stops."""
        self.tail.close()

    def up(self) -> None:
        """And starts again."""
        self.tail = LogTail(self.log, self.position, self.clock, self.writers)
