"""Tells what is wrong with the dispatcher: an event when it begins, and one when it is over.

It goes where collectors tell of their sources, as the trouble of `jobs`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from collectors.system_state import SystemState
from sysadmd.errors import StoreFull

log = logging.getLogger(__name__)

NAME: Final = "jobs"
# How often to look if there is something new to tell, s.
INTERVAL: Final = 2.0


async def tell(state: SystemState, troubles: Callable[[], Sequence[str]]) -> None:
    """Runs until cancelled. troubles: what is wrong now."""
    while True:
        try:
            # The words are ours: what differs in them, even a number, is another trouble.
            text = "; ".join(troubles()) or None
            await state.trouble(NAME, text, text)
        except StoreFull as error:
            # It is told when there is room again, if it is still so.
            log.debug("the trouble of jobs can't be kept: %s", error)
        await asyncio.sleep(INTERVAL)
