"""The outputs that keeper or guard have taken over from dead ones, or are to.

Standard library only.
"""

from __future__ import annotations

import os
import select
import stat
import time
from dataclasses import dataclass
from typing import Final

from dispatcher.output_files import open_pipe, pipe_path
from dispatcher.relay import Relay
from dispatcher.transits import Transit, Transits

# Between two looks whether an output can be taken over, s: at first, and when it takes long.
_RETRY: Final = 0.5
_LONGEST: Final = 10.0


@dataclass(slots=True)
class _Wanted:
    """An output to be taken over. pipe: an end, lest what is in it be lost meanwhile; -1.

    transit: where the dead one may have left something.
    """

    limit: int
    pipe: int
    transit: Transit | None
    begun: bool
    looks: int = 0


def _close(file: int) -> None:
    if file >= 0:
        os.close(file)


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.lstat(path).st_mode)
    except OSError:
        return False


class Relays:
    """Those that a process has taken over from dead ones, or is to."""

    def __init__(self, poll: select.poll, transits: Transits) -> None:
        """poll: what the process waits with; all that is served is registered there."""
        self._poll = poll
        self._transits = transits
        self._served: dict[int, Relay] = {}
        self._wanted: dict[tuple[int, int], _Wanted] = {}
        # When they are looked at next, by the monotonic clock.
        self._due = 0.0

    @property
    def serves(self) -> bool:
        """Would the output of any command be stuck without us?"""
        return bool(self._served)

    @property
    def patience(self) -> float | None:
        """How long to wait at most until `look` is to be called, ms; None: for ever."""
        return max(0.0, self._due - time.monotonic()) * 1000 + 1 if self._wanted else None

    def want(
        self,
        job: list[int],
        limit: int,
        pipe: int = -1,
        transit: int | None = None,
        *,
        begun: bool = True,
    ) -> None:
        """Take this command's output over, as soon as nobody else has it.

        pipe: an end of it, which then is ours. transit: its starter's, which is dead. begun: it
        has, for sure: if its log is not there that is gone, and not about to be made by who
        begins it.
        """
        uid, n = job
        if (uid, n) in self._wanted or any(relay.job == job for relay in self._served.values()):
            _close(pipe)
            return
        if pipe < 0:
            try:
                pipe = open_pipe(uid, n)
            except FileNotFoundError:
                return
            except OSError:
                # Taken over without it, then.
                pass
        self._wanted[uid, n] = _Wanted(limit, pipe, self._transits[transit], begun)
        self._due = 0.0

    def forget(self, job: list[int]) -> None:
        """It is begun anew: what was wanted of an earlier attempt, which was none, is not."""
        uid, n = job
        wanted = self._wanted.pop((uid, n), None)
        if wanted is not None:
            _close(wanted.pipe)

    def waits_for(self, job: list[int]) -> bool:
        """May there still be output of it?"""
        served = any(relay.job == job for relay in self._served.values())
        return served or tuple(job) in self._wanted

    def look(self) -> None:
        """See which of them can be taken over by now."""
        now = time.monotonic()
        if not self._wanted or now < self._due:
            return
        # What a service has that a job has started may be served for months by another one.
        looks = 1 + min(wanted.looks for wanted in self._wanted.values())
        self._due = now + min(_RETRY * looks, _LONGEST)
        for (uid, n), wanted in list(self._wanted.items()):
            wanted.looks += 1
            try:
                # A starter that is about to make the log does so before the second look.
                lost = wanted.begun and wanted.looks > 1
                relay = Relay.take_over(uid, n, wanted.limit, wanted.transit, lost=lost)
            except OSError:
                continue
            if relay is not None:
                self._served[relay.source] = relay
                self._poll.register(relay.source, select.POLLIN)
                # That nobody else had it by now, no poll would ever tell: that is read, behind
                # what was left there.
                relay.drain()
                self.take(relay.source)
            elif _is_pipe(pipe_path(uid, n)):
                # Somebody who is about to end, or to become the command, has it still.
                continue
            del self._wanted[uid, n]
            _close(wanted.pipe)

    def take(self, source: int) -> bool:
        """Move a portion, if this is one of ours."""
        relay = self._served.get(source)
        if relay is None:
            return False
        relay.take()
        if relay.through:
            self._poll.unregister(source)
            del self._served[source]
            relay.close()
        return True

    def size(self, job: list[int]) -> int | None:
        """Of the log, with all that is in the pipe by now. None: nobody served it."""
        self._due = 0.0
        self.look()
        for relay in self._served.values():
            if relay.job == job:
                relay.drain()
                return relay.size
        return None
