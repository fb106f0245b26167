"""Ends what would go on printing for nobody: `sysadmctl tail | grep -m1 finished`."""

from __future__ import annotations

import asyncio
import errno
import select
import sys
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

# How often it is looked whether somebody still reads; s. Who prints notices by himself, but who
# waits for something to print would wait for ever.
LOOK: Final = 0.5


async def while_read(work: Coroutine[Any, Any, T]) -> T:
    """What the work returns. Raises: BrokenPipeError once nobody reads our standard output."""
    working = asyncio.create_task(work)
    looking = asyncio.create_task(_unread())
    try:
        await asyncio.wait((working, looking), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise BrokenPipeError(errno.EPIPE, "nobody reads what is printed")
    finally:
        working.cancel()
        looking.cancel()
        await asyncio.wait((working, looking))


async def _unread() -> None:
    poll = select.poll()
    # Of errors and hang-ups one is told unasked: POLLERR on Linux, POLLHUP on FreeBSD.
    poll.register(sys.stdout, 0)
    while not poll.poll(0):  # noqa: ASYNC110 - no event tells it
        await asyncio.sleep(LOOK)
