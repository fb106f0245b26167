"""Long reads of a real state file: they wait for nobody and nobody waits for them."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from sqlite3 import Connection

import pytest

from sysadmd.store import Store, open_store

TABLE = {"test": ("CREATE TABLE t (x INTEGER);",)}


def count(db: Connection) -> int:
    return int(db.execute("SELECT count(*) FROM t").fetchone()[0])


async def add(store: Store) -> None:
    await store.write(lambda change: change.db.execute("INSERT INTO t VALUES (1)"))


def test_changes_are_kept_while_a_read_goes_on_which_sees_none_of_them(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def look(db: Connection) -> tuple[int, int]:
        before = count(db)
        begun.set()
        go_on.wait(20)
        return before, count(db)

    async def body() -> None:
        store = open_store(tmp_path / "s.db", TABLE)
        try:
            await add(store)
            reading = store.read(look)
            later = store.read(count)
            await asyncio.to_thread(begun.wait, 20)
            await add(store)
            assert count(store.reader) == 2
            assert not reading.done()
            go_on.set()
            assert await reading == (1, 1)
            assert await later == 2
        finally:
            store.close()

    asyncio.run(body())


def test_an_error_is_that_reads_own(tmp_path: Path) -> None:
    async def body() -> None:
        store = open_store(tmp_path / "s.db", TABLE)
        try:
            wrong = store.read(lambda db: db.execute("SELECT nothing"))
            writes = store.read(lambda db: db.execute("INSERT INTO t VALUES (1)"))
            right = store.read(count)
            with pytest.raises(Exception, match="nothing"):
                await wrong
            with pytest.raises(Exception, match="readonly"):
                await writes
            assert await right == 0
        finally:
            store.close()

    asyncio.run(body())


def test_an_error_amid_rows_leaves_later_reads_at_the_newest_state(tmp_path: Path) -> None:
    def fails(db: Connection) -> int:
        return sum(1 // x for (x,) in db.execute("SELECT 0 FROM t"))

    async def body() -> None:
        store = open_store(tmp_path / "s.db", TABLE)
        try:
            await add(store)
            with pytest.raises(ZeroDivisionError):
                await store.read(fails)
            await add(store)
            assert await store.read(count) == 2
        finally:
            store.close()

    asyncio.run(body())


def test_who_has_given_up_is_read_for_no_more(tmp_path: Path) -> None:
    looked: list[int] = []

    async def body() -> None:
        store = open_store(tmp_path / "s.db", TABLE)
        try:
            go_on = threading.Event()
            first = store.read(lambda db: go_on.wait(20))
            second = store.read(lambda db: looked.append(2))
            second.cancel()
            go_on.set()
            await first
            await store.read(lambda db: looked.append(3))
            assert looked == [3]
        finally:
            store.close()

    asyncio.run(body())


def test_a_read_that_hangs_does_not_keep_the_store_from_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysadmd.store.LAST_READ", 0.1)
    go_on = threading.Event()

    async def body() -> None:
        store = open_store(tmp_path / "s.db", TABLE)
        reading = store.read(lambda db: go_on.wait(20))
        store.close()
        assert not reading.done()
        go_on.set()

    asyncio.run(body())


def test_who_asks_much_waits_for_it_himself(tmp_path: Path) -> None:
    order: list[str] = []

    def noting(who: str) -> Callable[[Connection], None]:
        return lambda db: order.append(who)

    async def body() -> None:
        store = open_store(tmp_path / "s.db", TABLE)
        try:
            go_on = threading.Event()
            first = store.read(lambda db: go_on.wait(20))
            asked = "aaaaabbc"
            reads = [store.read(noting(who), who) for who in asked]
            go_on.set()
            await asyncio.gather(first, *reads)
        finally:
            store.close()

    asyncio.run(body())
    assert "".join(order) == "abcabaaa"


def test_nothing_more_is_read_once_the_store_closes(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()
    looked: list[int] = []

    def look(db: Connection) -> None:
        begun.set()
        go_on.wait(20)

    async def body() -> None:
        store = open_store(tmp_path / "s.db", TABLE)
        store.read(look)
        begun.wait(20)
        for number in range(100):
            store.read(lambda db: looked.append(1), number)
        threading.Timer(0.05, go_on.set).start()
        store.close()

    asyncio.run(body())
    assert not looked
