"""What is told of one job again and again: its commands as JSON, each written once.

A command's entry in an event says that it is to come, that it runs, or how it ended. The first
and the last never change, so an event of a job costs no more than what is new in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from sqlite3 import Connection
from typing import Final

import msgspec
from msgspec.structs import replace

from dispatcher import records
from dispatcher.events import Told
from dispatcher.records import Command, JobRow
from server.dialects.values import CommandEntry, entry

_encode: Final = msgspec.json.Encoder().encode

# What a sheet takes in memory: of itself, of each command, and of each byte of their texts
# (in the record, in both entries and in the list).
_SHEET: Final = 1024
_EACH: Final = 1400
_TEXTS: Final = 6


class Sheet:
    """A job's record as events tell it; grows with the job."""

    def __init__(self, job: JobRow) -> None:
        """Its commands are read once an event of it is told that shows them."""
        self.job = job
        self._commands_size = 0
        self.commands: list[Command] = []
        self.texts = msgspec.Raw(b"[]")
        # The texts that several of its commands have: as keys of an object they are one.
        self.shared: Collection[str] = ()
        self._begun = False
        # Entries of the first commands, as they ended; of all, as they are before their start.
        self._ended: list[CommandEntry] = []
        self._to_come: list[CommandEntry] = []

    @property
    def size(self) -> int:
        """Bytes in memory."""
        # Four for each character, in a text with one emoji.
        return _SHEET + self._commands_size + 4 * len(self.job.report)

    def begin(self, db: Connection) -> None:
        """Read its commands, if they were not read yet."""
        if not self._begun:
            self.have(records.commands(db, self.job.uid))

    def have(self, commands: list[Command]) -> None:
        """These are its commands."""
        self._begun = True
        self.commands = commands
        texts = [command.text for command in commands]
        self.texts = msgspec.Raw(_encode(texts))
        if len(texts) > 1:
            self.shared = {text for text, count in Counter(texts).items() if count > 1}
        self._commands_size = _EACH * len(texts) + _TEXTS * len(bytes(self.texts))

    def entries(self, db: Connection, told: Told) -> Sequence[CommandEntry]:
        """All commands as they were when the event was told; none of one that waits."""
        if told.state == "pending":
            return ()
        self.begin(db)
        self._read_on(db, told)
        if told.state == "finished":
            return self._as_ended(len(self.commands))
        if not self.commands:
            return ()
        n = told.command
        running = replace(
            _bare(self.commands[n]),
            state="running",
            started=self.commands[n].started,
            log_size=told.end,
        )
        return [*self._as_ended(n), entry(running), *self._as_pending(n + 1)]

    def ended(self, told: Told) -> Sequence[Command]:
        """The first commands, which had been dealt with when the event was told: ended, or at
        the job's end never started."""
        return self.commands if told.state == "finished" else self.commands[: told.command]

    def _read_on(self, db: Connection, told: Told) -> None:
        """Read what may have changed since the last event."""
        if self.job.state == "finished":
            return
        row = records.row(db, self.job.uid)
        if row is None:
            # Retention has it: what is known of it stays true.
            return
        self.job = row
        first = len(self._ended)
        last = -1 if row.state == "finished" else told.command
        fresh = records.commands(db, row.uid, first, last)
        self.commands[first : first + len(fresh)] = fresh

    def _as_ended(self, upto: int) -> Sequence[CommandEntry]:
        for command in self.commands[len(self._ended) : upto]:
            self._ended.append(entry(command if was_started(command) else _bare(command)))
        return self._ended[:upto]

    def _as_pending(self, first: int) -> Sequence[CommandEntry]:
        if first < len(self.commands) and not self._to_come:
            bare = map(_bare, self.commands)
            self._to_come = [entry(replace(command, state="pending")) for command in bare]
        return self._to_come[first:]


def was_started(command: Command) -> bool:
    """Of a command that has been dealt with: was it started?"""
    return command.state not in ("pending", "skipped")


def _bare(command: Command) -> Command:
    return replace(command, return_code=None, started=None, finished=None, log_size=0)
