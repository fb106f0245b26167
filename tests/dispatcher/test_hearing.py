"""What is heard of a job of a class: real files, a real store; the report is the test's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from dispatcher import hearing, records
from dispatcher.commandline import Spec
from dispatcher.hearing import Hearing
from dispatcher.orders import Order, Origin
from dispatcher.reports import Fields, Reporter
from dispatcher.site import Site
from sysadmd.errors import StoreFull
from sysadmd.journal import Transaction
from sysadmd.settings import DispatcherSettings
from sysadmd.store import open_store
from tests.kit.accepting import accept
from tests.kit.waiting import DEADLINE

SYSTEM = "sysadm/test"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine has read nothing yet, where a test asks what was read."""
    monkeypatch.setattr(hearing, "LINGER", DEADLINE)


class Notes:
    """A report that notes what it is fed; `break` in an event makes it fail."""

    def __init__(self, accepted: Fields, told: Fields) -> None:
        self.accepted, self.told = accepted, told
        self.texts: list[str] = ["", ""]
        self.events: list[str] = []
        self.sizes: list[int] = []
        self.file: str | None = None

    @property
    def watched(self) -> str | None:
        return self.file

    def output(self, command: int, data: bytes) -> None:
        self.texts[command] += data.decode()

    def event(self, line: bytes) -> None:
        self.events.append(line.decode())
        if line == b"break":
            raise ZeroDivisionError

    def grown(self, size: int, at: float) -> None:
        self.sizes.append(size)

    def fields(self) -> Fields:
        return {
            "events": len(self.events),
            "text": "".join(self.texts)[:1000],
            "sizes": self.sizes[:],
        }

    def ended(self, result: str) -> Fields:
        return {**self.fields(), "result": result}


