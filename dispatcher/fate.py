"""What became of a command: the one place where that is decided. Values in, a value out.

Asked whenever something was learnt of a command that runs as far as the tables know: from a
keeper's book, of the pair that was given it, of its process. Whoever acts on the answer does so
in the transaction in which the row was read; the row then runs no more, or at another keeper,
so the same fact heard again decides nothing.

    its end is known                    it has ended, whatever else was learnt, in any boot
    it has ended, nobody knows how      lost
    it was begun in another boot        lost: nobody saw the end
    its start was barred                the job ends; a kill bars what has not begun
    it may have begun, nobody can tell  lost
    it never began, and never will      started anew; if the job is to end, the job ends
    what it would start with is gone    lost, instead of started without it
    it began, nobody will tell its end  watched until its process is gone; then lost
    else                                nothing: more will be learnt
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

LOST: Final = "lost"
KILLED: Final = "killed"


class Pair(Enum):
    """What guard and keeper, to which a command was given, may still do for it.

    STARTS: all. SETTLED: the keeper begins nothing that it has not announced. DEAD: the keeper
    is dead, nothing begins; guard or starters still tell ends. OVER: all are dead, the book is
    read.
    """

    STARTS = auto()
    SETTLED = auto()
    DEAD = auto()
    OVER = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All that is known of a command that runs as far as the tables know.

    announced: a keeper wrote that it comes next. begun: its process is known. code: with which
    it ended, 0..255 or minus the signal. unknown: it has ended, or will not be seen any more,
    with a code that nobody knows. unbegun: its starter ended before it. barred: its log was
    made by somebody else first, so it can't begin. left: nobody will tell its end. gone: its
    process was looked for, in vain. log: its log is there, and says that it may have begun; the
    guard had no time to look for it. ending: how its job is to end, decided before the first
    signal. same_boot: the machine has not been down since the job's start. last: the job has no
    further command. forgotten: its environment is not there any more.
    """

    pair: Pair
    announced: bool = False
    begun: bool = False
    code: int | None = None
    unknown: bool = False
    unbegun: bool = False
    barred: bool = False
    left: bool = False
    gone: bool = False
    log: bool = False
    ending: str | None = None
    same_boot: bool = True
    last: bool = True
    forgotten: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """It has ended. code: None: nobody knows. result: the job's; None: its next one starts."""

    code: int | None
    result: str | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """It never began, and never will; the job ends with this result."""

    result: str


class Open(Enum):
    """AGAIN: it has to be started. WATCH: its process has to be watched. WAIT: for more."""

    AGAIN = auto()
    WATCH = auto()
    WAIT = auto()


Fate = Ended | Skipped | Open


def judge(known: Known) -> Fate:
    """The command's fate. Of one that was judged Ended or Skipped nothing is asked again."""
    if known.code is not None:
        return Ended(known.code, _result(known, known.code))
    if not known.same_boot:
        return Ended(None, known.ending or LOST)
    if known.unknown:
        return Ended(None, known.ending or LOST)
    if known.begun:
        if known.pair is not Pair.OVER and not known.left:
            return Open.WAIT
        return Ended(None, known.ending or LOST) if known.gone else Open.WATCH
    if known.barred:
        # Only a kill bars; while the disk was full it may have left no other mark.
        return Skipped(known.ending or KILLED)
    if not _never_begins(known):
        return Open.WAIT
    if known.pair in (Pair.DEAD, Pair.OVER) and known.log and not known.unbegun:
        # Its starter had no time to write that it began, or the book is gone: no second run of
        # what may have run.
        return Ended(None, known.ending or LOST)
    if known.ending:
        return Skipped(known.ending)
    return Skipped(LOST) if known.forgotten else Open.AGAIN


def _never_begins(known: Known) -> bool:
    """Is there nobody any more who would begin it?"""
    if known.unbegun or known.pair in (Pair.DEAD, Pair.OVER):
        return True
    return known.pair is Pair.SETTLED and not known.announced


def _result(known: Known, code: int) -> str | None:
    """The job's result after this end; None: it goes on."""
    if known.ending:
        return known.ending
    if code:
        return "failed"
    if known.last:
        return "succeeded"
    # Between two commands when the machine went down: what was to come did not.
    return None if known.same_boot and not known.forgotten else LOST
