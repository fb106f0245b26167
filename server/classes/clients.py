"""rpc/clients: who is connected, what was delivered to them; whose passwords are refused."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from server.classes.paging import first_page, paging
from server.dialects.values import rfc3339
from server.login import audit
from server.login.guesses import Guesses
from server.login.roles import Role
from server.session import Session
from server.sessions import Sessions
from server.wire.protocol import Reply, Request
from sysadmd.errors import NotFound
from sysadmd.store import Store
from sysadmd.text import quoted


class Clients:
    """`list`: address, account, systems and the account of events of each client. `blocks`,
    `unblock`: addresses from which too many passwords were wrong."""

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        guesses: Guesses,
        group_of: Callable[[str], str],
    ) -> None:
        """group_of: what an address is counted by; it raises a ValueError for what is none."""
        self._store = store
        self._sessions = sessions
        self._guesses = guesses
        self._group_of = group_of
        self._clock = asyncio.get_running_loop().time

    def role(self, request: Request) -> Role | None:
        return Role.FULL

    async def answer(self, session: Session, request: Request) -> Reply | None:
        action = request.action()
        if action == "unblock":
            return await self._unblock(session, request)
        if action not in ("list", "blocks"):
            raise request.refuse(404, "rpc/clients knows the actions list, blocks, unblock")
        limit, after = paging(request, request.fields())
        if action == "blocks":
            return Reply(self._blocks(limit, after or 0))
        others = (other for other in self._sessions if other.number > (after or 0))
        entries = ((other.number, _client(other)) for other in others)
        clients, more = first_page(entries, limit)
        return Reply({"clients": clients, "total": asdict(self._sessions.ledger), **more})

    def _blocks(self, limit: int, after: int) -> dict[str, Any]:
        blocks = (
            (number, {"address": address, "seconds": math.ceil(seconds)})
            for number, (address, seconds) in enumerate(self._guesses.blocked(self._clock()), 1)
            if number > after
        )
        found, more = first_page(blocks, limit)
        return {"blocks": found, **more}

    async def _unblock(self, session: Session, request: Request) -> Reply:
        address = request.fields().get("address")
        blocked = {address for address, _ in self._guesses.blocked(self._clock())}
        try:
            if not isinstance(address, str):
                raise ValueError(address)  # noqa: TRY301, TRY004 - as what is no address
            # A network of IPv6 is named as `blocks` does, or by an address in it.
            group = address if address in blocked else self._group_of(address)
        except ValueError as error:
            detail = "args.address must be an IP address, or a network that `blocks` names"
            raise request.refuse(400, detail) from error
        if group not in blocked:
            raise NotFound(f"{quoted(group)} is not blocked; `sysadmctl unblock` lists who is")
        account = session.require(request, Role.FULL).account
        await self._store.write(
            audit.entry(account, session.address, f"unblock {group}"),
            lambda _: self._guesses.unblock(group),
        )
        return Reply({"unblocked": group})


def _client(session: Session) -> dict[str, Any]:
    return {
        "address": session.address,
        "account": session.login.account if session.login else None,
        "systems": session.subscriber.systems,
        "since": rfc3339(round(session.since * 1000)),
        "buffered": session.connection.buffered,
        **asdict(session.subscriber.ledger),
    }
