"""A job followed over connections that come and go: its output once, and its end.

What is shown comes from the job's logs by offset, so a daemon that is killed and started again
in the middle only makes a pause. Decides nothing about exit statuses.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final

from sysadmd.backoff import backoff
from sysadmd.client import (
    PASSING,
    Client,
    Refused,
    Target,
    Unreachable,
    connect,
    pauses,
)
from sysadmd.ctl.output import Printer
from sysadmd.errors import SysadmdError

# How often new output is looked for: at once after some came, then less and less; s.
SOONEST: Final = 0.05
LATEST: Final = 0.5


class Follower:
    """Asks a daemon again and again. Use as a context; it connects when it first asks."""

    def __init__(self, target: Target, printer: Printer) -> None:
        self._target = target
        self._printer = printer
        self._open: tuple[Any, Client] | None = None
        self._reached = False

    async def ask(self, args: dict[str, Any]) -> dict[str, Any]:
        """The reply of rpc/dispatcher, asked for as often as it takes.

        Raises: Refused; Unreachable if the daemon was not there from the first.
        """
        waits = pauses()
        told = False
        while True:
            try:
                client = await self._client()
                reply: dict[str, Any] = await client.request("rpc", "dispatcher", args)
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

    async def follow(self, id: str) -> dict[str, Any]:
        """Print the output of all commands until the job has finished; returns the job."""
        job = await self.show(id)
        for number in range(len(job["commands"])):
            await self.print_log(id, number)
        waits = backoff(SOONEST, LATEST)
        while True:
            now = await self.show(id)
            if now["time_created"] != job["time_created"]:
                raise SysadmdError(f"the id {id!r} was used again; how its job ended is unseen")
            if now["state"] == "finished":
                return now
            await asyncio.sleep(next(waits))

    async def print_log(self, id: str, number: int, *, follow: bool = True) -> None:
        """Print one command's output; follow: until it is complete."""
        offset, waits = 0, backoff(SOONEST, LATEST)
        while True:
            ask = {"action": "log", "job_id": id, "command": number, "offset": offset}
            reply = await self.ask(ask)
            if reply["text"]:
                self._print(number, reply)
            if "detail" in reply:
                self._printer.note(f"command {number}: {reply['detail']}")
            progressed, offset = reply["next"] > offset, reply["next"]
            if reply["complete"] or not (follow or progressed):
                return
            if progressed:
                waits = backoff(SOONEST, LATEST)
            else:
                await asyncio.sleep(next(waits))

    def _print(self, number: int, reply: dict[str, Any]) -> None:
        if self._printer.as_json:
            self._printer.value({"command": number, **reply})
        else:
            self._printer.log(reply["text"])

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
        await self.close()
