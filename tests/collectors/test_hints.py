"""Hints from a follower that is a real process."""

import asyncio
from pathlib import Path

from collectors.hints import Hints

FOLLOWER = """#!/bin/sh
[ "$*" = "events -f -H" ] || exit 2
echo a pool has changed
exec sleep 600
"""


async def hint(hints: Hints, command: str) -> None:
    """Until one has come, with the follower asked for as after each good look."""
    waiting = asyncio.create_task(hints.wait(60))
    async with asyncio.timeout(30):
        while not waiting.done():
            await hints.start(command)
            await asyncio.wait({waiting}, timeout=0.05)


def test_hints_come_again_when_the_collector_is_started_again(tmp_path: Path) -> None:
    command = tmp_path / "zpool"
    command.write_text(FOLLOWER)
    command.chmod(0o755)

    async def body() -> None:
        hints = Hints(tmp_path)
        try:
            await hint(hints, str(command))
            hints.close()
            await hint(hints, str(command))
        finally:
            hints.close()

    asyncio.run(body())
