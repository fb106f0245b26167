"""Signals: heard by the loop, and obeyed in time whatever hangs. Says what hung.

Three help each other. The handlers in Python call the loop, but run only between two steps of
the main thread's code. A thread takes the signals, wakes the main thread for the handlers, and
ends the process if the loop, or what comes after it, takes too long. The watchdog
(sysadmd/countdown.py), a process, does so if no thread can run, since C code keeps the
interpreter lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import itertools
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NoReturn

from sysadmd import countdown
from sysadmd.apart import lasting
from sysadmd.countdown import CHUNK, ENDING, SHOW_STACKS
from sysadmd.machine import plainly

log = logging.getLogger(__name__)

# Stopping is promised within 20 s, whatever hangs. After this long we say what does and end,
# s; the log may take another second for that.
STOP_TIMEOUT: Final = 16.5
# If that did not happen the watchdog has the stacks written, then it kills; s.
STACKS_AFTER: Final = 18.0
KILL_AFTER: Final = 18.5
# A watchdog that has ended or could not be started is replaced after this, s.
REPLACED_AFTER: Final = 5.0
# How late a signal is heard while somebody has stopped the watchdog, at most; s.
LOOK: Final = 5.0
# Of tasks that still wait, so many are named: the log takes only so much.
MOST_TASKS: Final = 50
TAKEN: Final = ENDING | {signal.SIGHUP}


class Signals:
    """The signals of this process, from now on until it ends."""

    def __init__(self) -> None:
        """In the main thread."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._acts = False
        # The interpreter writes numbers into ours; the watchdog reads and echoes them. Its end
        # stays open here: what comes while there is no watchdog waits for the next one.
        self._ours, self._watchdogs = socket.socketpair()
        self._ours.setblocking(False)
        self._take_numbers()
        faulthandler.register(SHOW_STACKS, file=2, all_threads=True)
        # A signal is offered to this thread first, and waits for it while it hangs in the
        # kernel. Threads begin with the mask of who starts them; so does what they start.
        signal.pthread_sigmask(signal.SIG_BLOCK, TAKEN)
        for work in (self._hear, self._keep_watchdog):
            lasting(work, f"signals {work.__name__}")

    def wake(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the handlers run when signals come, though this loop, which runs, may sleep."""
        self._loop = loop
        # uvloop has put its own there.
        self._take_numbers()

    def act(self, actions: Mapping[signal.Signals, Callable[[], Any]]) -> None:
        """Have the running loop do this, in the main thread.

        What an early handler has noted (`came`) is done at once.
        """
        loop = asyncio.get_running_loop()

        def handler(number: int, frame: object) -> None:
            # A loop that is closed has ended already.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(actions[signal.Signals(number)])

        self._acts = True
        for number, action in actions.items():
            early = signal.signal(number, handler)
            # Calls that are under way go on after it.
            signal.siginterrupt(number, False)
            if getattr(early, "came", False):
                action()

    def _take_numbers(self) -> None:
        signal.set_wakeup_fd(self._ours.fileno(), warn_on_full_buffer=False)

    def _hear(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, TAKEN)
        told: float | None = None
        while True:
            left = LOOK if told is None else told + STOP_TIMEOUT - time.monotonic()
            if left <= 0:
                _give_up(self._loop)
            self._ours.settimeout(min(left, LOOK))
            heard = b""
            with contextlib.suppress(TimeoutError):
                heard = self._ours.recv(CHUNK)
            self._wake()
            if told is None and not ENDING.isdisjoint(heard):
                if not self._acts:
                    # Nothing is served yet; what is half done is as after a kill.
                    os._exit(0)
                told = time.monotonic()

    def _wake(self) -> None:
        """Have the main thread take a step in Python, before which the handlers run."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(lambda: None)

    def _keep_watchdog(self) -> None:
        while True:
            try:
                pid = _spawn(self._watchdogs.fileno())
            except OSError as error:
                what = f"can't be started: {plainly(error)}"
            else:
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                what = f"(pid {pid}) has ended with status {status}"
            log.warning(
                "the watchdog %s; without it SIGTERM may not end a daemon that hangs. Another"
                " one is started in %g s",
                *(what, REPLACED_AFTER),
            )
            # Meanwhile it is we who echo.
            end = time.monotonic() + REPLACED_AFTER
            while (left := end - time.monotonic()) > 0:
                self._watchdogs.settimeout(left)
                with contextlib.suppress(TimeoutError):
                    self._watchdogs.sendall(self._watchdogs.recv(CHUNK))


def _spawn(end: int) -> int:
    """Start a watchdog at this end; returns its pid. Raises: OSError."""
    limits = map(str, (os.getpid(), STACKS_AFTER, KILL_AFTER))
    argv = [sys.executable, "-I", "-S", countdown.__file__, *limits]
    return os.posix_spawn(
        argv[0],
        argv,
        {},
        file_actions=(
            (os.POSIX_SPAWN_DUP2, end, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ),
        # Neither a terminal's ^C nor what ends all of the daemon's processes is meant for it.
        setpgroup=0,
        setsigmask=signal.valid_signals(),
    )


def _give_up(loop: asyncio.AbstractEventLoop | None) -> NoReturn:
    """End, and say first what hangs."""
    try:
        log.error(
            "told to end %g s ago, and something hangs; ending without it, it is at:",
            STOP_TIMEOUT,
        )
        for place in (*_threads(), *_tasks(loop)):
            log.error("%s", place)
        logging.shutdown()
    finally:
        os._exit(0)


def _threads() -> Iterator[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage] - documented
    for ident, frame in frames.items():
        if ident != threading.get_ident():
            stack = "".join(traceback.format_stack(frame))
            yield f"thread {names.get(ident, ident)}:\n{stack}"


def _tasks(loop: asyncio.AbstractEventLoop | None) -> Iterator[str]:
    """Where each task waits, from its own coroutine inwards."""
    tasks = asyncio.all_tasks(loop) if loop else set[asyncio.Task[Any]]()
    if len(tasks) > MOST_TASKS:
        yield f"{len(tasks)} tasks, of which {MOST_TASKS} are:"
    for task in itertools.islice(tasks, MOST_TASKS):
        at: Any = task.get_coro()
        places: list[str] = []
        while frame := getattr(at, "cr_frame", None):
            places.append(f"{frame.f_code.co_qualname}, line {frame.f_lineno}")
            at = at.cr_await
        yield f"task {task.get_name()}:\n" + "\n".join(places)
