"""What is told again of jobs that wait: those of classes, within a bound, and true."""

import asyncio
import json
from pathlib import Path

from dispatcher import events
from dispatcher.commandline import Spec
from dispatcher.orders import Order, Origin
from dispatcher.steps import Now
from server.daemon import SCHEMAS
from server.delivery.frames import Form
from server.delivery.waiting import MOST, SIZE
from server.dialects import DIALECTS
from sysadmd.journal import Transaction
from sysadmd.store import open_store
from tests.kit.accepting import accept
from tests.kit.delivery import sources_of
from tests.kit.waiting import DEADLINE

NOW = Now(1.5, 1.0, "boot")
FORM = Form(DIALECTS["sysadm-client"], False, frozenset({0}))
CLASS = Origin(system="sysadm/pkg", fields={"action": "pkg_install"}, log_field="pkg_log")


def order(id: str, text: str, origin: Origin | None = CLASS) -> Order:
    return Order(id=id, commands=(Spec((text,), text),), origin=origin)


def start(change: Transaction, id: str) -> None:
    """As far as others see it."""
    (uid,) = change.db.execute("SELECT uid FROM jobs WHERE id = ?", (id,)).fetchone()
    change.db.execute("UPDATE jobs SET state = 1 WHERE uid = ?", (uid,))
    events.tell(change, 1.0, uid, "running", command=0)


def test_what_waits_is_told_within_a_bound_and_no_more_when_it_has_begun(
    tmp_path: Path,
) -> None:
    async def body() -> None:
        store = open_store(tmp_path / "state.db", SCHEMAS)
        try:
            sources = sources_of(store, tmp_path)
            store.publish = sources.hub.publish

            def waiting() -> list[str]:
                texts = sources.waiting.frames(FORM)
                assert sum(map(len, texts)) <= SIZE
                return [
                    json.loads(text)["args"]["process_details"]["process_id"] for text in texts
                ]

            assert waiting() == []
            orders = [
                order("first", "true"),
                order("of nobody", "true", None),
                # More than may be told at all, and more than may be told beside another.
                *(order(name, "x" * 40_000) for name in ("long", "as long")),
                order("last", "true"),
            ]
            await store.write(lambda change: accept(change, NOW, orders))
            assert waiting() == ["first", "long", "last"]
            await store.write(lambda change: start(change, "long"))
            assert waiting() == ["first", "as long", "last"]
            many = [order(f"job {number}", "true") for number in range(2 * MOST)]
            await store.write(lambda change: accept(change, NOW, many))
            assert len(waiting()) == MOST
        finally:
            store.close()

    asyncio.run(asyncio.wait_for(body(), DEADLINE))