class Stage:
    """A job of two commands, and where it says something."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.reports: list[Notes] = []

    def reporter(self, accepted: Fields, told: Fields) -> Notes:
        self.reports.append(Notes(accepted, told))
        return self.reports[-1]

    def hearing(self, reporter: Reporter | None = None) -> Hearing:
        return Hearing(self.site, {SYSTEM: reporter or self.reporter})

    def say(self, name: str, data: bytes) -> None:
        path = self.site.state_dir / "jobs" / "1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(data)


@contextlib.asynccontextmanager
async def staged(state_dir: Path) -> AsyncGenerator[Stage]:
    store = open_store(state_dir / "state.db", {"dispatcher": records.SCHEMA})
    site = Site(store, DispatcherSettings(), state_dir, {}, "boot")
    origin = Origin(system=SYSTEM, fields={"action": "try"})
    commands = (Spec(("one",), "one"), Spec(("two",), "two"))
    orders = [Order(id="a", commands=commands, origin=origin), Order(id="b", commands=commands)]

    def change(change: Transaction) -> object:
        return accept(change, site.now(), orders)

    try:
        await store.write(change)
        yield Stage(site)
    finally:
        store.close()


async def listen(heard: Hearing, uid: int, n: int) -> Fields | None:
    """What is heard of one job."""
    return (await heard.listen([(uid, n)])).get(uid)


def run(tmp_path: Path, play: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with staged(tmp_path) as stage, asyncio.timeout(DEADLINE):
            await play(stage)

    asyncio.run(main())


def test_output_and_events_are_read_on_where_they_were_read_to(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        heard = stage.hearing()
        stage.say("0.log", b"begin")
        stage.say("0.events", b"first\nsec")
        fields = await listen(heard, 1, 0)
        assert fields is not None
        assert fields == {"events": 1, "text": "begin", "sizes": []}
        heard.tell(1, fields)
        assert await listen(heard, 1, 0) is None
        stage.say("0.log", b" and end")
        stage.say("0.events", b"ond\n\n")
        fields = await listen(heard, 1, 0)
        assert fields == {"events": 3, "text": "begin and end", "sizes": []}
        assert stage.reports[0].events == ["first", "second", ""]
        assert stage.reports[0].accepted == {"action": "try"}

    run(tmp_path, play)


def test_what_was_not_told_is_told_the_next_time(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        heard = stage.hearing()
        stage.say("0.log", b"something")
        assert await listen(heard, 1, 0) == await listen(heard, 1, 0)
        assert heard.last_of(1) == {}

    run(tmp_path, play)


def test_a_command_is_heard_out_before_the_next(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        heard = stage.hearing()
        stage.say("0.log", b"one")
        await listen(heard, 1, 0)
        stage.say("0.log", b", its rest")
        stage.say("0.events", b"late\n")
        stage.say("1.log", b"two")
        stage.say("1.events", b"other\n")
        await listen(heard, 1, 1)
        (report,) = stage.reports
        assert report.texts == ["one, its rest", "two"]
        assert report.events == ["late", "other"]

    run(tmp_path, play)


def test_the_next_daemon_hears_all_from_the_beginning(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        stage.say("0.log", b"all of it")
        fields = await listen(stage.hearing(), 1, 0)
        assert fields is not None

        def change(change: Transaction) -> None:
            records.keep_report(change.db, 1, fields)

        await stage.site.store.write(change)
        heard = stage.hearing()
        assert await listen(heard, 1, 0) is None
        assert stage.reports[1].told == fields
        assert stage.reports[1].texts[0] == "all of it"

    run(tmp_path, play)


def test_the_end_has_all_that_was_said_before_it(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        heard = stage.hearing()
        stage.say("0.log", b"x" * 1_000_000)
        stage.say("0.events", b"y\n" * 300_000)
        async with heard.endings([(1, 0), (2, 0)]) as endings:
            assert endings.keys() == {1}
            ended = endings[1]("failed")
        assert (ended["events"], ended["result"]) == (300_000, "failed")
        assert len(stage.reports[0].texts[0]) == 1_000_000

    run(tmp_path, play)


@pytest.mark.parametrize(
    "part",
    [
        *("made", "event", "fields", "ended", "watched"),
        *("no JSON", "half a character", "long"),
    ],
)
def test_a_report_that_fails_costs_its_fields_and_nothing_else(
    tmp_path: Path, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    odd = {"no JSON": object(), "half a character": "\ud800", "long": "x" * 200_000}

    class Failing(Notes):
        def __init__(self, accepted: Fields, told: Fields) -> None:
            super().__init__(accepted, {"made": 1 // (part != "made")})

        def fields(self) -> Fields:
            return {"sum": odd.get(part, 1 // (part != "fields"))}

        def ended(self, result: str) -> Fields:
            return {"sum": 1 // (part != "ended")}

        @property
        def watched(self) -> str | None:
            return str(1 // (part != "watched"))

    async def play(stage: Stage) -> None:
        heard = stage.hearing(Failing)
        stage.say("0.events", b"break\n" if part == "event" else b"fine\n")
        fields = await listen(heard, 1, 0)
        async with heard.endings([(1, 0)]) as endings:
            assert endings[1]("succeeded") == {}
        if part == "ended":
            assert fields == {"sum": 1}
        else:
            assert fields is None
        failures = [one for one in caplog.records if "the report on it failed" in one.message]
        assert len(failures) == 1

    with caplog.at_level(logging.ERROR):
        run(tmp_path, play)


def test_a_file_that_grows_is_looked_at_and_not_waited_for(tmp_path: Path) -> None:
    growing = tmp_path / "growing"

    async def play(stage: Stage) -> None:
        heard = stage.hearing()
        await listen(heard, 1, 0)
        (report,) = stage.reports
        report.file = str(growing)
        # Not there yet, which is no size.
        for _ in range(3):
            await listen(heard, 1, 0)
            await asyncio.sleep(0.02)
        assert report.sizes == []
        for size in (10, 20):
            growing.write_bytes(b"x" * size)
            while size not in report.sizes:
                await listen(heard, 1, 0)
                await asyncio.sleep(0.01)
        assert report.sizes == sorted(report.sizes)

    run(tmp_path, play)


def test_what_a_job_makes_of_its_files_is_read_in_portions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "MOST", 1_000_000)

    async def play(stage: Stage) -> None:
        heard = stage.hearing()
        for name in ("0.log", "0.events"):
            stage.say(name, b"")
            with (stage.site.state_dir / "jobs" / "1" / name).open("r+b") as file:
                file.truncate(2**40)
        fields = await listen(heard, 1, 0)
        assert fields is not None
        assert 0 < len(stage.reports[0].texts[0]) < 2_000_000

    run(tmp_path, play)


def test_nobody_waits_for_one_that_has_much_to_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hearing, "LINGER", 0.01)
    monkeypatch.setattr(hearing, "PATIENCE", 0.05)
    go_on = threading.Event()

    class Slow(Notes):
        def event(self, line: bytes) -> None:
            go_on.wait(DEADLINE)
            super().event(line)

    async def play(stage: Stage) -> None:
        heard = stage.hearing(Slow)
        stage.say("0.events", b"one\n")
        assert await listen(heard, 1, 0) is None
        assert await listen(heard, 1, 0) is None
        go_on.set()
        # Read meanwhile, though nobody waited for it.
        fields = None
        while fields is None:
            fields = await listen(heard, 1, 0)
        assert fields["events"] == 1
        heard.tell(1, fields)
        go_on.clear()
        stage.say("0.events", b"two\n")
        async with heard.endings([(1, 0)]) as endings:
            # What was told last stays.
            assert endings[1]("succeeded") == fields
        assert "it has said too much to be read in time" in caplog.text
        go_on.set()

    run(tmp_path, play)


def test_who_is_asked_for_its_end_is_not_listened_to(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        heard = stage.hearing()
        stage.say("0.log", b"something")
        async with heard.endings([(1, 0)]) as endings:
            assert await listen(heard, 1, 0) is None
            assert endings[1]("failed")["text"] == "something"
        assert await listen(heard, 1, 0) is not None

    run(tmp_path, play)


def test_an_end_that_could_not_be_written_is_none(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        heard = stage.hearing()
        stage.say("0.log", b"something")
        with pytest.raises(StoreFull):
            async with heard.endings([(1, 0)]) as endings:
                assert endings[1]("succeeded")["result"] == "succeeded"
                raise StoreFull("no space")
        # Whatever it has made of that is forgotten.
        fields = await listen(heard, 1, 0)
        assert fields is not None
        assert fields["text"] == "something"
        assert len(stage.reports) == 2

    run(tmp_path, play)


def test_jobs_that_do_not_run_any_more_are_forgotten(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        heard = stage.hearing()
        await listen(heard, 1, 0)
        heard.keep_only({2})
        assert heard.last_of(1) is None
        await listen(heard, 1, 0)
        assert len(stage.reports) == 2

    run(tmp_path, play)


def test_jobs_of_no_class_are_not_listened_to(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        heard = stage.hearing()
        assert not heard.hears(None)
        assert not heard.hears("sysadm/other")
        assert await listen(heard, 2, 0) is None
        assert stage.reports == []

    run(tmp_path, play)
