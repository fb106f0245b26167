"""What a step forward of all jobs is told, and what it leads to: values, and nothing else.

The step itself, a change of the tables, is in dispatcher/transitions.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dispatcher.fate import Pair
from dispatcher.identity import Identity
from dispatcher.reports import Fields
from dispatcher.words import Fact


@dataclass(frozen=True, slots=True)
class Now:
    """The moment of a change. wall: s since 1970; boot: s since boot."""

    wall: float
    boot: float
    boot_id: str

    @property
    def ms(self) -> int:
        return round(self.wall * 1000)


@dataclass(frozen=True, slots=True)
class Facts:
    """New lines of a keeper's book, and where it will have been read to.

    pair: what guard and keeper could still do when this was read, the lines apart. alive: one
    of them lived then, so it is of this boot.
    """

    keeper: str
    lines: Sequence[Fact]
    generation: int
    position: int
    pair: Pair = Pair.STARTS
    alive: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of a command without a book: its process is `gone`, its start `barred`."""

    uid: int
    n: int
    gone: bool = False
    barred: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """A command that a keeper is given: committed as running, or as the first one of a job that
    is lent.

    env: what the job adds. channel: the variable that names the socket for its events. last: of
    its job. mark: of that lending; 0: it is none.
    """

    uid: int
    n: int
    queue: str | None
    argv: list[str]
    env: dict[str, str]
    cwd: str
    deadline: float | None
    event_system: str | None
    channel: str | None
    last: bool
    mark: int = 0


@dataclass(frozen=True, slots=True)
class Orphan:
    """A command that has begun, and whose guard and keeper are dead."""

    uid: int
    n: int
    identity: Identity


@dataclass(frozen=True, slots=True)
class Promoted:
    """A job that was lent and runs now. deadline: by the boot clock."""

    uid: int
    queue: str | None
    deadline: float | None


@dataclass(slots=True)
class Outcome:
    """What a change led to, for the memory of the daemon; true once it is committed."""

    starts: list[Start] = field(default_factory=list[Start])
    unsent: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    began: list[tuple[int, int, Identity]] = field(
        default_factory=list[tuple[int, int, Identity]]
    )
    finished: list[tuple[str | None, int]] = field(default_factory=list[tuple[str | None, int]])
    # Finished as well, but never started.
    withdrawn: list[tuple[str | None, int]] = field(
        default_factory=list[tuple[str | None, int]]
    )
    orphans: list[Orphan] = field(default_factory=list[Orphan])
    # Of those that have ended, the ones whose keeper does not know by itself.
    cut: list[int] = field(default_factory=list[int])
    # To be lent; those that the keeper has begun, and those that it has given back.
    lent: list[Start] = field(default_factory=list[Start])
    promoted: list[Promoted] = field(default_factory=list[Promoted])
    returned: list[int] = field(default_factory=list[int])
    # Of these jobs would have started.
    paused: set[str | None] = field(default_factory=set[str | None])


# What a class tells of a job's end, by how it ended.
Endings = Mapping[int, Callable[[str], Fields]]
NO_ENDINGS: Final[Endings] = {}
