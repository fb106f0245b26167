"""Events of jobs: the same bytes whenever they are made, at a cost that does not grow."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from sqlite3 import Cursor

from hypothesis import given
from hypothesis import strategies as st

from dispatcher import acceptance, events, logs, transitions
from dispatcher.commandline import Spec
from dispatcher.orders import Order
from dispatcher.transitions import Now
from server.daemon import SCHEMAS
from server.delivery.frames import Form, Renderer
from server.delivery.job_events import JobEvents
from server.dialects import DIALECTS
from sysadmd.journal import Event, Transaction
from sysadmd.store import Store, open_store

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


def grows(uid: int, n: int, size: int) -> Step:
    return lambda change: transitions.progress(change, NOW, uid, n, size)


def life(uid: int, plan: Plan, directory: Path) -> Iterator[Sequence[Step]]:
    """What happens to a job, change by change; one that fails is its last command."""
    begins = "UPDATE jobs SET state = 1, started = 5 WHERE uid = ?"
    before: list[Step] = [lambda change: change.db.execute(begins, (uid,))]
    for n, (_, size, fails) in enumerate(plan):
        path = logs.path(directory, uid, n)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
        yield [*before, sets(uid, n, state=1, started=6 + n), runs(uid, n)]
        yield [grows(uid, n, size)]
        code = 3 if fails else 0
        before = [sets(uid, n, state=2, return_code=code, finished=7 + n, log_size=size)]
        if fails:
            break
    yield [*before, lambda change: transitions.finish_job(change, NOW, uid, "failed")]


@given(PLANS)
def test_an_event_is_the_same_when_it_is_told_and_for_ever_after(plan: Plan) -> None:
    async def body(directory: Path) -> None:
        store = open_store(directory / "state.db", SCHEMAS)
        published: list[Event] = []
        store.publish = published.extend
        try:
            commands = tuple(Spec((text,), text) for text, _, _ in plan)
            order = Order(id="j", commands=commands)
            (job,) = await store.write(lambda change: acceptance.accept(change, NOW, [order]))
            live, told = renderer(store, directory), list[list[bytes]]()
            for steps in life(job.job.uid, plan, directory) if plan else ():
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
            (job,) = await store.write(lambda change: acceptance.accept(change, NOW, [order]))
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
