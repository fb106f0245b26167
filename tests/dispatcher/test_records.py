"""What is counted of jobs, against what is there."""

import asyncio
from contextlib import closing
from pathlib import Path

from dispatcher import records, transitions
from dispatcher.commandline import Spec
from dispatcher.orders import Order
from dispatcher.steps import Now
from sysadmd.journal import Transaction
from sysadmd.store import Store, open_store
from tests.kit.accepting import accept

NOW = Now(1_000_000.0, 100.0, "boot")
EVERYTHING = 2**62


def finish(change: Transaction, results: list[str], waiting: int = 0) -> None:
    """Jobs that end so, and some that wait."""
    order = Order(commands=(Spec(("true",), "true"),))
    for one in accept(change, NOW, [order] * (len(results) + waiting)):
        if results:
            transitions.finish_job(change, NOW, one.job.uid, results.pop(0))


def check(store: Store, expected: dict[str, int]) -> None:
    counted = "SELECT result, count(*) FROM jobs WHERE state = 2 GROUP BY result"
    assert records.results(store.reader) == expected
    assert dict(store.reader.execute(counted)) == expected


def test_finished_jobs_are_counted_as_they_come_and_go(tmp_path: Path) -> None:
    async def body() -> None:
        with closing(open_store(tmp_path / "s.db", {"dispatcher": records.SCHEMA})) as store:
            ends = ["succeeded", "failed", "succeeded", "killed"]
            await store.write(lambda change: finish(change, ends, waiting=2))
            check(store, {"succeeded": 2, "failed": 1, "killed": 1})
            await store.write(lambda change: records.prune_finished(change, 1, EVERYTHING, 0))
            check(store, {"killed": 1})

    asyncio.run(body())


def test_finished_jobs_of_an_older_state_file_are_counted(tmp_path: Path) -> None:
    async def body() -> None:
        older = {"dispatcher": records.SCHEMA[:2]}
        with closing(open_store(tmp_path / "s.db", older)) as store:
            row = "INSERT INTO jobs (id, created, state, result) VALUES ('x', 0, ?, ?)"
            rows = [(2, "succeeded"), (2, "lost"), (0, None)]
            await store.write(lambda change: change.db.executemany(row, rows) and None)
        with closing(open_store(tmp_path / "s.db", {"dispatcher": records.SCHEMA})) as store:
            check(store, {"succeeded": 1, "lost": 1})
            await store.write(lambda change: finish(change, ["lost"]))
            check(store, {"succeeded": 1, "lost": 2})

    asyncio.run(body())


def test_small_jobs_are_read_together_as_one_by_one(tmp_path: Path) -> None:
    texts = ("true", "sécond\n", "third")
    orders = [
        Order(commands=tuple(Spec((text,), text) for text in texts[:size]), timeout=timeout)
        for size, timeout in ((1, None), (2, 60.0), (3, None), (1, 0.1))
    ]

    async def body() -> None:
        with closing(open_store(tmp_path / "s.db", {"dispatcher": records.SCHEMA})) as store:
            made = await store.write(lambda change: accept(change, NOW, orders))
            one, two, three, odd = (job.job.uid for job in made)
            db, uids = store.reader, [one, odd, 99, two, three]
            found = records.small(db, uids, 2)
            assert [job.uid for job, _ in found] == [one, two]
            for job, commands in found:
                assert job == records.row(db, job.uid)
                assert commands == records.commands(db, job.uid)

    asyncio.run(body())
