"""Calls that may hang in the kernel: each in a thread of its own, which nobody waits for.

A thread of a pool would be joined when the daemon stops; these end with the process. All
threads of ours are begun here: the system may have none to give, because a job has used them
all up, and that is a delay, not the end of who asks.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, TypeVar

from sysadmd.backoff import backoff
from sysadmd.errors import CannotStart

log = logging.getLogger(__name__)

T = TypeVar("T")

# Between two attempts to get a thread, s: at first, and when it takes long. What uses them all
# up may be about to be killed by the very call that waits here.
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 0.5
# How long files have that we are only told of, configuration and certificates; s.
FILES_TIMEOUT: Final = 30.0


class Reserve:
    """A thread that stands by: for calls that must be made though there is no thread to be had,
    those that end who has used them all up. Begun at the daemon's start."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._is_free = True
        lasting(self._serve, "reserve")

    def take(self, call: Callable[[], object]) -> bool:
        """Have it called, if nothing is being called. Event loop only."""
        if not self._is_free:
            return False
        self._is_free = False
        self._calls.put(call)
        return True

    def close(self) -> None:
        """Nothing is to be called any more."""
        self._is_free = False
        self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            self._is_free = True


def apart(
    work: Callable[[], T], name: str, reserve: Reserve | None = None
) -> asyncio.Future[T]:
    """Begin `work` in a thread of this name, as soon as there is one to be had.

    What it returns or raises, if it ever ends. It is done also if nobody waits for it any more.
    reserve: who does it if there is none.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: T) -> None:
        if not answer.done():
            answer.set_result(result)

    def fail(error: Exception) -> None:
        if not answer.done():
            answer.set_exception(error)
            # Who asked may have given up waiting.
            answer.exception()

    def run() -> None:
        # The loop may be closed by the time that the work ends: the daemon has stopped.
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - handed to who asked
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(fail, error)
        else:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, result)

    _begin_or_wait(run, name, reserve, backoff(FIRST_PAUSE, LONGEST_PAUSE))
    return answer


async def in_time(work: Callable[[], T], what: str) -> T:
    """What this returns or raises, which may touch files on a file system that hangs.

    Raises: CannotStart if it does; then the call is left alone.
    """
    try:
        return await asyncio.wait_for(apart(work, what), FILES_TIMEOUT)
    except TimeoutError as error:
        raise CannotStart(
            f"{what}: no answer from the disk within {FILES_TIMEOUT:g} s; is a file system"
            " hanging, or a file a pipe that nobody writes to?"
        ) from error


def _begin_or_wait(
    run: Callable[[], None], name: str, reserve: Reserve | None, waits: Iterator[float]
) -> None:
    # No function within `apart`: one that names itself would keep what is asked for, and its
    # answer, until the collector of garbage comes.
    if _begin(run, name) is None and not (reserve and reserve.take(run)):
        pause = next(waits)
        if pause == FIRST_PAUSE:
            log.debug("%s waits until the system has a thread for it", name)
        loop = asyncio.get_running_loop()
        loop.call_later(pause, _begin_or_wait, run, name, reserve, waits)


def lasting(work: Callable[[], object], name: str) -> threading.Thread:
    """Begin a thread that lasts as long as the process. Waits until there is one to be had, so
    for the start of the daemon alone."""
    waits = backoff(FIRST_PAUSE, LONGEST_PAUSE)
    while (thread := _begin(work, name)) is None:
        time.sleep(next(waits))
    return thread


def _begin(work: Callable[[], object], name: str) -> threading.Thread | None:
    """None: there is no thread to be had. Source: CPython, "can't start new thread"."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread
