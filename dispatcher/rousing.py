"""Notices guards and keepers that do not answer, and gets round those that can't be continued.

A keeper that lives answers `hello` at any time; a guard says nothing, so it is looked at if it
is stopped. What is stopped, by a signal or a debugger, is told to go on, which harms nobody.
What does not is fenced off: it gets KILL, which a stopped process takes, too; from there all
goes the way of a dead one, so nothing runs twice. One that is not stopped and yet silent waits
for its disk or for the machine, as another in its place would: that is only said.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from dispatcher import keepers, locks
from dispatcher.keepers import KeeperPair
from dispatcher.processes import look_at
from dispatcher.site import Site

log = logging.getLogger(__name__)

# Between two looks, s. They are counted, and no time is taken: while this process stands still
# or the whole machine does, nobody else has fallen silent.
ROUND: Final = 2.0
# So many looks, and words in vain, before one that is stopped is ended.
PATIENCE: Final = 3
# What was not seen again in so many looks is over: it may be stopped again and again, and is to
# be told of once.
CALM: Final = 5


@dataclass(slots=True)
class Case:
    """What is wrong with one of them. quiet: looks since it was last seen."""

    text: str = ""
    quiet: int = 0


class Rouser:
    """The loop that looks after all pairs, and what it has found."""

    def __init__(self, site: Site, pairs: Mapping[str, KeeperPair]) -> None:
        """pairs: those that there are, by id; others add to them and take away."""
        self._site = site
        self._pairs = pairs
        # By who it is about.
        self._cases: dict[str, Case] = {}
        # By pid: in how many looks without a break it was stopped.
        self._stopped: dict[int, int] = {}

    @property
    def troubles(self) -> list[str]:
        """What is wrong, a line each."""
        return [case.text for case in self._cases.values()]

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(ROUND)
            stopped, self._stopped = self._stopped, {}
            for pair in list(self._pairs.values()):
                self._look(pair, stopped)
            self._settle()

    def _look(self, pair: KeeperPair, stopped: Mapping[int, int]) -> None:
        room = self._site.room
        pair.silent += 1
        if pair.link is not None and pair.silent <= PATIENCE:
            # When it answers these, it answers.
            pair.link.send({"hello": 1})
        guard = locks.holder(room, pair.id, "guard")
        keeper = locks.holder(room, pair.id, "keeper")
        if guard is not None and (rounds := self._rounds(guard, stopped)):
            self._rouse(f"the guard {pair.id}", guard, fence=rounds > PATIENCE)
        if keeper is None:
            for pid in locks.starters(room, pair.id):
                # It is the keeper's to see to them.
                if self._rounds(pid, stopped):
                    self._rouse(f"a starter of the dead keeper {pair.id}", pid, fence=False)
        elif rounds := self._rounds(keeper, stopped):
            fence = min(rounds, pair.silent) > PATIENCE
            self._rouse(f"the keeper {pair.id}", keeper, fence=fence)
        elif pair.silent > PATIENCE:
            self._tell(
                f"the keeper {pair.id}",
                "does not answer, though nobody has stopped it: its disk is full or hangs, or"
                " the machine is too slow; what is to be started waits for it",
            )

    def _rounds(self, pid: int, stopped: Mapping[int, int]) -> int:
        """In how many looks without a break, with this one, it was stopped."""
        stat = look_at(pid)
        # A lock may be held by somebody else for a moment who asks for it.
        if stat is None or not stat.stopped or not self._is_ours(pid):
            return 0
        self._stopped[pid] = stopped.get(pid, 0) + 1
        return self._stopped[pid]

    def _is_ours(self, pid: int) -> bool:
        return keepers.is_of_pair(self._site.state_dir, pid)

    def _rouse(self, who: str, pid: int, *, fence: bool) -> None:
        """Its lock has just shown whose pid it is, and that it lives."""
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL if fence else signal.SIGCONT)
        if fence:
            done = "did not go on when told to, so it was ended; a new pair takes what is new"
        else:
            done = "is told to go on"
        self._tell(who, f"(process {pid}) was stopped and {done}. See who stops it")

    def _tell(self, who: str, what: str) -> None:
        case = self._cases.setdefault(who, Case())
        case.quiet = 0
        text = f"{who} {what}"
        if case.text != text:
            case.text = text
            log.warning("%s", text)

    def _settle(self) -> None:
        for who, case in list(self._cases.items()):
            if case.quiet >= CALM:
                log.info("%s: that is over", who)
                del self._cases[who]
            case.quiet += 1
