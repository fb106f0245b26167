"""What answers the requests of one namespace/name, as a protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from server.login.roles import Role
from server.wire.protocol import Reply, Request

if TYPE_CHECKING:
    from server.session import Session


class HasLeft(Exception):
    """Nobody waits for the answer any more."""


class RequestClass(Protocol):
    """Answers the requests of one namespace/name."""

    def role(self, request: Request) -> Role | None:
        """The least role that may ask this; None: a stranger may."""
        ...

    async def answer(self, session: Session, request: Request) -> Reply | None:
        """The reply; None: there is none. Raises: ProtocolError, SysadmdError."""
        ...
