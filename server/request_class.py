"""What answers the requests of one namespace/name, as a protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from server.login.roles import Role
from server.wire.protocol import ProtocolError, Reply, Request
from sysadmd.errors import SysadmdError

if TYPE_CHECKING:
    from server.session import Session


class HasLeft(Exception):
    """Nobody waits for the answer any more."""


class Begun(NamedTuple):
    """What is under way without a task: its end, and the reply that this makes."""

    done: asyncio.Future[Any]
    reply: Callable[[Any], Reply]


class RequestClass(Protocol):
    """Answers the requests of one namespace/name.

    It may have a method `begin` as well, with the arguments of `answer` and its errors, for
    what needs no task: it returns the reply, or what has begun, or None if `answer` is to be
    called. That is called after an error, too, and finds things as they were.
    """

    def role(self, request: Request) -> Role | None:
        """The least role that may ask this; None: a stranger may."""
        ...

    async def answer(self, session: Session, request: Request) -> Reply | None:
        """The reply; None: there is none. Raises: ProtocolError, SysadmdError."""
        ...


def begin(
    handler: RequestClass | None, session: Session, request: Request
) -> Reply | Begun | None:
    """The reply, or what goes on by itself; None: it takes a task, or is to be refused."""
    beginning: Callable[[Session, Request], Reply | Begun | None] | None
    beginning = getattr(handler, "begin", None)
    try:
        return None if beginning is None else beginning(session, request)
    except (ProtocolError, SysadmdError, HasLeft):
        return None
