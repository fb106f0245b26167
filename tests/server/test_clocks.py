"""Clocks that lie: nothing is lost, doubled or hidden, and retention waits until they agree."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from sysadmd.events import SYSTEMS
from tests.kit import QUIET, Client, Daemon, wait_for
from tests.kit.clock import Clocks
from tests.kit.state_file import append_events, line, state_file

HOUR = 3600
DAY = 24 * HOUR
LEAPT = "the wall clock went"
AGREED = "wall clock and uptime have agreed"
# Retention looks twenty times a second, not twice a minute.
SOON = "import server.retention; server.retention.INTERVAL = 0.05"
# What is kept is old after these days.
SHORT = QUIET + "[retention]\nevents_days = 20\njobs_days = 30\n"


def column(daemon: Daemon, query: str) -> list[Any]:
    """What the state file has, in one column."""
    with state_file(daemon.state_dir) as db:
        return [row[0] for row in db.execute(query)]


def kept(daemon: Daemon) -> dict[str, int]:
    """How much of all that is kept for days is there."""
    tables = ("events", "jobs", "audit", "tokens")
    counts = {table: column(daemon, f"SELECT count(*) FROM {table}")[0] for table in tables}
    # Of each job a directory, which may go while one looks.
    logs = [path for path in (daemon.state_dir / "jobs").iterdir() if path.name.isdigit()]
    return {**counts, "logs": len(logs)}


def said(daemon: Daemon, text: str) -> int:
    return daemon.log.read_text().count(text)


class Visitor:
    """A daemon with a subscriber; its clock is set while it runs, or between two runs."""

    def __init__(self, room: Path, *, stops: bool, config: str = QUIET) -> None:
        self.clocks = Clocks(room)
        self.daemon = Daemon(room / "state", config, env=self.clocks.environment, before=SOON)
        self.stops = stops
        self.frames: list[dict[str, Any]] = []
        self._stack = contextlib.ExitStack()
        self.client: Client

    def __enter__(self) -> Self:
        self.daemon.__enter__()
        self._come()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
        self.daemon.__exit__(kind, error, trace)

    def _come(self) -> None:
        # The certificate has a time of its own.
        self.client = self._stack.enter_context(self.daemon.local())
        since = self.frames[-1]["cursor"] if self.frames else "oldest"
        self.client.ask("events", "subscribe", {"systems": list(SYSTEMS), "since": since})

    def set(self, seconds: float) -> None:
        """Set the clock off by so much."""
        if self.stops:
            self._stack.close()
            self.daemon.stop()
        self.clocks.set(seconds)
        if self.stops:
            self.daemon.start()
            self._come()

    def submit(self, id: str, command: str, **more: object) -> None:
        job = {"id": id, "commands": [command], **more}
        self.client.ask("rpc", "dispatcher", {"action": "submit", "job": job})

    def hear(self, id: str) -> str:
        """Hear events until this job has ended; how it has."""

        def is_end(frame: dict[str, Any]) -> bool:
            args = frame["args"]
            return bool(args.get("process_id") == id and args["state"] == "finished")

        if not any(map(is_end, self.frames)):
            self.frames += self.client.until(is_end)
        (end,) = filter(is_end, self.frames)
        return str(end["args"]["process_details"]["result"])


def looked_at(daemon: Daemon) -> None:
    """Wait until it has kept what the clocks say: the next look is compared with that."""
    wait_for(lambda: column(daemon, "SELECT count(*) FROM passage") == [1], "a look")


@pytest.mark.parametrize("stops", [False, True], ids=["while running", "at start"])
@pytest.mark.parametrize(
    "step", [sign * step for step in (5, 23 * HOUR, 25 * HOUR, 100 * DAY) for sign in (1, -1)]
)
def test_a_clock_that_is_set_loses_doubles_and_hides_nothing(
    tmp_path: Path, step: int, stops: bool
) -> None:
    go = tmp_path / "go"
    leaps = 1 if abs(step) > DAY else 0
    with Visitor(tmp_path, stops=stops) as visitor:
        daemon = visitor.daemon
        week = {"action": "add", "name": "before", "role": "read", "expires": "7d"}
        visitor.client.ask("rpc", "tokens", week)
        visitor.submit("first", "echo here")
        assert visitor.hear("first") == "succeeded"
        waits = f'sh -c "until [ -e {go} ]; do sleep 0.05; done"'
        visitor.submit("held", waits, timeout=HOUR)
        visitor.submit("limited", "sleep 600", timeout=2)
        looked_at(daemon)
        for number, wrong in enumerate((step, 0), start=1):
            visitor.set(wrong)
            if leaps:
                ahead = "SELECT leap > 0 FROM passage WHERE leap != 0"
                is_ahead = [int((wrong or -step) > 0)]
                wait_for(lambda: column(daemon, ahead) == is_ahead, "the leap")  # noqa: B023
            visitor.client.ask("rpc", "tokens", {**week, "name": f"then {number}"})
            visitor.submit(f"then {number}", "true")
            assert visitor.hear(f"then {number}") == "succeeded"
            if number == 1:
                assert visitor.hear("limited") == "timed-out"
        go.touch()
        assert visitor.hear("held") == "succeeded"
        text = visitor.client.ask("rpc", "dispatcher", {"action": "log", "job_id": "first"})
        assert text["text"] == "here\n"
        heard = visitor.frames
        visitor.stops = True
        visitor.frames = []
        visitor.set(0)
        assert visitor.hear("held") == "succeeded"
        assert visitor.frames == heard
        assert [frame["prev"] for frame in heard[1:]] == [f["cursor"] for f in heard[:-1]]
        times = [frame["time"] for frame in heard]
        assert times == sorted(times)
        # It is said once, though it leapt back.
        assert said(daemon, LEAPT) == leaps
        seqs = column(daemon, "SELECT seq FROM events ORDER BY seq")
        assert seqs == list(range(1, len(seqs) + 1))
        assert column(daemon, "SELECT count(*) FROM jobs WHERE state = 2") == [5]
        assert len(list((daemon.state_dir / "jobs").glob("*/*"))) == 5
        assert set(column(daemon, "SELECT name FROM tokens")) == {"before", "then 1", "then 2"}
        ever = {"time_format": "epoch_mseconds", "start_time": "0", "end_time": "9" * 15}
        asked = {"action": "read_logs", "logs": ["hostinfo"], **ever}
        entries = visitor.client.ask("rpc", "logs", asked)["hostinfo"].values()
        trail = [text.partition(": ")[2] for text in entries]
        assert [text for text in trail if text.startswith("submit")] == [
            f"submit {id} to no_queue"
            for id in ("first", "held", "limited", "then 1", "then 2")
        ]
        assert column(daemon, "SELECT time FROM audit ORDER BY id") == sorted(
            column(daemon, "SELECT time FROM audit")
        )


class Years:
    """A daemon with something to keep, which begins again at other times."""

    def __init__(self, room: Path, config: str = SHORT) -> None:
        self.clocks = Clocks(room)
        self.wall = 0
        self.daemon = Daemon(room / "state", config, before=SOON)

    def begin_again(self, *, uptime: int = 0, wall: int | None = None) -> None:
        """Both go on by so much before its next start, wall: as `uptime` if not told."""
        if self.daemon.is_up:
            self.daemon.stop()
        self.clocks.uptime += uptime
        self.wall += uptime if wall is None else wall
        self.clocks.set(self.wall)
        self.daemon.environment.update(self.clocks.environment)
        self.daemon.start()

    def fill(self) -> dict[str, int]:
        """Jobs, logs, entries, a token of an hour: all of it is noted as being there."""
        self.begin_again()
        with self.daemon.local() as client:
            client.ask("events", "subscribe", "dispatcher")
            add = {"action": "add", "name": "soon over", "role": "read", "expires": "1h"}
            client.ask("rpc", "tokens", add)
            jobs = {f"job {n}": "echo output" for n in range(3)}
            client.ask("rpc", "dispatcher", {"action": "run", **jobs})
            left = set(jobs)
            while left:
                args = client.event()["args"]
                left -= {args["process_id"]} if args["state"] == "finished" else set()
        self.begin_again(uptime=2 * HOUR)
        noted = "SELECT upto FROM ages WHERE kind = 'audit'"
        (newest,) = column(self.daemon, "SELECT max(id) FROM audit WHERE action LIKE 'run%'")
        wait_for(lambda: newest in column(self.daemon, noted), "the ages of what is there")
        there = kept(self.daemon)
        assert all(there.values())
        return there

    def looks_on(self) -> None:
        """Retention was applied once more, to the last of it, since this was called."""
        # An entry that no daemon would have written goes with the others, as the last one.
        with state_file(self.daemon.state_dir) as db:
            db.execute("INSERT INTO audit VALUES (-1, 0, '', '', 'old', NULL)")
        gone = "SELECT count(*) FROM audit WHERE id = -1"
        wait_for(lambda: column(self.daemon, gone) == [0], "retention")


def test_what_is_old_by_uptime_and_clock_goes(tmp_path: Path) -> None:
    years = Years(tmp_path)
    with contextlib.ExitStack() as stack:
        years.fill()
        stack.enter_context(years.daemon)
        years.begin_again(uptime=25 * DAY)
        wait_for(lambda: not kept(years.daemon)["events"], "retention")
        # Jobs and the trail are kept for longer; a token is not.
        wait_for(lambda: not kept(years.daemon)["tokens"], "retention")
        there = kept(years.daemon)
        assert there["jobs"] == there["logs"] == 3
        assert there["audit"]
        years.begin_again(uptime=10 * DAY)
        gone = {"events": 0, "jobs": 0, "audit": 0, "tokens": 0, "logs": 0}
        wait_for(lambda: kept(years.daemon) == gone, "retention")
        assert said(years.daemon, LEAPT) == 0


@pytest.mark.parametrize("days", [100, -100])
def test_what_is_old_by_the_wall_clock_alone_stays(tmp_path: Path, days: int) -> None:
    years = Years(tmp_path)
    with contextlib.ExitStack() as stack:
        there = years.fill()
        stack.enter_context(years.daemon)
        years.begin_again(wall=days * DAY)
        wait_for(lambda: said(years.daemon, LEAPT), LEAPT)
        years.looks_on()
        assert kept(years.daemon) == there
        # That is said once, not at each start.
        years.begin_again(uptime=2 * HOUR)
        years.looks_on()
        assert (said(years.daemon, LEAPT), said(years.daemon, AGREED)) == (1, 0)
        years.begin_again(uptime=23 * HOUR)
        wait_for(lambda: said(years.daemon, AGREED), AGREED)
        years.looks_on()
        # By now the clock is believed: the token has run out, or was made in the future.
        assert kept(years.daemon) == {**there, "tokens": 0 if days > 0 else 1}
        # It is the time that has passed since then that makes them old.
        years.begin_again(uptime=40 * DAY)
        wait_for(lambda: not any(kept(years.daemon).values()), "retention")
        assert (said(years.daemon, LEAPT), said(years.daemon, AGREED)) == (1, 1)


def test_sizes_hold_while_the_clock_is_not_believed(tmp_path: Path) -> None:
    config = QUIET + "[retention]\nevents_size = '64KiB'\n"
    years = Years(tmp_path, config)
    with contextlib.ExitStack() as stack:
        years.begin_again()
        stack.enter_context(years.daemon)
        looked_at(years.daemon)
        years.daemon.stop()
        events = [("life-preserver", line(number), 0.0) for number in range(2000)]
        append_events(years.daemon.state_dir, events)
        years.begin_again(wall=100 * DAY)
        wait_for(lambda: said(years.daemon, LEAPT), LEAPT)
        wait_for(lambda: kept(years.daemon)["events"] < 2000, "retention by size")
