"""Calls that may hang in the kernel: each in a thread of its own, which nobody waits for.

A thread of a pool would be joined when the daemon stops; these end with the process.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


def apart(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Begin `work` in a thread of this name. What it returns or raises, if it ever ends."""
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

    threading.Thread(target=run, name=name, daemon=True).start()
    return answer
