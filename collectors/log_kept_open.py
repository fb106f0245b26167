"""Files of a log that are kept open: those with news until it is their turn, those that were
read for what comes late. Whatever happens to their names, they can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from collectors import log_marks
from collectors.log_file import LogFile

# Files with news that are kept open until it is their turn; more are seen again then.
HELD: Final = 64
# A file that is finished is kept open for this long: who had it open may have written late, and
# it may be moved out of sight; s. And so many of them.
LATE: Final = 300.0
LATE_FILES: Final = 4

Identity = tuple[int, int]


class KeptOpen:
    """Closes what it keeps, but for what was taken."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # With news, by device and inode; finished, and until when they are kept.
        self._news: dict[Identity, LogFile] = {}
        self._finished: list[tuple[float, LogFile]] = []

    def close(self) -> None:
        """Let go of all."""
        for file in (*self._news.values(), *self.finished()):
            file.close()
        self._news.clear()
        self._finished.clear()

    def expire(self) -> None:
        """Let go of what was finished long ago."""
        kept, now = self._finished, self._clock()
        while kept and (len(kept) > LATE_FILES or kept[0][0] < now):
            kept.pop(0)[1].close()

    def finish(self, file: LogFile) -> None:
        """It is read: keep it a while for what comes late."""
        self._finished.append((self._clock() + LATE, file))
        self.expire()

    def hold(self, file: LogFile) -> None:
        """It has news."""
        self._news[log_marks.stamp_of(file)[:2]] = file

    def take(self, file: LogFile) -> None:
        """It is another's now, who closes it."""
        self._news = {key: kept for key, kept in self._news.items() if kept is not file}
        self._finished = [kept for kept in self._finished if kept[1] is not file]

    def keeps(self, file: LogFile) -> bool:
        """Is it one of these?"""
        return any(kept is file for kept in (*self._news.values(), *self.finished()))

    def held(self, identity: Identity) -> LogFile | None:
        """The one with news that has this device and inode."""
        return self._news.get(identity)

    def news(self) -> Iterator[tuple[Identity, LogFile]]:
        """Those with news, the first that was seen first."""
        return iter(self._news.items())

    def finished(self) -> list[LogFile]:
        """Those that were read, the oldest first."""
        return [file for _, file in self._finished]
