"""Processes as the daemon sees them: who lives, who belongs together, and signals to them.

No signal leaves here without a look at the identity of who gets it. Two ways, the fast one with
/proc and pidfds, the portable one with psutil; nothing here waits, and nothing knows of jobs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from dispatcher import reaper
from dispatcher.dye import dyed
from dispatcher.identity import COARSE, HAS_PROC, TICK, Identity, Stat, boot_id, read_stat
from dispatcher.writers import Writers

# Times that stragglers are looked for before those stopped so far are killed.
_SWEEPS: Final = 5
# Times that newcomers are looked for in one look. A quiet machine has none at the second; where
# others start processes without end, this is enough to see those of the job among them.
_LISTINGS: Final = 5
# For how long after it was seen a group's number can't have gone to others, s.
CONTINUITY: Final = 1.0


def boot_mark() -> str:
    """Tells this boot from others, as well as the system can; see `is_same_boot`."""
    return boot_id() or f"~{psutil.boot_time():.0f}"


def is_same_boot(mark: str, other: str) -> bool:
    """Without a true boot id this may be wrong when the clock was set meanwhile."""
    if mark.startswith("~") and other.startswith("~"):
        return abs(float(mark[1:]) - float(other[1:])) <= COARSE * 2
    # Of two kinds: it was switched between the two ways; the identity of processes must do.
    return mark == other or mark.startswith("~") != other.startswith("~")


def look_at(pid: int) -> Stat | None:
    """What there is under this pid now."""
    if HAS_PROC:
        return read_stat(pid)
    try:
        process = psutil.Process(pid)
        booted = psutil.boot_time()
        start = process.create_time() - booted
        if psutil.boot_time() != booted:
            start = process.create_time() - psutil.boot_time()
        status = process.status()
        return Stat(
            pid=pid,
            parent=process.ppid(),
            group=_of(os.getpgid, pid),
            session=_of(os.getsid, pid),
            start=start,
            zombie=status == psutil.STATUS_ZOMBIE,
            stopped=status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP),
        )
    except psutil.Error:
        return None


def _pids() -> list[int]:
    if not HAS_PROC:
        return psutil.pids()
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def _everybody() -> Iterator[Stat]:
    """Who runs, those included that began while we looked: newest first, each pid once.

    Who forks and ends at once is in a list for as long as it takes to look at few.
    """
    looked: set[int] = set()
    for _ in range(_LISTINGS):
        fresh = sorted(set(_pids()) - looked, reverse=True)
        for pid in fresh:
            stat = look_at(pid)
            if stat is not None and not stat.zombie:
                yield stat
        if not fresh:
            return
        looked.update(fresh)


def is_alive(identity: Identity) -> bool:
    """Does this very process run?"""
    stat = look_at(identity.pid)
    return stat is not None and not stat.zombie and is_it(identity, stat)


def is_it(identity: Identity, stat: Stat) -> bool:
    """Is what was seen under the pid this very process?"""
    return identity.is_start(stat.start, coarse=not HAS_PROC)


def command_line(pid: int) -> list[str]:
    """As it was started, or calls itself; empty if it is gone."""
    if HAS_PROC:
        try:
            text = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return []
        return os.fsdecode(text).split("\0")[:-1]
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []


def _of(ask: object, pid: int) -> int:
    try:
        return ask(pid)  # type: ignore[operator, no-any-return]
    except OSError:
        return 0


@dataclass(frozen=True, slots=True)
class Member:
    """A process that belongs to a command, as it was first seen."""

    pid: int
    start: float


def _nobody(_: int) -> bool:
    return False


class Family:
    """A job's process and all that belongs to the job, followed while it is being killed.

    Descendants, the members of its group, and those of its session if it leads that; of those
    that began since the job did, who carries its mark (dispatcher/dye.py), is remembered by the
    system as descending from it (dispatcher/reaper.py), or can write to its files. Who was once
    seen stays a member, wherever it moves and whoever becomes its parent. Where neither mark
    nor memory is to be had, who left group and session, holds no file, and lost its parents
    before they were seen, can't be told from others.
    """

    def __init__(
        self,
        leader: Identity | None,
        *,
        since: float,
        mark: int | None = None,
        files: Collection[Path] = (),
        pids: Collection[int] = (),
        spare: Callable[[int], bool] = _nobody,
    ) -> None:
        """leader: the process of its present command; None: that has not begun.

        since: no process of the job is older, by the boot clock. mark: that no other job's
        process carries which began since then. files: those that its output goes to. pids: of
        all its commands, ended ones included. spare: tells pids that are never members,
        whatever they look like, nor what descends from them; this process is none in any case.
        """
        self._leader = leader
        self._number = 0 if leader is None else leader.pid
        self._mark = mark
        self._files = files
        self._pids = {self._number, *pids} - {0}
        self._spare = spare
        self._members: dict[int, Member] = {}
        # Young processes that were found to be others'; they stay so: what shows a member is
        # handed on at the fork. By pid: their start.
        self._strangers: dict[int, float] = {}
        self._writers: Writers | None = None
        self._since = since - (2 * TICK if HAS_PROC else COARSE)
        # What the leader was seen to lead, and when that number was last known to be its own.
        self._leads_group = self._leads_session = False
        self._held_at = 0.0
        # Somebody that is to be spared is in the group.
        self._mixed = False
        # Who was seen as the leader's parent: gets the orphans where no guard does.
        self._adopter = 1

    def look(self, strike: signal.Signals | None = None) -> bool:
        """Look for members. False: nobody is left.

        strike: a signal to those that are found by other signs than descent, in the moment that
        they are seen.
        """
        held = self._is_number_held()
        self._mixed = False
        if self._writers is not None:
            self._writers.look_again()
        strangers, self._strangers = self._strangers, {}
        seen: dict[int, Stat] = {}
        alive: dict[int, Member] = {}
        for stat in _everybody():
            pid = stat.pid
            seen[pid] = stat
            known = self._members.get(pid)
            if known is not None and _is_member(known, stat):
                alive[pid] = known
                continue
            if held and self._is_by_number(stat):
                belongs = pid == self._number or not self._is_spared(pid)
                self._mixed |= not belongs and stat.group == self._number
            elif stat.start < self._since:
                belongs = False
            elif strangers.get(pid) == stat.start:
                self._strangers[pid] = stat.start
                belongs = False
            else:
                belongs = self._is_stray(stat)
            if belongs:
                alive[pid] = Member(pid, stat.start)
                if strike is not None:
                    send(alive[pid], strike)
        self._add_descendants(alive, seen)
        self._members = alive
        if any(self._is_by_number(seen[pid]) for pid in alive):
            self._held_at = time.monotonic()
        return bool(alive)

    def _is_spared(self, pid: int) -> bool:
        return pid == os.getpid() or self._spare(pid)

    def _is_stray(self, stat: Stat) -> bool:
        """Is it ours, though nobody's descendant and in neither group nor session?"""
        if self._mark is not None and dyed(stat.pid) == self._mark:
            return self._is_own(stat) and not self._is_spared(stat.pid)
        if self._pids and self._is_remembered(stat.pid):
            return not self._is_spared(stat.pid)
        if self._writers is None:
            self._writers = Writers(self._files)
        if stat.pid in self._writers:
            return not self._is_spared(stat.pid)
        self._strangers[stat.pid] = stat.start
        return False

    def _is_remembered(self, pid: int) -> bool:
        origin = reaper.origin(pid)
        # Below another reaper than a starter the number is somebody else's.
        return origin is not None and origin[1] in self._pids and self._is_spared(origin[0])

    def _is_own(self, stat: Stat) -> bool:
        """Who carries our mark may have it from elsewhere: another daemon's job, or one that
        had the mark long ago and left a service. Then a living parent shows that."""
        while True:
            if stat.parent in self._members or stat.parent in (0, 1, self._adopter):
                return True
            parent = look_at(stat.parent)
            if parent is None:
                return True
            if dyed(parent.pid) != self._mark:
                now = look_at(stat.pid)
                if now is not None and now.parent != stat.parent:
                    # That one ended while we looked.
                    stat = now
                    continue
                # Orphans fall to the guard.
                return self._is_spared(parent.pid)
            if parent.start < self._since:
                return False
            stat = parent

    def _is_number_held(self) -> bool:
        """Is the number of group and session still the command's own?

        It is nobody else's while the leader is there, even as a zombie, or any member; the pids
        would have to go round once for it to change hands in between.
        """
        if self._leader is None:
            return False
        first = look_at(self._leader.pid)
        if first is None:
            return time.monotonic() - self._held_at < CONTINUITY
        if not is_it(self._leader, first):
            return False
        self._leads_group = first.group == first.pid
        self._leads_session = first.session == first.pid
        self._adopter = first.parent
        self._held_at = time.monotonic()
        return True

    def _is_by_number(self, stat: Stat) -> bool:
        number = self._number
        return (self._leads_group and stat.group == number) or (
            self._leads_session and stat.session == number
        )

    def _add_descendants(self, alive: dict[int, Member], seen: dict[int, Stat]) -> None:
        children: dict[int, list[Stat]] = {}
        for stat in seen.values():
            children.setdefault(stat.parent, []).append(stat)
        todo = list(alive)
        while todo:
            for stat in children.get(todo.pop(), ()):
                if stat.pid not in alive and not self._is_spared(stat.pid):
                    alive[stat.pid] = Member(stat.pid, stat.start)
                    todo.append(stat.pid)

    def terminate(self) -> None:
        """Ask all of them to end; wake those that are stopped, so that they can."""
        for number in (signal.SIGTERM, signal.SIGCONT):
            reached = self._signal_group(number)
            for member in self._members.values():
                if not (reached and _of(os.getpgid, member.pid) == self._number):
                    send(member, number)

    def kill(self) -> bool:
        """End all that are there now. False: nobody is left."""
        if not self.look(strike=signal.SIGSTOP):
            return False
        # Reaches everyone in the group at one instant, however fast they fork.
        self._signal_group(signal.SIGKILL)
        # Who forks can't outrun this: stopped ones don't.
        stopped: set[int] = set()
        for _ in range(_SWEEPS):
            fresh = self._members.keys() - stopped
            if not fresh:
                break
            for pid in fresh:
                send(self._members[pid], signal.SIGSTOP)
            stopped |= fresh
            self.look(strike=signal.SIGSTOP)
        for member in self._members.values():
            send(member, signal.SIGKILL)
        return self.look()

    def _signal_group(self, number: signal.Signals) -> bool:
        if self._mixed or self._leader is None:
            return False
        stat = look_at(self._leader.pid)
        if stat is None or stat.group != stat.pid or not is_it(self._leader, stat):
            return False
        try:
            os.killpg(stat.pid, number)
        except OSError:
            return False
        return True


def _is_member(member: Member, stat: Stat) -> bool:
    slack = TICK / 2 if HAS_PROC else COARSE
    return abs(stat.start - member.start) < slack


def send(member: Member, number: signal.Signals) -> None:
    """Signal a process if it is still the one; nothing happens if it is gone."""
    if not HAS_PROC or not hasattr(os, "pidfd_open"):
        stat = look_at(member.pid)
        if stat is not None and _is_member(member, stat):
            with contextlib.suppress(OSError):
                os.kill(member.pid, number)
        return
    try:
        process = os.pidfd_open(member.pid)
    except OSError:
        return
    try:
        # The descriptor stays with the process that had the pid when it was opened.
        stat = read_stat(member.pid)
        if stat is not None and _is_member(member, stat):
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(process, number)
    finally:
        os.close(process)
