"""Events of jobs: the same bytes whenever they are made, at a cost that does not grow."""

import asyncio
import contextlib
import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from sqlite3 import Cursor

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dispatcher import events, logs, records, transitions
from dispatcher.commandline import Spec
from dispatcher.orders import Order, Origin
from dispatcher.reports import Fields
from dispatcher.steps import Now
from server.daemon import SCHEMAS
from server.delivery.frames import Form, Renderer
from server.delivery.job_events import JobEvents
from server.delivery.job_sheet import Sheet
from server.dialects import DIALECTS
from sysadmd.journal import Event, Transaction
from sysadmd.store import Store, open_store
from tests.kit.accepting import accept

LIMIT = 1024
FORMS = [Form(dialect, True, frozenset({0})) for dialect in DIALECTS.values()]
NOW = Now(1.5, 1.0, "boot")
TEXTS = st.sampled_from(["true", "ls -l", "state", "return_codes/x", "\N{BEETLE} \\ \x01"])
# Of each command: its text, the bytes that it writes, and does it fail?
PLANS = st.lists(st.tuples(TEXTS, st.integers(0, 3000), st.booleans()), max_size=9)
Plan = Sequence[tuple[str, int, bool]]
Step = Callable[[Transaction], object]


def renderer(store: Store, directory: Path) -> Renderer:
    return Renderer(JobEvents(store.reader, store.epoch, directory, lambda: LIMIT))


def rendered(by: Renderer, event: Event) -> list[bytes]:
    return [by.frame(event, form, "") for form in FORMS]


def sets(uid: int, n: int, **values: int | None) -> Step:
    """A command's row gets these values."""
    columns = ", ".join(f"{name} = :{name}" for name in values)
    query = f"UPDATE commands SET {columns} WHERE job = :job AND n = :n"
    return lambda change: change.db.execute(query, {**values, "job": uid, "n": n})


def runs(uid: int, n: int) -> Step:
    return lambda change: events.tell(change, 1.5, uid, "running", command=n)


def grows(uid: int, n: int, size: int, fields: Fields | None = None) -> Step:
    return lambda change: transitions.progress(change, NOW, uid, n, size, fields)


def life(
    uid: int, plan: Plan, directory: Path, *, of_class: bool = False
) -> Iterator[Sequence[Step]]:
    """What happens to a job, change by change; one that fails is its last command."""
    begins = "UPDATE jobs SET state = 1, started = 5 WHERE uid = ?"
    before: list[Step] = [lambda change: change.db.execute(begins, (uid,))]
    for n, (_, size, fails) in enumerate(plan):
        path = logs.path(directory, uid, n)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
        yield [*before, sets(uid, n, state=1, started=6 + n), runs(uid, n)]
        yield [grows(uid, n, size, {"at": n, "problems": ["p"]} if of_class else None)]
        code = 3 if fails else 0
        before = [sets(uid, n, state=2, return_code=code, finished=7 + n, log_size=size)]
        if fails:
            break
    if of_class:
        before.append(lambda change: records.keep_report(change.db, uid, {"at": "the end"}))
    yield [*before, lambda change: transitions.finish_job(change, NOW, uid, "failed")]


@given(PLANS, st.booleans())
def test_an_event_is_the_same_when_it_is_told_and_for_ever_after(
    plan: Plan, of_class: bool
) -> None:
    origin = Origin(system="sysadm/pkg", fields={"action": "x"}, log_field="pkg_log")

    async def body(directory: Path) -> None:
        store = open_store(directory / "state.db", SCHEMAS)
        published: list[Event] = []
        store.publish = published.extend
        try:
            commands = tuple(Spec((text,), text) for text, _, _ in plan)
            order = Order(id="j", commands=commands, origin=origin if of_class else None)
            (job,) = await store.write(lambda change: accept(change, NOW, [order]))
            live, told = renderer(store, directory), list[list[bytes]]()
            steps_of = life(job.job.uid, plan, directory, of_class=of_class)
            for steps in steps_of if plan else ():
                for step in steps:
                    await store.write(step)
                told += [rendered(live, event) for event in published[len(told) :]]
            told += [rendered(live, event) for event in published[len(told) :]]
            later = renderer(store, directory)
            assert [rendered(later, event) for event in published] == told
            # And backwards, as nobody reads them.
            other = renderer(store, directory)
            assert [rendered(other, event) for event in reversed(published)] == told[::-1]
        finally:
            store.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(body(Path(directory)))


