"""Put right what a process inherits, once, before it does anything. Starts nothing.

Who starts us may ignore or block signals, have descriptors open or closed, clocks running, any
umask; an exec keeps it all. Limits and niceness are meant for us and stay. Nobody may read what
we print: that changes no exit status. Standard library only.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final

from sysadmd.machine import FORCED_PORTABLE

Handler = Callable[[int, FrameType | None], object]

# Python itself ignores these two, and what we write relies upon it.
_PYTHONS: Final = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
# Ignored on purpose: HUP by nohup; INT and QUIT by a script, for what it puts in the background
# (Source: POSIX, Shell Command Language, 2.11); the rest where nobody could say "go on".
_SHELLS: Final = frozenset(
    {
        *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT),
        *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
    }
)


def as_daemon(handlers: Mapping[signal.Signals, Handler]) -> None:
    """For a program that stands alone: nothing that its parent has set up reaches it.

    handlers: of the signals that are taken, in this order; one that came already is heard.
    """
    for clock in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(clock, 0)
    for number in signal.sigpending() - handlers.keys():
        # Meant for who was here before us; to ignore it is to drop it.
        signal.signal(number, signal.SIG_IGN)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    _default(_PYTHONS)
    _keep_to_ourselves()
    _open_standard_streams()
    _close_others()
    # Last: what has waited comes now.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def as_tool() -> None:
    """For a program that a person or a script runs: what these set on purpose stays.

    That is: what a shell ignores, a clock that is to end us, descriptors, named by /dev/fd/N.
    """
    _default(_PYTHONS | _SHELLS)
    _keep_to_ourselves()
    _open_standard_streams()
    # May raise KeyboardInterrupt.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


@contextlib.contextmanager
def interruptible() -> Generator[None]:
    """Within, Ctrl-C raises KeyboardInterrupt, for a program that had it end it until now.

    Before, modules are loaded, and behind, the interpreter ends: both say what they met.
    """
    if signal.getsignal(signal.SIGINT) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _default(but: frozenset[signal.Signals]) -> None:
    """No signal is ignored but these. An exec leaves no other disposition to be undone."""
    for number in signal.valid_signals() - but:
        if signal.getsignal(number) == signal.SIG_IGN:
            # The system's library may keep one for itself.
            with contextlib.suppress(OSError):
                signal.signal(number, signal.SIG_DFL)


def _keep_to_ourselves() -> None:
    """Nobody else can write what we make, we always can; who wants it stricter has it so."""
    os.umask(os.umask(0o077) & 0o077 | 0o022)


def _open_standard_streams() -> None:
    """Where one is closed (`>&-`), nothing is: what we open next shall not take its place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # It gets the lowest number that is free: this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            stream = os.fdopen(
                number, mode, encoding="utf-8", errors="backslashreplace", closefd=False
            )
            setattr(sys, name, stream)
    encoding, errors = sys.stderr.encoding, sys.stderr.errors
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Unfailing(2, "w", closefd=False)),
        *(encoding, errors),
        line_buffering=True,
    )
    atexit.register(drop_what_nobody_takes)


class _Unfailing(io.FileIO):
    """Errors are told where somebody reads them; else the exit status alone says it, and not
    that telling has failed."""

    def write(self, data: Any, /) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        return len(data) if written is None else written


def drop_what_nobody_takes() -> None:
    """Who has printed knows by now if that failed. Python tries once more at its end, and would
    make the exit status 120. Source: Py_FinalizeEx of CPython."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _close_others() -> None:
    if FORCED_PORTABLE or not Path("/proc/self/fd").is_dir():
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        return
    # A limit that was lowered is no limit to what is open already; and it may be a milliard.
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - its own descriptor is among them
        if int(name) > 2:
            with contextlib.suppress(OSError):
                os.close(int(name))
