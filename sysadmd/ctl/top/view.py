"""`sysadmctl top` as a whole: a server's events, a terminal's keys, and what follows from them.

Follows the server as `tail` does, over connections that come and go, and asks on others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sysadmd.client import (
    ChainBroken,
    NotPermitted,
    Refused,
    Target,
    Unreachable,
    events,
    pauses,
)
from sysadmd.ctl.bar import mapping
from sysadmd.ctl.following import DISPATCHER, Follower
from sysadmd.ctl.top.log_lines import LogLines
from sysadmd.ctl.top.model import DONE_KEPT, Model, shown
from sysadmd.ctl.top.output_feed import Silent, feed
from sysadmd.ctl.top.pressing import (
    CloseLog,
    Kill,
    Look,
    OpenLog,
    Quit,
    Room,
    Turn,
    press,
    split,
)
from sysadmd.ctl.top.screen import log_room, screen, visible
from sysadmd.ctl.top.terminal import FullTerminal
from sysadmd.errors import GARBLED, SysadmdError
from sysadmd.events import SYSTEMS

# Between two looks of what a server tells: five in a second show all that eyes can follow; s.
REST: Final = 0.2
# How long the rest of a key's bytes may take until Esc is a key of its own; s.
ESCAPE_WAIT: Final = 0.1
# How often it is asked again which queues are paused, while jobs wait; s.
QUEUES_LOOK: Final = 10.0
INTERRUPTED: Final = 130
_DEADLY: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def run_top(target: Target) -> int:
    """Show it until it is quit; the exit status. A signal that ends us does so in the end.

    Raises: Unreachable, NotPermitted, Refused; OSError if the terminal is lost.
    """
    view = View(target)
    status = asyncio.run(view.run())
    if view.ended_by is not None:
        signal.signal(view.ended_by, signal.SIG_DFL)
        os.kill(os.getpid(), view.ended_by)
    return status


class View:
    """One look at a server, from its beginning to its end."""

    def __init__(self, target: Target) -> None:
        self.ended_by: signal.Signals | None = None
        self._target = target
        self._model = Model()
        self._model.server = shown(server_name(target))
        self._look = Look()
        self._log: LogLines | None = None
        self._reading: asyncio.Task[None] | None = None
        self._terminal = FullTerminal(
            sys.stdin.fileno(),
            sys.stdout.fileno(),
            sys.stdout.encoding,
            coloured=not os.environ.get("NO_COLOR"),
        )
        self._bytes = b""
        self._changed = asyncio.Event()
        # Jobs of which details are to be asked for, and those of which there are none.
        self._asker = Follower(target, Silent(False))
        self._wishes: asyncio.Queue[Kill | Turn] = asyncio.Queue()
        self._end: asyncio.Future[int]

    async def run(self) -> int:
        """Until it is quit; the exit status."""
        loop = asyncio.get_running_loop()
        self._end = loop.create_future()
        async with self._asker:
            # What can't be reached or is not permitted is said before the screen is taken.
            said = await self._asker.ask({}, ("rpc", "identify"))
            self._model.host = shown(mapping(said).get("hostname"))
            await self._remember()
            with self._terminal:
                try:
                    self._catch_signals(loop)
                    loop.add_reader(self._terminal.reads, self._read_keys)
                    return await self._all()
                finally:
                    loop.remove_reader(self._terminal.reads)
                    self._read_no_log()

    async def _all(self) -> int:
        """Everything at once, until the first of it ends."""
        work: tuple[Coroutine[Any, Any, Any], ...]
        work = (self._listen(), self._draw_on(), self._grant(), self._ask_details())
        parts = [asyncio.create_task(part) for part in work]
        try:
            ends: list[asyncio.Future[Any]] = [*parts, self._end]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for part in parts:
                if part.done():
                    part.result()
            return await self._end
        finally:
            for part in parts:
                part.cancel()
            await asyncio.wait(parts)

    # What the server tells.

    async def _listen(self) -> None:
        """Events for ever; where their thread is lost, from a new snapshot on."""
        begun = False
        waits = pauses()
        while True:
            stream = events(
                self._target, SYSTEMS, snapshot=True, lost=self._lost, again=self._again
            )
            try:
                async with contextlib.aclosing(stream):
                    async for event in stream:
                        begun, waits = True, pauses()
                        self._model.away = ""
                        self._model.tell(event, datetime.now().astimezone())
                        self._changed.set()
                        if event.name == "gap":
                            # What is gone may have been about jobs that are shown.
                            break
            except NotPermitted:
                raise
            except (ChainBroken, Refused, Unreachable) as error:
                if not begun:
                    raise
                self._lost(error, 0.0)
            await asyncio.sleep(next(waits))

    def _lost(self, error: SysadmdError, pause: float) -> None:
        self._model.away = str(error) or "the connection was lost"
        self._changed.set()

    def _again(self) -> None:
        self._model.away = ""
        self._changed.set()

    async def _remember(self) -> None:
        """The last jobs that have finished, to begin with."""
        with contextlib.suppress(Refused, Unreachable, *GARBLED):
            ask = {"action": "history", "limit": DONE_KEPT}
            self._model.remember((await self._asker.once(DISPATCHER, ask))["jobs"])

    async def _ask_details(self) -> None:
        """Of jobs that are shown what events do not tell; which queues are paused."""
        loop = asyncio.get_running_loop()
        next_look = 0.0
        async with Follower(self._target, Silent(False)) as follower:
            while True:
                jobs = visible(self._model, self._look, self._terminal.size()[1])
                for id in [job.id for job in jobs if job.queue is None and not job.is_over]:
                    await self._describe(follower, id)
                waiting = self._model.counts()[1]
                if waiting and loop.time() >= next_look and not self._model.away:
                    next_look = loop.time() + QUEUES_LOOK
                    await self._look_at_queues(follower)
                await asyncio.sleep(1)

    async def _describe(self, follower: Follower, id: str) -> None:
        try:
            self._model.describe_job(await follower.show(id))
        except (SysadmdError, *GARBLED):
            self._model.give_up_describing(id)
        self._changed.set()

    async def _look_at_queues(self, follower: Follower) -> None:
        # Servers before 0.2 do not know this question; then none is shown as paused.
        with contextlib.suppress(SysadmdError, *GARBLED):
            self._model.learn_queues((await follower.ask({"action": "queues"}))["queues"])
            self._changed.set()

    # What is asked of it.

    async def _grant(self) -> None:
        """Do what is wished, one after the other, and say what came of it."""
        while True:
            wish = await self._wishes.get()
            self._say("asking the server ...")
            try:
                self._say(await self._do(wish))
            except (SysadmdError, *GARBLED) as error:
                self._say(f"not done: {shown(str(error))}")

    async def _do(self, wish: Kill | Turn) -> str:
        if isinstance(wish, Kill):
            reply = await self._once({"action": "kill", "job_id": [wish.id]})
            killed = wish.id in reply["killed"]["jobs"]
            return f"{'is being killed' if killed else 'had ended before'}: {wish.name}"
        await self._once({"action": wish.action, "queue": wish.queue})
        paused = wish.action == "pause"
        self._model.paused = {**self._model.paused, wish.queue: paused}
        return f"{'paused' if paused else 'goes on'}: {wish.queue}"

    async def _once(self, ask: dict[str, Any]) -> dict[str, Any]:
        """The reply; a connection that was lost meanwhile is made anew, one time."""
        try:
            return await self._asker.once(DISPATCHER, ask)
        except Unreachable:
            await self._asker.close()
            return await self._asker.once(DISPATCHER, ask)

    def _say(self, text: str) -> None:
        self._look = replace(self._look, notice=text)
        self._changed.set()

    # The terminal.

    def _read_keys(self) -> None:
        try:
            data = os.read(self._terminal.reads, 1024)
        except OSError as error:
            self._fail(error)
            return
        if not data:
            self._fail(BrokenPipeError("the terminal is gone"))
            return
        self._bytes += data
        keys, self._bytes = split(self._bytes)
        self._press(keys)
        if self._bytes:
            loop = asyncio.get_running_loop()
            loop.call_later(ESCAPE_WAIT, self._read_escape, self._bytes)

    def _read_escape(self, begun: bytes) -> None:
        """What has not gone on was no longer key."""
        if self._bytes == begun:
            keys, self._bytes = split(begun, last=True)
            self._press(keys)

    def _press(self, keys: list[str]) -> None:
        columns, rows = self._terminal.size()
        for key in keys:
            log = self._log
            room = log_room(self._model, log, columns, rows) if log else Room()
            self._look, wish = press(self._look, key, self._model, room)
            if isinstance(wish, Quit):
                self._finish(0)
            elif isinstance(wish, OpenLog):
                self._log = LogLines()
                work = feed(self._target, wish.id, self._log, self._changed.set)
                self._reading = asyncio.create_task(work)
            elif isinstance(wish, CloseLog):
                self._read_no_log()
            elif wish is not None:
                self._wishes.put_nowait(wish)
        self._draw()

    def _read_no_log(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._reading = self._log = None

    async def _draw_on(self) -> None:
        """Show what has changed, and each second how long all has run."""
        while True:
            self._changed.clear()
            self._draw()
            await asyncio.sleep(REST)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1 - datetime.now().microsecond / 1e6):  # noqa: DTZ005
                    await self._changed.wait()

    def _draw(self) -> None:
        now = datetime.now().astimezone()
        size = self._terminal.size()
        try:
            self._terminal.show(screen(self._model, self._look, self._log, now, *size))
        except OSError as error:
            self._fail(error)

    def _finish(self, status: int) -> None:
        if not self._end.done():
            self._end.set_result(status)

    def _fail(self, error: OSError) -> None:
        if not self._end.done():
            # Nobody is there to be told.
            self._end.set_exception(BrokenPipeError(str(error)))

    # Signals.

    def _catch_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        actions: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGINT: lambda: self._finish(INTERRUPTED),
            signal.SIGWINCH: self._resized,
            signal.SIGTSTP: self._stop,
            signal.SIGCONT: self._go_on,
            **{number: self._ending(number) for number in _DEADLY},
        }
        for number, action in actions.items():
            loop.add_signal_handler(number, action)

    def _ending(self, number: signal.Signals) -> Callable[[], None]:
        def end() -> None:
            self.ended_by = number
            self._finish(128 + number)

        return end

    def _resized(self) -> None:
        self._terminal.forget()
        self._draw()

    def _stop(self) -> None:
        """Ctrl-Z: give the terminal back, stop, and take it again when we go on."""
        self._terminal.leave()
        # By its own default, by which nobody is stopped whom no shell could continue.
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTSTP, self._stop)
        self._go_on()

    def _go_on(self) -> None:
        try:
            self._terminal.enter()
        except OSError as error:
            self._fail(error)
        else:
            self._draw()


def server_name(target: Target) -> str:
    """How a server is reached; empty for the one of this machine."""
    if target.server is not None:
        return f"{target.server} over {target.url}"
    return target.url if target.state_dir is None else ""
