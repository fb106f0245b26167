"""Hints from a follower that is a real process."""

import asyncio
import resource
import socket
import sys
import time
from pathlib import Path

import pytest

from collectors import hints as module
from collectors.hints import Hints
from tests.kit import DEADLINE

FOLLOWER = """#!/bin/sh
[ "$*" = "events -f -H" ] || exit 2
echo a pool has changed
exec sleep 600
"""


async def hint(hints: Hints, command: str) -> None:
    """Until one has come, with the follower asked for as after each good look."""
    waiting = asyncio.create_task(hints.wait(60))
    async with asyncio.timeout(DEADLINE):
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


def test_hints_come_again_when_devd_was_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "devd"
    monkeypatch.setattr(module, "DEVD_SOCKET", path)

    async def body() -> None:
        hints = Hints(tmp_path)
        try:
            for _ in range(2):
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as devd:
                    devd.bind(str(path))
                    devd.listen()
                    devd.settimeout(DEADLINE)
                    # Asked for after each good look; the end of the last one is seen meanwhile.
                    accepted = asyncio.create_task(asyncio.to_thread(devd.accept))
                    while not accepted.done():
                        await hints.start("zpool")
                        await asyncio.wait({accepted}, timeout=0.05)
                    connection, _ = accepted.result()
                    with connection:
                        connection.send(
                            b"!system=ZFS subsystem=ZFS type=resource.fs.zfs.statechange"
                        )
                        async with asyncio.timeout(DEADLINE):
                            await hints.wait(60)
                path.unlink()
        finally:
            hints.close()

    asyncio.run(body())


FLOOD = """#!/bin/sh
exec python3 -c '
import os
text = b"x" * 65536
while True: os.write({descriptor}, text)'
"""


def peak() -> int:
    """The most memory that this process has ever had; bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


@pytest.mark.parametrize("descriptor", [1, 2])
def test_a_follower_that_prints_without_end_costs_no_memory(
    tmp_path: Path, descriptor: int
) -> None:
    command = tmp_path / "zpool"
    command.write_text(FLOOD.format(descriptor=descriptor))
    command.chmod(0o755)

    async def body() -> None:
        hints = Hints(tmp_path)
        loop = asyncio.get_running_loop()
        try:
            await hints.start(str(command))
            before, end = peak(), loop.time() + 2
            while loop.time() < end:
                # No line ever ends, and yet it is a hint.
                await hints.wait(0.1)
            assert peak() - before < 12 * 2**20
        finally:
            hints.close()

    asyncio.run(body())


def test_a_follower_waits_until_its_hint_is_asked_for(tmp_path: Path) -> None:
    command = tmp_path / "zpool"
    command.write_text(FLOOD.format(descriptor=1))
    command.chmod(0o755)

    async def body() -> None:
        hints = Hints(tmp_path)
        try:
            await hint(hints, str(command))
            before = time.process_time()
            # Nobody asks: what it prints is not taken, whatever there is of it.
            await asyncio.sleep(1)
            assert time.process_time() - before < 0.3
            async with asyncio.timeout(DEADLINE):
                await hints.wait(60)
        finally:
            hints.close()

    asyncio.run(body())
