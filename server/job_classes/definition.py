"""What a class is: its actions, and what it makes of what its jobs say. No wire, no process.

docs/writing-a-class.md has a whole one as an example.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, cast

from dispatcher.commandline import Spec, join
from dispatcher.orders import Order
from dispatcher.records import JobRow
from dispatcher.reports import Reporter
from server.job_classes.tool import ToolAnswer
from sysadmd.errors import BadRequest
from sysadmd.machine import COMMAND_PATH
from sysadmd.settings import ClassSettings
from sysadmd.text import quoted

T = TypeVar("T")

# Digits of a place in a list.
_LONGEST_PLACE: Final = 19


class Asked(Protocol):
    """One request, and what an action may do about it."""

    @property
    def args(self) -> Arguments:
        """What was asked for."""
        ...

    @property
    def tool(self) -> str:
        """The class's tool, as `JobClass.find` found it."""
        ...

    @property
    def settings(self) -> ClassSettings:
        """Those in force."""
        ...

    @property
    def turn(self) -> asyncio.Lock:
        """Of the class: to be held by an action that looks and then acts upon it."""
        ...

    async def queue(self, order: Order) -> JobRow:
        """Queue a job in the class's name; returns when it is accepted. Who asked for it is
        written down. Raises: BadRequest, Conflict, Stopping, StoreFull."""
        ...

    async def kill(self, id: str) -> bool:
        """Kill a job; False: there is none of this id. Raises: Stopping, StoreFull."""
        ...

    async def ask(self, *argv: str, read: Callable[[ToolAnswer], T]) -> T:
        """Run a program that only tells something; what `read` makes of its answer, and raises.

        In a thread: an answer may be long. Raises: ToolFailed if the program can't be run, says
        too much, or does not end in time.
        """
        ...

    async def jobs(self, action: str | None = None) -> list[JobRow]:
        """The class's own jobs, newest first, some hundred at most; of one action only."""
        ...

    async def output(self, job: JobRow, limit: int) -> str:
        """All that its commands have written: at most so many bytes as JSON, both ends."""
        ...

    async def note(self, action: str) -> None:
        """Write down that it is done, before it is. Raises: StoreFull."""
        ...


@dataclass(frozen=True, slots=True)
class AnswerPage:
    """An answer that may go on. next: as `after` it gives the rest; None: that is all."""

    value: Any
    next: str | None


def told(action: str, answer: Any) -> dict[str, Any]:
    """A reply: what an action has answered, and beside it what comes next."""
    if not isinstance(answer, AnswerPage):
        return {action: answer}
    more = {} if answer.next is None else {"next": answer.next}
    return {action: answer.value, **more}


@dataclass(frozen=True, slots=True)
class Action:
    """answer: the value in the reply, or an `AnswerPage` of it. reading: it queues no job and
    changes nothing."""

    answer: Callable[[Asked], Awaitable[Any]]
    reading: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobClass:
    """name: namespace/name. needs: which tool, for people.

    find: the tool that its actions use; None: it is not on this machine, and so there is no
    such class. For a thread: it looks at files, or asks a program. Raises: ToolFailed if it
    can't tell.
    """

    name: str
    needs: str
    find: Callable[[ClassSettings], str | None]
    actions: Mapping[str, Action]
    reporter: Reporter


def first_of(*tools: str) -> str | None:
    """The first of these programs that is on this machine."""
    return next((tool for tool in tools if shutil.which(tool, path=COMMAND_PATH)), None)


class Arguments:
    """`args` of a request, each read once and checked. Raises: BadRequest, naming the key."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def text(self, key: str) -> str:
        """One that has to be there, and not empty."""
        value = self.optional(key)
        if not value:
            raise BadRequest(f"args.{key} is missing; it must be a string")
        return value

    def optional(self, key: str) -> str | None:
        """A text, if it is there."""
        value = self.values.get(key)
        if not isinstance(value, str | None):
            raise BadRequest(f"args.{key} must be a string")
        return value

    def switch(self, key: str, *, default: bool) -> bool:
        """`"true"` or `"false"`, also as JSON has them."""
        value = self.values.get(key, default)
        known = {"true": True, "false": False}
        found = known.get(value.lower()) if isinstance(value, str) else value
        if not isinstance(found, bool):
            raise BadRequest(f'args.{key} is {quoted(str(value))}; allowed: "true", "false"')
        return found

    def number(self, key: str, default: int, least: int, most: int) -> int:
        """A whole number."""
        value = self.values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise BadRequest(f"args.{key} must be a whole number from {least} to {most}")
        return value

    def after(self) -> int:
        """How many have been told before: the `next` of an `AnswerPage`; 0 without one."""
        value = self.optional("after")
        if value is None:
            return 0
        if not (value.isascii() and value.isdigit() and len(value) < _LONGEST_PLACE):
            raise BadRequest("args.after must be the next of an earlier reply")
        return int(value)

    def texts(self, key: str) -> list[str]:
        """A text or a list of them; none if it is not there."""
        value = self.values.get(key)
        listed = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(listed, list) or not all(
            isinstance(one, str) for one in cast("list[object]", listed)
        ):
            raise BadRequest(f"args.{key} must be a string or a list of strings")
        return cast("list[str]", listed)


def command(*argv: str) -> Spec:
    """A command of a job."""
    return Spec(argv, join(argv))


def new_uuid() -> str:
    """A new one in braces, as ids of jobs have them."""
    return f"{{{uuid.uuid4()}}}"
