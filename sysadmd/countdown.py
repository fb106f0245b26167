"""The watchdog: a process that ends the daemon if that was told to end and does not.

Each signal of the daemon's reaches it at once, whatever hangs there: the interpreter's handler
in C writes the number to our standard input, without the interpreter lock. It is echoed, so
that the daemon's threads hear of it as well. Ends with the daemon.

Started as a program of its own, not through the door: with nothing but this it has 3 MB.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

ENDING = frozenset({signal.SIGTERM, signal.SIGINT})
# On this one the daemon writes to stderr where each of its threads is; see server/signals.py.
SHOW_STACKS = signal.SIGUSR1
# Numbers of signals that are read in one go; more is read in turns.
CHUNK = 256
# With nothing to count down to: look again after this long; s.
IDLE = 3600.0


def main(arguments: list[str]) -> int:
    """Watch until the daemon has ended.

    arguments: the daemon's pid; seconds after the first signal to end at which it is asked for
    its stacks, and at which it is killed.
    """
    daemon = int(arguments[0])
    steps = [*zip(map(float, arguments[1:3]), (SHOW_STACKS, signal.SIGKILL), strict=True)]
    told: float | None = None
    os.set_blocking(0, False)
    while steps:
        left = IDLE if told is None else told + steps[0][0] - time.monotonic()
        if left <= 0:
            if os.getppid() == daemon:
                os.kill(daemon, steps[0][1])
            del steps[0]
        elif select.select((0,), (), (), left)[0]:
            heard = _echo()
            if not heard:
                break
            if told is None and not ENDING.isdisjoint(heard):
                told = time.monotonic()
    return 0


def _echo() -> bytes:
    """The numbers of the signals that came. Empty: the daemon is gone."""
    try:
        heard = os.read(0, CHUNK)
        # Where there is no room for more, it has enough unread to be woken by.
        with contextlib.suppress(BlockingIOError):
            os.write(0, heard)
    except OSError:
        return b""
    return heard


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
