"""Reads of the state file that may take a while: in a thread, on a connection of their own.

Neither the event loop nor the writer waits for them, nor they for the writer: each sees what
was committed when it began.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from sysadmd.apart import lasting

T = TypeVar("T")


@dataclass(slots=True)
class _Read:
    look: Callable[[sqlite3.Connection], Any]
    done: asyncio.Future[Any]


class Reading:
    """The reading thread: one read at a time, and turn by turn for all who ask.

    Who asks much, over however many connections, waits for that himself: between two reads of
    one asker each other one has a turn. Whoever wants much asks for a little at a time.
    """

    def __init__(
        self, db: sqlite3.Connection, translate: Callable[[BaseException], BaseException]
    ) -> None:
        """db: a connection that is the thread's from here on, and closed by it.
        translate: puts what a read raises into words."""
        self._db = db
        self._translate = translate
        self._loop = asyncio.get_running_loop()
        self._news = threading.Condition()
        # What is to be read, by who asks; the next turn is the first one's.
        self._reads: OrderedDict[Hashable, deque[_Read]] = OrderedDict()
        # What was found and not handed over yet, in order; the thread puts it there.
        self._found: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._closed = False
        self._thread = lasting(self._read_all, "store reading")

    def begin(
        self, look: Callable[[sqlite3.Connection], T], asker: Hashable
    ) -> asyncio.Future[T]:
        """Have `look` called in the thread, in a transaction; what it returns or raises."""
        done: asyncio.Future[T] = self._loop.create_future()
        with self._news:
            self._reads.setdefault(asker, deque()).append(_Read(look, done))
            self._news.notify()
        return done

    def close(self, seconds: float) -> None:
        """End, once what is being read is read; wait for that so long. Nothing else is."""
        with self._news:
            self._closed = True
            self._news.notify()
        self._thread.join(seconds)

    def _read_all(self) -> None:
        try:
            while (read := self._next()) is not None:
                # Nobody may wait any more: a client has left.
                if not read.done.cancelled():
                    self._read(read)
                del read
        finally:
            self._db.close()

    def _next(self) -> _Read | None:
        """The next read; None: it is the end."""
        with self._news:
            self._news.wait_for(lambda: self._reads or self._closed)
            if self._closed:
                return None
            asker, reads = self._reads.popitem(last=False)
            read = reads.popleft()
            if reads:
                # Behind all others.
                self._reads[asker] = reads
            return read

    def _read(self, read: _Read) -> None:
        db, error = self._db, None
        result: Any = None
        try:
            db.execute("BEGIN")
            try:
                result = read.look(db)
            finally:
                # An error of the disk has ended it already.
                if db.in_transaction:
                    db.execute("COMMIT")
        except BaseException as raised:  # noqa: BLE001 - handed to who asked
            # A row that it had in hand would hold the transaction: all later reads would see
            # what was true now.
            traceback.clear_frames(raised.__traceback__)
            error = self._translate(raised)
        self._found.append((read.done, result, error))
        # What stands there with others is taken with them.
        if len(self._found) == 1:
            # The loop may be closed by now: the daemon has stopped.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._hand_over)

    def _hand_over(self) -> None:
        """Tell who asked what was found; in the loop."""
        while self._found:
            _settle(*self._found.popleft())


def _settle(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
