"""The store and the journal on a real SQLite file."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from sysadmd import journal
from sysadmd.errors import BadRequest, StoreDamaged, StoreFull, StoreLost, StoreUnusable
from sysadmd.events import SYSTEMS
from sysadmd.journal import Event, Transaction
from sysadmd.store import MemoryBehind, Store, open_store
from sysadmd.whereabouts import Whereabouts
from tests.kit import DEADLINE, wait_for
from tests.kit.disks import fill, small_disk
from tests.kit.needs import needed

TABLE = {"test": ("CREATE TABLE t (x INTEGER);",)}
# Half a MiB.
FILL = """
    WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 60000)
    INSERT INTO t SELECT x FROM n
"""


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[tuple[Store, list[Event]], None]:
    store = open_store(path, TABLE)
    told: list[Event] = []
    store.publish = told.extend
    try:
        yield store, told
    finally:
        store.close()


@asynccontextmanager
async def one_commit(store: Store) -> AsyncGenerator[None, None]:
    """What is begun within is committed together."""
    begun, go_on = threading.Event(), threading.Event()

    def hold(change: Transaction) -> None:
        begun.set()
        go_on.wait(20)

    held = store.begin_write(hold)
    await asyncio.to_thread(begun.wait, 20)
    try:
        yield
    finally:
        go_on.set()
        await held


def add(change: Transaction, x: int, system: str = "dispatcher") -> int:
    change.db.execute("INSERT INTO t VALUES (?)", (x,))
    journal.append(change, system, b'{"x":1}', 1.5)
    return x


def adding(x: int, system: str = "dispatcher") -> Callable[[Transaction], int]:
    return lambda change: add(change, x, system)


def test_a_change_that_fails_is_undone_alone_and_leaves_no_hole(tmp_path: Path) -> None:
    def fail(change: Transaction) -> None:
        add(change, 99)
        raise BadRequest("no")

    async def body() -> None:
        async with opened(tmp_path / "s.db") as (store, told):
            waiting: list[asyncio.Future[int | None]] = []
            for x in range(100):
                waiting.append(store.begin_write(adding(x)))
                waiting.append(store.begin_write(fail))
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert [r for r in results if isinstance(r, int)] == list(range(100))
            assert sum(isinstance(r, BadRequest) for r in results) == 100
            assert [event.seq for event in told] == list(range(1, 101))
            rows = store.reader.execute("SELECT x FROM t ORDER BY rowid").fetchall()
            assert rows == [(x,) for x in range(100)]
            # Alone in its commit, too.
            with pytest.raises(BadRequest):
                await store.write(fail)
            await store.write(adding(100))
            assert told[-1].seq == 101

    asyncio.run(body())


def test_nothing_is_told_before_it_is_committed(tmp_path: Path) -> None:
    async def body() -> None:
        async with opened(tmp_path / "s.db") as (store, _):
            seen: list[int] = []

            def publish(events: list[Event]) -> None:
                other = sqlite3.connect(tmp_path / "s.db")
                seen.append(other.execute("SELECT count(*) FROM events").fetchone()[0])
                other.close()
                assert seen[-1] >= events[-1].seq

            store.publish = publish
            for x in range(20):
                await store.write(adding(x))
            assert seen == list(range(1, 21))

    asyncio.run(body())


def test_places_count_what_lies_between_even_when_it_is_gone(tmp_path: Path) -> None:
    async def body() -> None:
        async with opened(tmp_path / "s.db") as (store, told):
            for x in range(60):
                await store.write(adding(x, SYSTEMS[x % 3]))
            start = journal.parse_place(told[9].place)
            await store.write(lambda change: journal.prune(change.db, 40))
            gone = journal.pruned(store.reader)
            assert gone.seq == 40
            for systems in ({0}, {1}, {2}, {0, 2}, {0, 1, 2}):
                lost = gone.count(systems) - start.count(systems)
                assert lost == sum(e.system in systems for e in told[10:40])
            assert journal.head(store.reader).seq == 60
            await store.write(lambda change: journal.prune(change.db, 60))
            assert journal.head(store.reader).seq == 60
            await store.write(lambda change: add(change, 1))
            assert journal.head(store.reader).seq == 61

    asyncio.run(body())


def test_a_cursor_is_taken_back_and_no_other(tmp_path: Path) -> None:
    async def body() -> None:
        async with opened(tmp_path / "s.db") as (store, told):
            for x in range(10):
                await store.write(adding(x, SYSTEMS[x % 3]))
            await store.write(lambda change: journal.prune(change.db, 4))
            for event in told:
                cursor = journal.format_cursor(store.epoch, event.place)
                place = journal.parse_cursor(store.reader, store.epoch, cursor)
                assert str(place) == event.place
            for bad in (
                "",
                "x",
                "1:2:3",
                f"{'0' * 16}:1:1.0.0",
                f"{store.epoch}:11:4.4.3",
                f"{store.epoch}:9:9.0.0",
                f"{store.epoch}:9:3.3",
                f"{store.epoch}:4:4.0.0",
                f"{store.epoch}:9:3.3.3 ",
                f"{store.epoch}:٩:3.3.3",
            ):
                with pytest.raises(BadRequest):
                    journal.parse_cursor(store.reader, store.epoch, bad)

    asyncio.run(body())


def test_a_defect_of_writing_or_telling_is_raised_and_leaves_nobody_waiting(
    tmp_path: Path,
) -> None:
    def end_all(change: Transaction) -> None:
        # As SQLite does it by itself when it has no memory.
        change.db.execute("ROLLBACK")
        raise MemoryError("planted")

    def refuse(events: list[Event]) -> None:
        raise LookupError("planted")

    async def writing(store: Store) -> None:
        with pytest.raises(MemoryError, match="planted"):
            await store.write(end_all)
        with pytest.raises(MemoryError, match="planted"):
            await store.watch()

    async def telling(store: Store) -> None:
        store.publish = refuse
        assert await store.write(adding(1)) == 1
        with pytest.raises(LookupError, match="planted"):
            await store.watch()

    async def body(breaks: Callable[[Store], Awaitable[None]], name: str) -> None:
        async with opened(tmp_path / name) as (store, _):
            await asyncio.wait_for(breaks(store), DEADLINE)
            assert store.trouble is not None
            assert "planted" in store.trouble

    asyncio.run(body(writing, "writing.db"))
    asyncio.run(body(telling, "telling.db"))


def test_what_follows_a_change_comes_in_order_before_who_waits_goes_on(tmp_path: Path) -> None:
    done: list[object] = []

    def fail(change: Transaction) -> None:
        raise BadRequest("no")

    async def wait_for_it(store: Store, x: int) -> None:
        done.append(("waited", await store.write(adding(x), followed)))

    def followed(x: int) -> None:
        done.append(("followed", x))

    async def body() -> None:
        async with opened(tmp_path / "s.db") as (store, _):
            store.publish = lambda events: done.append(("told", len(events)))
            async with asyncio.TaskGroup() as group, one_commit(store):
                for x in range(2):
                    group.create_task(wait_for_it(store, x))
                await asyncio.sleep(0)
                store.begin_write(adding(2), followed).cancel()
                failed = store.begin_write(fail, lambda _: done.append("not kept"))
            with pytest.raises(BadRequest):
                await failed
            follows = [("followed", x) for x in range(3)]
            assert done == [*follows, ("told", 3), ("waited", 0), ("waited", 1)]

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


def test_what_fails_after_a_commit_ends_the_watch_and_is_no_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysadmd.store.LOOK", 0.01)

    def refuse(_: object) -> None:
        # Who asks takes it for a change that was not kept.
        raise StoreFull("planted")

    async def returned(store: Store) -> None:
        store.returned = lambda: refuse(None)
        aside = store.path.rename(store.path.with_name("aside"))
        with pytest.raises(StoreLost):
            await store.write(adding(1))
        aside.rename(store.path)
        with pytest.raises(StoreFull, match="planted"):
            await store.watch()

    async def followed(store: Store) -> None:
        async with one_commit(store):
            writes = [store.begin_write(adding(1), refuse), store.begin_write(adding(2))]
        with pytest.raises(MemoryBehind):
            await store.watch()
        with pytest.raises(MemoryBehind) as behind:
            await writes[0]
        assert isinstance(behind.value.__cause__, StoreFull)
        assert await writes[1] == 2
        assert await store.read(rows) == [1, 2]

    async def left(store: Store) -> None:
        store.begin_write(adding(1), refuse).cancel()
        with pytest.raises(MemoryBehind):
            await store.watch()

    async def settled(store: Store) -> None:
        async with one_commit(store):
            # What it leads to can't be told any more.
            store.begin_write(adding(1)).set_result(1)
            waits = store.begin_write(adding(2))
        with pytest.raises(asyncio.InvalidStateError):
            await store.watch()
        await asyncio.wait([waits])

    async def body(breaks: Callable[[Store], Awaitable[None]], name: str) -> None:
        async with opened(tmp_path / name) as (store, _):
            await asyncio.wait_for(breaks(store), DEADLINE)

    for breaks in (returned, followed, left, settled):
        asyncio.run(body(breaks, breaks.__name__))


def test_an_iterator_that_has_ended_fails_as_any_other_defect_does(tmp_path: Path) -> None:
    def end(_: object) -> None:
        next(iter(()))

    async def body() -> None:
        async with opened(tmp_path / "s.db") as (store, _):
            for waits in (store.begin_write(end), store.read(end)):
                with pytest.raises(RuntimeError, match="StopIteration"):
                    await waits
            assert await store.write(adding(1)) == 1
            store.publish = end
            await store.write(adding(2))
            with pytest.raises(RuntimeError, match="StopIteration"):
                await store.watch()

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


def test_a_foreign_damaged_or_newer_file_is_left_as_it_is(tmp_path: Path) -> None:
    async def make() -> None:
        async with opened(tmp_path / "s.db") as (store, _):
            for x in range(500):
                await store.write(adding(x))

    async def try_to_open(path: Path) -> None:
        with pytest.raises((StoreUnusable, StoreDamaged), match="move it away"):
            open_store(path, TABLE)

    def refuse(path: Path) -> None:
        before = path.read_bytes()
        asyncio.run(try_to_open(path))
        assert path.read_bytes() == before

    asyncio.run(make())
    foreign = tmp_path / "foreign.db"
    db = sqlite3.connect(foreign)
    db.execute("CREATE TABLE other (x)")
    db.commit()
    db.close()
    refuse(foreign)
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"this is no database at all, and longer than a header" * 100)
    refuse(garbage)
    damaged = tmp_path / "damaged.db"
    data = bytearray((tmp_path / "s.db").read_bytes())
    data[4096 * 3 : 4096 * 6] = b"\xff" * (4096 * 3)
    damaged.write_bytes(data)
    refuse(damaged)
    newer = tmp_path / "newer.db"
    newer.write_bytes((tmp_path / "s.db").read_bytes())
    db = sqlite3.connect(newer)
    db.execute("UPDATE schema SET version = 7 WHERE room = 'test'")
    db.commit()
    db.close()
    refuse(newer)


def test_tables_migrate_forward_step_by_step(tmp_path: Path) -> None:
    async def body() -> None:
        async with opened(tmp_path / "s.db") as (store, _):
            await store.write(lambda change: add(change, 5))
        later = {
            "test": (*TABLE["test"], "ALTER TABLE t ADD COLUMN y; UPDATE t SET y = x + 1;")
        }
        store = open_store(tmp_path / "s.db", later)
        assert store.reader.execute("SELECT x, y FROM t").fetchall() == [(5, 6)]
        store.close()

    asyncio.run(body())


def test_a_disk_that_does_not_answer_is_told_until_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysadmd.store.HANGS", 0.0)
    begun, go_on = threading.Event(), threading.Event()

    def hang(change: Transaction) -> None:
        begun.set()
        go_on.wait(20)

    async def body() -> None:
        async with opened(tmp_path / "s.db") as (store, _):
            await store.write(adding(1))
            assert store.health is None
            hanging = store.begin_write(hang)
            await asyncio.to_thread(begun.wait, 20)
            assert "has not answered" in str(store.health)
            go_on.set()
            await hanging
            assert store.health is None

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


MoveBack = Callable[[], object]


def move_directory(path: Path) -> MoveBack:
    aside = path.parent.rename(path.parent.with_name("aside"))
    return lambda: aside.rename(path.parent)


def cover_directory(path: Path) -> MoveBack:
    move_back = move_directory(path)
    path.parent.mkdir()

    def uncover() -> None:
        path.parent.rmdir()
        move_back()

    return uncover


def move_file(path: Path) -> MoveBack:
    aside = path.rename(path.with_name("aside"))
    return lambda: aside.rename(path)


def replace_file(path: Path) -> MoveBack:
    move_back = move_file(path)
    path.write_bytes(path.with_name("aside").read_bytes())
    return move_back


def move_wal(path: Path) -> MoveBack:
    return move_file(path.with_name(path.name + "-wal"))


@pytest.mark.parametrize(
    "move", [move_directory, cover_directory, move_file, replace_file, move_wal]
)
def test_nothing_is_kept_in_a_file_that_is_not_at_its_path(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    move: Callable[[Path], Callable[[], object]],
) -> None:
    monkeypatch.setattr("sysadmd.store.LOOK", 0.01)
    path = tmp_path / "state" / "s.db"
    path.parent.mkdir()

    async def body() -> None:
        async with opened(path) as (store, told):
            assert await store.write(adding(1)) == 1
            move_back = move(path)
            with pytest.raises(StoreLost, match="Put back what was there"):
                await store.write(adding(2))
            with pytest.raises(StoreLost):
                await store.read(lambda _: store.open_reader())
            assert "Put back what was there" in str(store.health)
            assert not path.exists() or move is not move_file
            # What is open is read as before.
            assert await store.read(rows) == [1]
            move_back()
            await asyncio.to_thread(wait_for, lambda: store.health is None, "the files")
            assert await store.write(adding(3)) == 3
            # It is noticed by who has nothing to do, too.
            move(path)
            await asyncio.to_thread(wait_for, lambda: store.health is not None, "a look")
            assert len(told) == 2

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


def test_a_file_that_comes_and_goes_is_missing_when_it_is(tmp_path: Path) -> None:
    with pytest.raises(StoreLost, match="is not there any more"):
        Whereabouts([tmp_path], [tmp_path / "away"]).stamp()


@pytest.mark.parametrize("name", ["s.db-wal", "s.db-shm"])
def test_what_is_made_anew_at_a_start_needs_no_backup(tmp_path: Path, name: str) -> None:
    async def body() -> None:
        async with opened(tmp_path / "s.db") as (store, _):
            assert await store.write(adding(1)) == 1
            (tmp_path / name).unlink()
            kept = [1]
            with pytest.raises(StoreLost, match=r"again\. If that is state\.db itself"):
                # What holds no contents is missed at the next look at all files.
                while True:
                    kept.append(await store.write(adding(kept[-1] + 1)))
        async with opened(tmp_path / "s.db") as (store, _):
            assert await store.read(rows) == kept

    asyncio.run(body())


def test_what_a_change_overwrites_stands_in_no_other_file(tmp_path: Path) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        needed("/proc")

    def overwrite(change: Transaction) -> list[str]:
        change.db.execute("DELETE FROM t")
        return [str(file.readlink()) for file in descriptors.iterdir() if file.is_symlink()]

    async def body() -> None:
        async with opened(tmp_path / "s.db") as (store, _):
            await store.write(lambda change: change.db.execute(FILL).rowcount)
            assert not [file for file in await store.write(overwrite) if "etilqs" in file]

    asyncio.run(body())


def test_what_a_full_disk_took_of_the_wal_is_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sysadmd.store.LOOK", 0.01)
    monkeypatch.setattr("sysadmd.store.SCRUB_AFTER", 0.01)
    path = tmp_path / "disk" / "s.db"
    wal = path.with_name("s.db-wal")

    def wipe(change: Transaction) -> None:
        change.db.execute("INSERT INTO t VALUES (1)")
        change.wiped = True

    async def body() -> None:
        async with opened(path) as (store, _):
            await asyncio.to_thread(wait_for, lambda: not wal.stat().st_size, "an empty WAL")
            await store.write(lambda change: change.db.execute(FILL).rowcount)
            fill(path.parent / "fill")
            # Room for a change, but not for the WAL.
            os.truncate(path.parent / "fill", (path.parent / "fill").stat().st_size - 32768)
            before = path.stat().st_mtime_ns
            await store.write(wipe)
            await asyncio.to_thread(
                wait_for, lambda: path.stat().st_mtime_ns != before, "a part of the WAL"
            )
            with pytest.raises(StoreFull):
                await store.write(lambda change: change.db.execute(FILL).rowcount)
            assert "another program" not in caplog.text

    with small_disk(path.parent, 3):
        asyncio.run(body())


def rows(db: sqlite3.Connection) -> list[int]:
    return [x for (x,) in db.execute("SELECT x FROM t ORDER BY rowid")]


def test_what_another_program_writes_counts_if_it_is_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sysadmd.store.LOOK", 3600)
    path = tmp_path / "s.db"

    def checkpoint() -> None:
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    async def body() -> None:
        async with opened(path) as (store, _):
            for x in range(500):
                await store.write(adding(x))
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("INSERT INTO t VALUES (77)")
            assert await store.write(adding(500)) == 500
            assert await store.read(rows) == [*range(500), 77, 500]
            assert "another program has written" in caplog.text
            checkpoint()
            older = path.read_bytes()
            for x in range(500):
                await store.write(adding(x, SYSTEMS[x % 3]))
            checkpoint()
            # In place: it is the same file.
            path.write_bytes(older[: len(older) // 2])
            for _ in range(3):
                with pytest.raises(StoreDamaged, match="another program has written to"):
                    await store.write(adding(1))
            assert "is damaged" in str(store.health)
            assert caplog.text.count("every change is refused") == 1

    asyncio.run(body())


def test_nothing_is_kept_in_a_history_that_is_not_ours_any_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.db"

    async def body() -> None:
        async with opened(path) as (store, _):
            for x in range(5):
                await store.write(adding(x))
            with (
                closing(sqlite3.connect(path)) as live,
                closing(sqlite3.connect(tmp_path / "copy.db")) as copy,
            ):
                live.backup(copy)
                await store.write(adding(5))
                # As `sqlite3 state.db ".restore copy.db"` does.
                copy.backup(live)
            for _ in range(2):
                with pytest.raises(StoreLost, match="newest event is 5, ours was 6"):
                    await store.write(adding(6))
            assert "stopped and started again" in str(store.health)
            assert caplog.text.count("every change is refused") == 1
        async with opened(path) as (store, told):
            await store.write(adding(7))
            assert [event.seq for event in told] == [6]

    asyncio.run(body())


def test_damage_is_told_in_words_to_who_meets_it(tmp_path: Path) -> None:
    path = tmp_path / "s.db"

    async def body() -> None:
        async with opened(path) as (store, _):
            for x in range(2000):
                await store.write(adding(x))
        (root,) = root_of("t", path)
        with path.open("r+b") as file:
            file.seek(4096 * (root - 1))
            file.write(b"\xff" * 4096)
        before = path.stat()
        monkey = pytest.MonkeyPatch()
        monkey.setattr("sysadmd.schema.CHECKED_AT_START", 0)
        async with opened(path) as (store, _):
            monkey.undo()
            assert store.health is None
            with pytest.raises(StoreDamaged, match="restore the file from a backup"):
                await store.write(adding(1))
            with pytest.raises(StoreDamaged):
                await store.read(rows)
            with pytest.raises(StoreDamaged):
                rows(store.reader)
            assert "is damaged" in str(store.health)
            # All else goes on.
            await store.write(lambda change: journal.prune(change.db, 10))
            assert journal.pruned(store.reader).seq == 10
            assert "is damaged" in str(store.health)
        assert path.stat().st_size == before.st_size

    asyncio.run(body())


def root_of(table: str, path: Path) -> tuple[int]:
    with closing(sqlite3.connect(path)) as db:
        found: tuple[int] = db.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)
        ).fetchone()
        return found
