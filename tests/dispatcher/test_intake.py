"""Orders that come together: one change, and each stands or falls alone."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from dispatcher import events, records
from dispatcher.commandline import Spec
from dispatcher.events import Told
from dispatcher.orders import Order
from dispatcher.runner import Dispatcher
from sysadmd.errors import Conflict, StoreFull
from sysadmd.journal import Transaction
from sysadmd.settings import build_settings
from sysadmd.store import Store, open_store
from tests.kit.waiting import DEADLINE


def order(program: str = "true", **more: Any) -> Order:
    return Order(commands=(Spec((program,), program),) if program else (), **more)


@asynccontextmanager
async def one_group(store: Store) -> AsyncGenerator[None, None]:
    """What is asked within waits until the writer goes on."""
    go_on = Event()
    held = store.begin_write(lambda _: go_on.wait(20))
    try:
        yield
    finally:
        go_on.set()
    await held


def run(path: Path, body: Callable[[Store, Dispatcher], Awaitable[None]]) -> None:
    """On a dispatcher that starts nothing."""

    async def whole() -> None:
        store = open_store(path / "state.db", {"dispatcher": records.SCHEMA})
        dispatcher = Dispatcher(store, build_settings({}).dispatcher, path)
        dispatcher.reconfigure(build_settings({}).dispatcher)
        try:
            await body(store, dispatcher)
        finally:
            store.close()

    asyncio.run(whole())


def test_a_conflict_is_that_of_one_request_alone(tmp_path: Path) -> None:
    async def body(store: Store, dispatcher: Dispatcher) -> None:
        async with one_group(store):
            first = dispatcher.begin_submit([order(id="a"), order(id="b")])
            none = dispatcher.begin_submit([order(id="c", key="k"), order("false", id="b")])
            same = dispatcher.begin_submit([order(id="b")])
            other = dispatcher.begin_submit([order("false", id="c", key="k")])
            again = dispatcher.begin_submit([order("false", id="d", key="k")])
            stranger = dispatcher.begin_submit([order(key="k")])
        jobs = [job.uid for job in await first]
        assert jobs == [1, 2]
        with pytest.raises(Conflict, match="id 'b' is in use"):
            await none
        assert [job.uid for job in await same] == jobs[1:]
        assert [(job.uid, job.id) for job in await other] == [(3, "c")]
        assert await again == await other
        with pytest.raises(Conflict, match="key 'k' belongs to a job with other commands"):
            await stranger
        ids = store.reader.execute("SELECT uid, id, state FROM jobs ORDER BY uid").fetchall()
        assert ids == [(1, "a", 0), (2, "b", 0), (3, "c", 0)]
        told = store.reader.execute("SELECT count(*) FROM events").fetchone()
        assert told == (3,)
        assert [state.waiting for state in dispatcher.queues() if state.name is None] == [3]

    run(tmp_path, body)


def test_a_job_without_commands_has_ended_when_it_is_accepted(tmp_path: Path) -> None:
    async def body(store: Store, dispatcher: Dispatcher) -> None:
        async with one_group(store):
            ended = dispatcher.begin_submit([order("", id="a", key="k")])
            after = dispatcher.begin_submit([order(id="a")])
            same = dispatcher.begin_submit([order("", key="k")])
        assert [(job.state, job.result) for job in await ended] == [("finished", "succeeded")]
        assert [job.state for job in await after] == ["pending"]
        assert await same == await ended
        assert records.row(store.reader, 1) == (await ended)[0]

    run(tmp_path, body)


def test_what_cannot_be_written_leaves_the_others(tmp_path: Path) -> None:
    async def body(store: Store, dispatcher: Dispatcher) -> None:
        def broken(change: Transaction, jobs: object) -> None:
            raise ZeroDivisionError

        noted: list[int] = []
        async with one_group(store):
            first = dispatcher.begin_submit([order()])
            defect = dispatcher.begin_submit([order()], broken)
            last = dispatcher.begin_submit([order()], lambda _, jobs: noted.append(jobs[0].uid))
        with pytest.raises(ZeroDivisionError):
            await defect
        uids = [(await asked)[0].uid for asked in (first, last)]
        assert uids == [
            uid for (uid,) in store.reader.execute("SELECT uid FROM jobs ORDER BY uid")
        ]
        assert noted == uids[1:]

    run(tmp_path, body)


def test_a_job_that_is_asked_for_after_a_kill_is_not_killed_by_it(tmp_path: Path) -> None:
    async def body(store: Store, dispatcher: Dispatcher) -> None:
        async with asyncio.TaskGroup() as group, one_group(store):
            first = group.create_task(dispatcher.submit([order(id="a")]))
            kill = group.create_task(dispatcher.kill(["a"]))
            again = group.create_task(dispatcher.submit([order(id="a")]))
            await asyncio.sleep(0)
        assert kill.result() == ["a"]
        rows = store.reader.execute("SELECT uid, result FROM jobs ORDER BY uid").fetchall()
        assert rows == [(first.result()[0].uid, "killed"), (again.result()[0].uid, None)]

    run(tmp_path, body)


def test_who_leaves_has_his_job_all_the_same(tmp_path: Path) -> None:
    async def body(store: Store, dispatcher: Dispatcher) -> None:
        async with one_group(store):
            left = dispatcher.begin_submit([order()])
            stays = dispatcher.begin_submit([order()])
            left.cancel()
        assert (await stays)[0].uid == 2
        assert dispatcher.position(1) == 0

    run(tmp_path, body)


@asynccontextmanager
async def at_work(
    path: Path,
) -> AsyncGenerator[tuple[Store, Dispatcher, list[list[Told]]], None]:
    """A dispatcher that starts jobs; and what each commit has told."""
    store = open_store(path / "state.db", {"dispatcher": records.SCHEMA})
    commits: list[list[Told]] = []
    store.publish = lambda told: commits.append([events.decode(each.body) for each in told])
    dispatcher = Dispatcher(store, build_settings({}).dispatcher, path)
    await dispatcher.recover()
    running = asyncio.ensure_future(dispatcher.run())
    try:
        yield store, dispatcher, commits
    finally:
        running.cancel()
        await asyncio.wait((running,))
        store.close()


async def ended(store: Store, uid: int) -> None:
    """Return when this job has finished, and that is told."""
    while (job := records.row(store.reader, uid)) is None or job.state != "finished":
        await asyncio.sleep(0.002)
        assert job is None or job.state != "lost"
    # It is in the tables before; who comes after it is answered after it is told.
    await store.write(lambda _: None)


def test_who_finds_room_starts_in_the_commit_in_which_it_is_accepted(tmp_path: Path) -> None:
    async def body() -> None:
        async with at_work(tmp_path) as (store, dispatcher, commits):
            # Not while a turn is under way, such as for the end of the one before.
            while True:
                (job,) = await dispatcher.submit([order()])
                mine = [told for told in commits if told[0].job == job.uid]
                states = [one.state for one in mine[0]]
                await ended(store, job.uid)
                if states == ["pending", "running"]:
                    break
                assert states == ["pending"]
            states = [one.state for told in commits for one in told if one.job == job.uid]
            assert states == ["pending", "running", "finished"]

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


def test_nobody_starts_before_those_that_came_first(tmp_path: Path) -> None:
    async def body() -> None:
        async with at_work(tmp_path) as (store, dispatcher, commits):
            (first,) = await dispatcher.submit([order(queue="pkg_queue")])
            await ended(store, first.uid)
            asked: list[asyncio.Future[list[records.JobRow]]] = []
            async with asyncio.TaskGroup() as group, one_group(store):
                for _ in range(4):
                    asked.append(dispatcher.begin_submit([order(queue="pkg_queue")]))
                    # What comes next is another change.
                    group.create_task(dispatcher.kill(["nobody"]))
                    await asyncio.sleep(0)
            uids = [(await one)[0].uid for one in asked]
            await ended(store, uids[-1])
            told = [one for commit in commits for one in commit if one.job in uids]
            lane = [(one.job, one.state) for one in told if one.state != "pending"]
            assert lane == [(uid, state) for uid in uids for state in ("running", "finished")]

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


def test_a_disk_that_is_full_leaves_the_turn_to_others(tmp_path: Path) -> None:
    async def body() -> None:
        async with at_work(tmp_path) as (store, dispatcher, _):
            (first,) = await dispatcher.submit([order()])
            await ended(store, first.uid)

            def full(change: Transaction, jobs: object) -> None:
                raise StoreFull("the disk is full")

            for _ in range(3):
                with pytest.raises(StoreFull):
                    await dispatcher.submit([order()], full)
            (second,) = await dispatcher.submit([order()])
            await ended(store, second.uid)

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


def test_nothing_starts_behind_the_pause_of_its_queue(tmp_path: Path) -> None:
    async def body() -> None:
        async with at_work(tmp_path) as (store, dispatcher, _):
            # Not each time no turn is under way.
            for _ in range(5):
                (before,) = await dispatcher.submit([order(queue="pkg_queue")])
                await ended(store, before.uid)
                async with one_group(store):
                    pausing = asyncio.ensure_future(dispatcher.pause("pkg_queue"))
                    await asyncio.sleep(0)
                    asked = dispatcher.begin_submit([order(queue="pkg_queue")])
                await pausing
                (job,) = await asked
                (state,) = [q for q in dispatcher.queues() if q.name == "pkg_queue"]
                assert (state.paused, state.waiting, state.running) == (True, 1, 0)
                await dispatcher.resume("pkg_queue")
                await ended(store, job.uid)

    asyncio.run(asyncio.wait_for(body(), DEADLINE))


def test_who_comes_after_a_refusal_that_came_before_the_writing_is_heard(
    tmp_path: Path,
) -> None:
    async def body(store: Store, dispatcher: Dispatcher) -> None:
        for _ in range(2):
            store.path.rename(tmp_path / "aside")
            with pytest.raises(StoreFull):
                await dispatcher.submit([order()])
            (tmp_path / "aside").rename(store.path)
            assert await asyncio.wait_for(dispatcher.submit([order()]), DEADLINE)

    run(tmp_path, body)