def of_a_class(directory: Path, look: Callable[[JobEvents, list[Event]], object]) -> None:
    """Have a look at the events of a job with progress and problems."""

    async def body() -> None:
        store = open_store(directory / "state.db", SCHEMAS)
        published: list[Event] = []
        store.publish = published.extend
        try:
            origin = Origin(system="sysadm/pkg", log_field="pkg_log")
            order = Order(id="j", commands=(Spec(("x",), "x"),), origin=origin)
            (job,) = await store.write(lambda change: accept(change, NOW, [order]))
            uid = job.job.uid
            await store.write(sets(uid, 0, state=1, started=6))
            told = [(1, ["one"]), (2, ["one"]), (3, ["one", "two"]), (4, ["one", "two"])]
            for percent, problems in told:
                fields = {"percent": percent, "problems": problems}
                await store.write(grows(uid, 0, 0, fields))
            look(JobEvents(store.reader, store.epoch, directory, lambda: LIMIT), published[1:])
        finally:
            store.close()

    asyncio.run(body())


def test_what_is_long_is_told_when_it_has_changed(tmp_path: Path) -> None:
    def look(rendering: JobEvents, told: list[Event]) -> None:
        args = [
            json.loads(rendering.args(event, DIALECTS["documented"], 10_000)) for event in told
        ]
        assert [one["percent"] for one in args] == [1, 2, 3, 4]
        assert [one.get("problems") for one in args] == [["one"], None, ["one", "two"], None]

    of_a_class(tmp_path, look)


def test_merged_events_have_all_that_was_told_in_them(tmp_path: Path) -> None:
    def look(rendering: JobEvents, told: list[Event]) -> None:
        assert rendering.mergeable(told, 0) == 4
        merged = rendering.merge(told)
        args = json.loads(rendering.args(merged, DIALECTS["documented"], 10_000))
        assert (args["percent"], args["problems"]) == (4, ["one", "two"])

    of_a_class(tmp_path, look)


def test_a_long_report_counts_in_what_is_kept_of_a_job(tmp_path: Path) -> None:
    def look(rendering: JobEvents, told: list[Event]) -> None:
        assert rendering
        assert told

    of_a_class(tmp_path, look)
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as db:
        job = records.row(db, 1)
    assert job is not None
    long = json.dumps({"x": "y" * 100_000})
    assert Sheet(replace(job, report=long)).size > Sheet(job).size + len(long)


def test_an_event_reads_no_more_than_what_is_new_of_its_job(tmp_path: Path) -> None:
    """In a job of hundreds of commands each one's end is an event: it must not cost all."""
    plan = [(f"echo {n}", 100, False) for n in range(300)]
    rows = 0

    def row(_: Cursor, values: tuple[object, ...]) -> tuple[object, ...]:
        nonlocal rows
        rows += 1
        return values

    async def body() -> list[int]:
        nonlocal rows
        store = open_store(tmp_path / "state.db", SCHEMAS)
        published: list[Event] = []
        store.publish = published.extend
        store.reader.row_factory = row
        try:
            order = Order(commands=tuple(Spec((text,), text) for text, _, _ in plan))
            (job,) = await store.write(lambda change: accept(change, NOW, [order]))
            live, read = renderer(store, tmp_path), list[int]()
            for steps in life(job.job.uid, plan, tmp_path):
                published.clear()
                for step in steps:
                    await store.write(step)
                rows = 0
                for event in published:
                    rendered(live, event)
                read.append(rows)
            return read
        finally:
            store.close()

    first, *others = asyncio.run(body())
    assert first >= len(plan)
    # The job's row and its running command's, and that of the one that ended; for each form.
    assert max(others) <= 3 * len(FORMS)
