"""Hints that a pool may have changed: only ever a reason to look sooner, never news.

OpenZFS has `zpool events -f`, FreeBSD devd's socket. Neither has to be there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from pathlib import Path
from typing import Final

import sh

from collectors import zpool_query
from collectors.process_slot import Outstanding, ProcessSlot
from collectors.zpool_query import Absent
from sysadmd.apart import apart

log = logging.getLogger(__name__)

DEVD_SOCKET: Final = Path("/var/run/devd.seqpacket.pipe")
# A follower that ended sooner is not started again: this zpool can't follow; s.
WORKING: Final = 60.0
# Bytes of a follower's output that are taken at a time: what it says does not matter, only that
# it says something. It waits with the rest until somebody waits for a hint again.
_CHUNK: Final = 64 * 1024
# Source: devd(8): a message has at most 8 KiB.
_MESSAGE: Final = 8192


class Hints:
    """Wakes who waits when the system says that something about a pool happened."""

    def __init__(self, state_dir: Path) -> None:
        self._slot = ProcessSlot(state_dir / "zpool-events.lock")
        self._hint = asyncio.Event()
        self._started = False
        self._follower: sh.RunningCommand | None = None
        # What the follower prints, and: is it waited for?
        self._printed: int | None = None
        self._listening = False
        self._devd: socket.socket | None = None

    async def wait(self, seconds: float) -> None:
        """Return at the next hint, or after so many seconds."""
        self._listen()
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._hint.wait()
        except TimeoutError:
            pass
        self._hint.clear()

    async def start(self, command: str) -> None:
        """Listen, unless we do; a source that is not there is done without.

        One that has ended is asked for again: called whenever zpool has answered.
        """
        if self._started:
            return
        self._started = True
        if DEVD_SOCKET.exists():
            self._listen_to_devd()
        else:
            await self._follow_events(command)

    def close(self) -> None:
        """Listen no more."""
        if self._follower is not None and self._follower.is_alive():
            try:
                self._follower.kill_group()
            except ProcessLookupError:
                log.debug("zpool events had ended already")
        self._close_printed()
        if self._devd is not None:
            asyncio.get_running_loop().remove_reader(self._devd)
            self._devd.close()
        self._follower = self._devd = None
        self._started = False

    def _listen(self) -> None:
        if self._printed is not None and not self._listening:
            asyncio.get_running_loop().add_reader(self._printed, self._from_follower)
            self._listening = True

    def _from_follower(self) -> None:
        assert self._printed is not None
        try:
            data = os.read(self._printed, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._close_printed()
            return
        asyncio.get_running_loop().remove_reader(self._printed)
        self._listening = False
        self._hint.set()

    def _close_printed(self) -> None:
        if self._printed is None:
            return
        asyncio.get_running_loop().remove_reader(self._printed)
        os.close(self._printed)
        self._printed, self._listening = None, False

    async def _follow_events(self, command: str) -> None:
        begun = time.monotonic()

        def ended(command: sh.RunningCommand, success: bool, status: int) -> None:
            log.debug("zpool events has ended (%s); pools are polled", status)
            if time.monotonic() - begun >= WORKING:
                self._started = False

        try:
            lock = await self._slot.take()
        except Outstanding as error:
            log.debug("no hints from zpool events yet (%s); pools are polled", error)
            self._started = False
            return
        except OSError as error:
            log.info("no hints from zpool events (%s); pools are polled", error)
            return

        self._close_printed()
        try:
            # A pipe of our own: `sh` would keep a line that has no end.
            self._printed, printing = os.pipe()
        except OSError as error:
            os.close(lock)
            log.info("no hints from zpool events (%s); pools are polled", error)
            return
        os.set_blocking(self._printed, False)

        def follow() -> sh.RunningCommand:
            try:
                words = ("events", "-f", "-H")
                program = zpool_query.find(command)
                with Path(os.devnull).open("wb") as nothing:
                    # It may complain for ever; that it has ended is what counts.
                    return zpool_query.start(
                        program, words, lock, _out=printing, _err=nothing, _done=ended
                    )
            finally:
                # The process has its own copies: one follower at a time, whoever started it.
                os.close(printing)
                os.close(lock)

        try:
            # Begun on the loop's own thread, sh would talk to the loop when that is closed.
            self._follower = await apart(follow, "zpool events")
        except (Absent, OSError) as error:
            log.info("no hints from zpool events (%s); pools are polled", error)
        self._listen()

    def _listen_to_devd(self) -> None:
        try:
            self._devd = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._devd.connect(str(DEVD_SOCKET))
            self._devd.setblocking(False)
        except OSError as error:
            log.info("no hints from devd (%s); pools are polled", error)
            if self._devd is not None:
                self._devd.close()
            self._devd = None
            return
        asyncio.get_running_loop().add_reader(self._devd, self._from_devd)

    def _from_devd(self) -> None:
        assert self._devd is not None
        try:
            message = self._devd.recv(_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            log.info("devd has ended; pools are polled until it is there again")
            self.close()
        elif b"system=ZFS" in message:
            self._hint.set()
