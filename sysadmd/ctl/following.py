"""A job followed over connections that come and go: its output once, and its end.

What is shown comes from the job's logs by offset, so a daemon that is killed and started again
in the middle only makes a pause. Decides nothing about exit statuses.
"""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

from sysadmd.backoff import backoff
from sysadmd.client import (
    PASSING,
    Client,
    NotPermitted,
    Refused,
    Target,
    Unreachable,
    connect,
    pauses,
)
from sysadmd.ctl.bar import mapping
from sysadmd.ctl.job_text import waiting_reason
from sysadmd.ctl.output import Printer
from sysadmd.ctl.unread import while_read
from sysadmd.errors import GARBLED, SysadmdError

# How often new output is looked for: at once after some came, then less and less; s.
SOONEST: Final = 0.05
LATEST: Final = 0.5
# How often the job is looked at while its output is awaited; s.
LOOK: Final = 1.0
# For how long a job may be pending before it is said why; s.
AT_ONCE: Final = 0.5
DISPATCHER: Final = ("rpc", "dispatcher")


class Stamps:
    """Marks lines with the moment at which they came. live: they come now, none is old."""

    def __init__(self) -> None:
        self.live = False
        self._begins = True

    def marked(self, text: str, now: datetime) -> str:
        """The text with a mark before each line that begins in it; of old ones it is blank."""
        mark = f"{now:%H:%M:%S} " if self.live else " " * 9
        # Not at \r, which draws a line anew.
        lines = [part for part in re.split(r"(?<=\n)", text) if part]
        out: list[str] = []
        for line in lines:
            out.append((mark if self._begins else "") + line)
            self._begins = line.endswith("\n")
        return "".join(out)


