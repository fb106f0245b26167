"""What is known of a command when its fate is asked for: its row, and what a book says of it.

Each is read with one statement, which has all that any decision about it needs. Changes
nothing.
"""
# ruff: noqa: S608 - the texts of queries are put together of constants alone

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Any, Final, Self

from dispatcher.fate import Pair
from dispatcher.identity import Identity
from dispatcher.records import RUNNING
from dispatcher.words import Barred, Began, Dead, End, Fact, Left, Next, Returned

# Has its job no command behind it?
_LAST: Final = (
    "NOT EXISTS (SELECT 1 FROM commands AS later"
    " WHERE later.job = uid AND later.n = commands.n + 1)"
)


@dataclass(slots=True)
class Spoken:
    """What new lines of a book say of one command."""

    following: Next | None = None
    began: Began | None = None
    end: End | None = None
    barred: bool = False
    left: bool = False
    returned: Returned | None = None

    @property
    def has_turn(self) -> bool:
        """Had it been lent, its turn has come."""
        return bool(self.following or self.began or self.end or self.barred or self.left)


@dataclass(frozen=True, slots=True)
class RunningCommand:
    """A command that runs as far as the tables know, and its job.

    pid: its process; as long as it has not begun, that of its starter. secrets: the job brought
    an environment.
    """

    uid: int
    n: int
    keeper: str | None
    next_at: float | None
    began_at: float | None
    pid: int | None
    told: int
    ending: str | None
    queue: str | None
    boot: str
    secrets: bool
    last: bool

    @property
    def identity(self) -> Identity | None:
        """Its process, if it has begun."""
        if self.pid is None or self.next_at is None or self.began_at is None:
            return None
        return Identity(self.pid, self.next_at, self.began_at)

    def with_lines(self, said: Spoken) -> RunningCommand:
        """As it is with what the book says."""
        began, following = said.began, said.following
        if began is not None:
            return self._of_process(began.since, began.at, began.pid)
        if following is not None and self.began_at is None:
            return self._of_process(following.at, None, following.pid)
        return self

    def _of_process(self, next_at: float, began_at: float | None, pid: int | None) -> Self:
        # With each command: a tenth of what `replace` costs.
        return type(self)(
            *(self.uid, self.n, self.keeper, next_at, began_at, pid, self.told, self.ending),
            *(self.queue, self.boot, self.secrets, self.last),
        )


@dataclass(frozen=True, slots=True)
class Program:
    """A command and what its job says of how it is to be run. state: the job's. argv: a JSON
    list. secrets: the job brought an environment. last: the job has no further one."""

    uid: int
    n: int
    argv: str
    cwd: str | None
    queue: str | None
    state: int
    timeout: float | None
    deadline: float | None
    event_system: str | None
    setting: str | None
    channel: str | None
    secrets: bool
    last: bool


def running_command(db: Connection, uid: int, n: int) -> RunningCommand | None:
    """This command, if it runs."""
    # The state is not asked for there: an index of states would be taken for the way to it.
    row = db.execute(
        "SELECT commands.state, uid, n, keeper, next_at, began_at, pid, told, ending, queue,"
        f" boot, env IS NOT NULL, {_LAST} FROM commands JOIN jobs ON job = uid"
        " WHERE job = ? AND n = ?",
        (uid, n),
    ).fetchone()
    return RunningCommand(*row[1:]) if row and row[0] == RUNNING else None


def program(db: Connection, uid: int, n: int) -> Program | None:
    """What this command is, if it is there."""
    row = db.execute(
        "SELECT uid, n, argv, cwd, queue, jobs.state, timeout, deadline, event_system, setting,"
        f" channel, env IS NOT NULL, {_LAST} FROM commands JOIN jobs ON job = uid"
        " WHERE job = ? AND n = ?",
        (uid, n),
    ).fetchone()
    if row is None:
        return None
    values: list[Any] = [*row[:-1], bool(row[-1])]
    return Program(*values)


def sort_lines(lines: Sequence[Fact], pair: Pair) -> tuple[dict[tuple[int, int], Spoken], Pair]:
    """What the lines say of each command, and of the pair."""
    said: dict[tuple[int, int], Spoken] = {}
    for line in lines:
        if isinstance(line, Dead):
            pair = pair if pair is Pair.OVER else Pair.DEAD
            continue
        known = said.get(line.job) or Spoken()
        if isinstance(line, Next):
            # What was said before is of an earlier attempt, which was none.
            known = Spoken(following=line)
        elif isinstance(line, Began):
            known.began = line
        elif isinstance(line, End):
            known.end = line
        elif isinstance(line, Barred):
            known.barred = True
        elif isinstance(line, Left):
            known.left = True
        else:
            known.returned = line
        said[line.job] = known
    return said, pair
