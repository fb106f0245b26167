"""rpc/clients: who is connected, and what was delivered to them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from server.classes.paging import first_page, paging
from server.dialects.values import rfc3339
from server.login.roles import Role
from server.session import Session
from server.sessions import Sessions
from server.wire.protocol import Reply, Request


class Clients:
    """`list`: address, account, systems and the account of events of each client."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def role(self, request: Request) -> Role | None:
        return Role.FULL

    async def answer(self, session: Session, request: Request) -> Reply | None:
        if request.action() != "list":
            raise request.refuse(404, "rpc/clients knows the action list")
        limit, after = paging(request, request.fields())
        others = (other for other in self._sessions if other.number > (after or 0))
        entries = ((other.number, _client(other)) for other in others)
        clients, more = first_page(entries, limit)
        return Reply({"clients": clients, "total": asdict(self._sessions.ledger), **more})


def _client(session: Session) -> dict[str, Any]:
    return {
        "address": session.address,
        "account": session.login.account if session.login else None,
        "systems": session.subscriber.systems,
        "since": rfc3339(round(session.since * 1000)),
        "buffered": session.connection.buffered,
        **asdict(session.subscriber.ledger),
    }