class Follower:
    """Asks a daemon again and again. Use as a context; it connects when it first asks."""

    def __init__(self, target: Target, printer: Printer) -> None:
        self._target = target
        self._printer = printer
        self._open: tuple[Any, Client] | None = None
        self._reached = False
        # Is there progress to show, when is the next look at it, and what was seen.
        self._looks = printer.shows_progress
        self._next_look = 0.0
        self._seen: object = None
        # Are remarks on why a job waits wanted?
        self.tells_waiting = True

    @property
    def reached(self) -> bool:
        """The server was there, and let us in."""
        return self._reached

    async def once(self, to: tuple[str, str], args: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request that is not made again: each would start another job.

        to: namespace and name.
        Raises: Refused, Unreachable.
        """
        reply: dict[str, Any] = await (await self._client()).request(*to, args)
        return reply

    async def ask(
        self, args: dict[str, Any], to: tuple[str, str] = DISPATCHER
    ) -> dict[str, Any]:
        """The reply, asked for as often as it takes. to: namespace and name.

        Raises: Refused; Unreachable if the daemon was not there from the first.
        """
        waits = pauses()
        told = False
        while True:
            try:
                reply = await self.once(to, args)
            except (Unreachable, Refused) as error:
                if isinstance(error, Refused) and error.number not in PASSING:
                    raise
                await self.close()
                if not self._reached:
                    raise
                if not told:
                    told = True
                    self._printer.note(f"{error}; connecting again")
                await asyncio.sleep(next(waits))
            else:
                if told:
                    self._printer.note("connected again")
                return reply

    async def show(self, id: str) -> dict[str, Any]:
        """All that is known of a job."""
        job: dict[str, Any] = (await self.ask({"action": "show", "job_id": id}))["job"]
        return job

    async def follow(self, id: str, job: dict[str, Any] | None = None) -> dict[str, Any]:
        """Print the output of all commands until the job has finished; returns the job.

        job: as it was shown just now. Raises: BrokenPipeError once nobody reads it any more.
        """
        return await while_read(self._follow(id, job))

    async def _follow(self, id: str, job: dict[str, Any] | None) -> dict[str, Any]:
        job = await self.show(id) if job is None else job
        self._looks, self._seen = self._printer.shows_progress, None
        self._tell(job)
        if job["state"] == "pending":
            await self._begun(id)
        for number in range(len(job["commands"])):
            await self.print_log(id, number)
            self._printer.end_log()
        waits = backoff(SOONEST, LATEST)
        while True:
            now = await self.show(id)
            if now["time_created"] != job["time_created"]:
                raise SysadmdError(f"the id {id!r} was used again; how its job ended is unseen")
            if now["state"] == "finished":
                self._printer.progress(None)
                return now
            self._tell(now)
            await asyncio.sleep(next(waits))

    async def _begun(self, id: str) -> None:
        """Wait while the job is pending; if that takes a moment, say why."""
        waits, told = backoff(SOONEST, LATEST), ""
        patient = time.monotonic() + AT_ONCE
        while (job := await self.show(id))["state"] == "pending":
            if self.tells_waiting and time.monotonic() > patient:
                reason = waiting_reason(job, await self.queues())
                if reason != told:
                    self._printer.note(f"waiting: {reason}")
                told, patient = reason, time.monotonic() + LOOK
            await asyncio.sleep(next(waits))

    async def queues(self) -> dict[str, Any] | None:
        """The queues as they are; None: the server does not tell them."""
        try:
            found: dict[str, Any] = (await self.ask({"action": "queues"}))["queues"]
        except NotPermitted:
            raise
        except Refused:
            return None
        return found

    async def print_log(
        self,
        id: str,
        number: int,
        *,
        follow: bool = True,
        tail: int | None = None,
        stamps: Stamps | None = None,
    ) -> int:
        """Print one command's output, follow: until it is complete; returns where that ends.

        tail: only the last so many lines of what is there. stamps: marks lines as they come.
        """
        offset: int = 0
        waits = backoff(SOONEST, LATEST)
        while True:
            ask = {"action": "log", "job_id": id, "command": number, "offset": offset}
            if tail is not None:
                del ask["offset"]
                ask["tail"], offset, tail = tail, -1, None
            reply = await self.ask(ask)
            if reply["text"]:
                self._print(number, reply, stamps)
            if stamps is not None and reply["next"] >= reply["size"]:
                stamps.live = True
            if "detail" in reply:
                self._printer.note(f"command {number}: {reply['detail']}")
            progressed, offset = reply["next"] > offset, reply["next"]
            if reply["complete"] or not (follow or progressed):
                return offset
            if follow:
                await self._look(id)
            if progressed:
                waits = backoff(SOONEST, LATEST)
            else:
                await asyncio.sleep(next(waits))

    async def _look(self, id: str) -> None:
        """See how far the job is, where that is shown, and not too often."""
        if not self._looks or time.monotonic() < self._next_look:
            return
        try:
            self._tell(await self.show(id))
        except (Refused, *GARBLED):
            # Its output is what was asked for.
            self._looks = False

    def _tell(self, job: dict[str, Any]) -> None:
        """Show how far the job is, at most once a LOOK."""
        if not self._looks or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK
        fields = job.get("fields")
        # No job of a class, or of a server without classes.
        self._looks = bool(job.get("event_system") or fields)
        progress = mapping(fields).get("progress")
        if progress != self._seen:
            self._seen = progress
            self._printer.progress(fields)

    def _print(self, number: int, reply: dict[str, Any], stamps: Stamps | None) -> None:
        if self._printer.as_json:
            self._printer.value({"command": number, **reply})
        elif stamps is None:
            self._printer.log(reply["text"])
        else:
            self._printer.log(stamps.marked(reply["text"], datetime.now(UTC).astimezone()))

    async def _client(self) -> Client:
        if self._open is None:
            manager = connect(self._target)
            self._open = (manager, await manager.__aenter__())
            self._reached = True
        return self._open[1]

    async def close(self) -> None:
        """End the connection, if there is one."""
        if self._open is not None:
            manager, self._open = self._open[0], None
            await manager.__aexit__(None, None, None)

    async def __aenter__(self) -> Follower:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._printer.progress(None)
        await self.close()
