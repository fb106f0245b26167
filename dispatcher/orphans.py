"""The keeper's orphans: commands whose starter has died, and of which it tells the rest.

Who they are is found out in dispatcher/adoption.py. No book is written here. Standard library
only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection

from dispatcher import adoption, book, output_files
from dispatcher.guard import return_code
from dispatcher.refusal import CANNOT_RUN
from dispatcher.relays import Relays
from dispatcher.starter_line import HandedOver
from dispatcher.words import Commanded


class Orphans:
    """Those of which more is to be told; their output is the relays'."""

    def __init__(
        self,
        mark: int,
        relays: Relays,
        write: Callable[[book.Line], object],
        end: Callable[[Commanded, book.Line], object],
    ) -> None:
        """mark: of the dye. write, end: write down a line, and the last one of a command."""
        self._mark = mark
        self._relays = relays
        self._write = write
        self._end = end
        # By pid; and those of which nobody knows who they are.
        self._known: dict[int, HandedOver] = {}
        self._doubtful: list[HandedOver] = []

    @property
    def commands(self) -> list[HandedOver]:
        """Those that have not ended, as far as we know."""
        return [*self._known.values(), *self._doubtful]

    def __contains__(self, pid: int) -> bool:
        return pid in self._known

    def adopt(self, command: HandedOver, dead: int, others: Collection[int]) -> None:
        """Its starter is dead: what becomes of it is ours to say, if it has fallen to us.

        dead: that starter's pid; others: those of other starters.
        """
        job = command.job
        if command.began:
            self.serve(command)
            pid = json.loads(command.began)["pid"]
            if adoption.is_ours(pid):
                self._known[pid] = command
            else:
                self._write({"left": job})
            return
        since: float = command.following["at"]
        try:
            found = adoption.find(job, since, self._mark, {dead, *others, *self._known})
        except adoption.Doubt:
            self.serve(command)
            self._doubtful.append(command)
            return
        if found is None:
            output_files.forget_pipe(job, command.pipe)
            # Its job keeps its place: it is started once more.
            self._write(book.end(job, CANNOT_RUN, 0, begun=False))
            return
        self.serve(command)
        began = book.began(job, found, since)
        command.began = book.encode(began)
        self._write(began)
        self._known[found] = command

    def serve(self, command: HandedOver) -> None:
        """Its starter is dead: its output is ours."""
        limit, transit = command.following["limit"], command.following.get("transit")
        self._relays.want(command.job, limit, command.pipe, transit)
        command.pipe = -1
        self._relays.look()

    def ended(self, ended: os.waitid_result) -> None:
        """A child has ended, and is not reaped: if it is one of these, that is its end."""
        command = self._known.pop(ended.si_pid, None)
        if command is not None:
            size = self._relays.size(command.job)
            self._end(command.order, book.end(command.job, return_code(ended), size))

    def resolve_doubts(self) -> None:
        """What may have begun, we know not as whom, has ended when nobody has its output."""
        for command in self._doubtful[:]:
            if not self._relays.waits_for(command.job):
                self._doubtful.remove(command)
                self._end(command.order, book.end(command.job, None, None))
