"""rpc/identify, rpc/query: what speaks here, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from server.login.roles import Role
from server.session import Session
from server.wire.protocol import Reply, Request
from sysadmd import __version__


class Identify:
    """Anyone may ask what speaks here."""

    def __init__(self, hostname: Callable[[], str]) -> None:
        self._hostname = hostname

    def role(self, request: Request) -> Role | None:
        return None

    async def answer(self, session: Session, request: Request) -> Reply | None:
        return Reply({"type": "server", "hostname": self._hostname(), "version": __version__})


class Query:
    """The classes that this account can use here, and how."""

    def __init__(self, job_classes: Callable[[], Awaitable[list[str]]]) -> None:
        """job_classes: those that queue jobs, and whose tools are here now."""
        self._job_classes = job_classes

    def role(self, request: Request) -> Role | None:
        return Role.READ

    async def answer(self, session: Session, request: Request) -> Reply | None:
        role = session.require(request, Role.READ).role
        full = role >= Role.FULL
        level = "read/write" if full else "read"
        classes = {
            "rpc/dispatcher": level,
            "rpc/logs": "read",
            "rpc/settings": "read/write",
        }
        if role >= Role.LIMITED:
            classes.update(dict.fromkeys(await self._job_classes(), level))
        if full:
            classes["rpc/clients"] = "read/write"
            classes["rpc/tokens"] = "read/write"
        return Reply(classes)
