"""Hints from a follower that is a real process."""

import asyncio
import socket
from pathlib import Path

import pytest

from collectors import hints as module
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
                    devd.settimeout(20)
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
                        async with asyncio.timeout(20):
                            await hints.wait(60)
                path.unlink()
        finally:
            hints.close()

    asyncio.run(body())
