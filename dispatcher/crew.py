"""The keeper's starters: all of them, those that stand by, and the lines to them.

Knows of no command more than that one is served. Standard library only.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Final

from dispatcher.starter_line import HandedOver, StarterLine
from dispatcher.transits import Transits

# Starters that stand by, at most: as many as usually begin something at once. Each has some
# hundred KiB of its own; what is more than these is forked when it is needed.
IDLE: Final = 8


class Crew:
    """Those that live, or have died and are not buried yet."""

    def __init__(
        self, poll: select.poll, transits: Transits, fork: Callable[[int, int | None], int]
    ) -> None:
        """poll: what the keeper waits with. fork: makes a starter with this descriptor as its
        end of the line, and the transit of this number; its pid. Raises: OSError."""
        self._poll = poll
        self._transits = transits
        self._fork = fork
        # By pid, and of these the idle ones, longest first; by descriptor.
        self._starters: dict[int, StarterLine] = {}
        self._idle: deque[StarterLine] = deque()
        self._lines: dict[int, StarterLine] = {}

    @property
    def pids(self) -> Collection[int]:
        """Of all."""
        return self._starters.keys()

    @property
    def commands(self) -> list[HandedOver]:
        """That are served."""
        return [one.command for one in self._starters.values() if one.command is not None]

    def on_line(self, file: int) -> StarterLine | None:
        """Whose line this descriptor is."""
        return self._lines.get(file)

    def take(self) -> StarterLine:
        """One that is to serve: of the idle ones that which has rested longest, for the newest
        may still be putting away. Raises: OSError."""
        return self._idle.popleft() if self._idle else self._hire()

    def rest(self, serving: StarterLine, *, again: bool) -> None:
        """It serves nothing now. again: it may be needed again."""
        if again and len(self._idle) < IDLE:
            self._idle.append(serving)
        else:
            self._dismiss(serving)

    def dismiss_idle(self) -> None:
        """None of them is needed any more."""
        while self._idle:
            self._dismiss(self._idle.pop())

    def say(self, serving: StarterLine, data: bytes) -> None:
        """Tell it this; what it has no room for, as soon as it has."""
        serving.send(data)
        if serving.unsent:
            self._poll.modify(serving.line, select.POLLIN | select.POLLOUT)

    def say_on(self, serving: StarterLine) -> None:
        """It has room."""
        serving.send(b"")
        if not serving.unsent:
            self._poll.modify(serving.line, select.POLLIN)

    def hang_up(self, serving: StarterLine) -> None:
        """It has hung up; its end comes as that of a process."""
        if self._lines.pop(serving.line.fileno(), None) is not None:
            self._poll.unregister(serving.line)
        if serving in self._idle:
            self._idle.remove(serving)

    def dead(self) -> Iterator[StarterLine]:
        """Those whose processes have ended, reaped; each is then to be buried."""
        for pid, gone in list(self._starters.items()):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                # On FreeBSD what a reaper leaves falls to us only now.
                os.waitpid(pid, 0)
                yield gone

    def bury(self, gone: StarterLine) -> None:
        """All that it has said is heard."""
        self.hang_up(gone)
        gone.line.close()
        del self._starters[gone.pid]
        if gone.command is None:
            # That of another is used no more: the book has it until the command has ended.
            self._transits.give_back(gone.transit)

    def _hire(self) -> StarterLine:
        line, line_end = socket.socketpair()
        transit = self._transits.take()
        try:
            pid = self._fork(line_end.fileno(), transit)
        except OSError:
            line.close()
            self._transits.give_back(transit)
            raise
        finally:
            line_end.close()
        hired = StarterLine(pid, line, transit)
        self._starters[pid] = hired
        self._lines[line.fileno()] = hired
        self._poll.register(line, select.POLLIN)
        return hired

    def _dismiss(self, idle: StarterLine) -> None:
        """It goes when it hears nothing more of us."""
        self.hang_up(idle)
        idle.line.close()
