"""The file descriptor store: open files that outlive the process which opened them.

A pipe is gone, with what is in it, when the last end is closed; its name does not keep it. So
while a command runs, an end of its pipe is on its way from the keeper to the guard, who does
not take it as long as the keeper lives: what is in flight is open, costs no process a turn, and
comes as soon as somebody asks for it. Source: unix(7), SCM_RIGHTS. Standard library only.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from dataclasses import dataclass
from typing import Final

from dispatcher.output_files import open_pipe, pipe_path

# Up to as many are kept without a look which of them are still needed.
_LOW: Final = 16
# Looked at for each that comes: more than one, so that it does not grow.
_LOOKS: Final = 2
_NAME_BYTES: Final = 64
_FILE: Final = struct.Struct("i")


@dataclass(frozen=True, slots=True)
class Kept:
    """An end of a command's pipe; -1: it is lost. limit: of its log, bytes."""

    job: list[int]
    limit: int
    pipe: int


class FdStore:
    """Ends of the pipes of commands. What has no room is not kept: with the defaults of the
    systems that is so from some two hundred commands at a time on."""

    def __init__(self) -> None:
        """Before the fork: both sides have both ends, so that the keeper can take one back."""
        self._outer, self._inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._outer.setblocking(False)
        self._inner.setblocking(False)
        # Whose they are that were put there, oldest first; and that found no room.
        self._names: deque[list[int]] = deque()
        self._outside: deque[list[int]] = deque()
        # That are due.
        self._looks = 0

    def keep(self, job: list[int], limit: int, pipe: int) -> None:
        """Have an end of this command's pipe kept, until the pipe has no name any more.

        limit: of its log, bytes.
        """
        self._put([*job, limit], pipe)
        self._looks += _LOOKS

    def look(self) -> list[tuple[int, int]]:
        """See which are still needed, some for each that has come; whose are kept no more, by
        job and number. For when nobody waits: it takes longer than to keep one."""
        freed: list[tuple[int, int]] = []
        looks, self._looks = self._looks, 0
        for _ in range(min(looks, len(self._names) - _LOW)):
            freed += self._look_at_oldest()
        for _ in range(min(looks, len(self._outside))):
            uid, n, limit = self._outside.popleft()
            if os.path.lexists(pipe_path(uid, n)):
                self._outside.append([uid, n, limit])
            else:
                freed.append((uid, n))
        return freed

    def take_all(self) -> dict[tuple[int, ...], Kept]:
        """All that are kept, by job and number; they are the caller's now, and the store is
        closed. There are some that nobody needs any more."""
        taken: dict[tuple[int, ...], Kept] = {}
        while (one := self._take()) is not None:
            uid, n = one.job
            if one.pipe >= 0 and taken.setdefault((uid, n), one) is not one:
                os.close(one.pipe)
        self._outer.close()
        self._inner.close()
        return taken

    def _put(self, name: list[int], pipe: int) -> bool:
        """False: it is full, or more is in flight than the system allows."""
        try:
            socket.send_fds(self._outer, [b"%d %d %d" % tuple(name)], [pipe])
        except OSError:
            self._outside.append(name)
            return False
        self._names.append(name)
        return True

    def _take(self) -> Kept | None:
        try:
            # Not by recv_fds: it gives less room than FreeBSD asks for, and gets none.
            room = socket.CMSG_SPACE(_FILE.size)
            name, more, _, _ = self._inner.recvmsg(_NAME_BYTES, room)
        except OSError:
            return None
        uid, n, limit = (int(number) for number in name.split())
        # Without one if this process may open no more.
        files = [_FILE.unpack_from(data)[0] for _, _, data in more]
        return Kept([uid, n], limit, files[0] if files else -1)

    def _look_at_oldest(self) -> list[tuple[int, int]]:
        """Put it behind the others if it is still needed; else whose it was."""
        name = self._names.popleft()
        try:
            pipe = open_pipe(name[0], name[1])
        except OSError:
            # Its pipe has no name any more.
            pipe = -1
        # First of all, so that it is at no time not there; unless the store is full.
        again = pipe >= 0 and self._put(name, pipe)
        oldest = self._take()
        if oldest is not None and oldest.pipe >= 0:
            os.close(oldest.pipe)
        if pipe < 0:
            return [(name[0], name[1])]
        if not again:
            self._outside.pop()
            self._put(name, pipe)
        os.close(pipe)
        return []
