"""Jobs of sysadm/pkg over deaths: the daemon's, their own, their starter's."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.kit import Client, Daemon, wait_for
from tests.kit.pkg_class import ask, check_growth, ends, is_there, own_fields, reported, staged
from tests.kit.processes import end, holders, starters
from tests.kit.replay import Recording, Tools, recording

MODES: Final = ["", "1"]
# Where an upgrade is when the daemon dies; None: before it has said anything.
PLACES: Final = {
    "at its beginning": None,
    "amid a fetch": '"current": 1220608',
    "between fetch and install": "Checking integrity",
    "amid an upgrade": "[3/5] Extracting manyfiles",
    "at its end": "INFO_TRIGGERS_BEGIN",
}


@dataclass(frozen=True, slots=True)
class Held:
    """A job that waits amid its run until `go` is there."""

    tools: Tools
    daemon: Daemon
    played: Recording
    place: int
    go: Path
    id: str

    @property
    def file(self) -> Path:
        """Of the lines of its events."""
        return self.daemon.state_dir / "jobs" / "1" / "0.events"

    def wait(self) -> None:
        """Until it has said all that comes before."""
        wait_for(lambda: self.tools.workers(), "pkg's worker")
        before = self.played.items[: self.place]
        lines = b"".join(data + b"\n" for _, kind, data, _ in before if kind == "event")
        wait_for(lambda: not lines or self.file.read_bytes() == lines, "its events")
        text = b"".join(data for _, kind, data, _ in before if kind == "text")
        log = self.file.with_suffix(".log")
        wait_for(lambda: log.read_bytes() == text, "its text")


@contextmanager
def held(
    tmp_path: Path,
    case: str,
    before: str | None,
    *,
    action: str = "pkg_upgrade",
    portable: str = "",
    **args: str,
) -> Generator[Held]:
    tools, daemon = staged(tmp_path, env={"SYSADMD_PORTABLE": portable})
    place = 0 if before is None else recording("pkg", case).before(before)
    go = tmp_path / "go"
    played = tools.play("pkg", case, speed=None, hold=(place, go))
    with daemon:
        with daemon.client() as client:
            id = ask(client, action, **args)["proc_id"]
        job = Held(tools, daemon, played, place, go, id)
        job.wait()
        yield job


def all_events(client: Client, id: str) -> list[dict[str, Any]]:
    """`args` of all of the job's events from the first, until it has ended."""
    client.ask("events", "subscribe", {"systems": ["dispatcher"], "since": "oldest"})
    return ends(client, id)


def check_end(job: Held, events: list[dict[str, Any]]) -> None:
    """As if nothing had happened."""
    pending, start, *_, last = events
    assert pending["state"] == "pending"
    assert start["state"] == "running"
    assert [args["state"] for args in events].count("finished") == 1
    check_growth(events)
    assert own_fields(last) == reported("pkg_upgrade", job.played)
    assert last["pkg_log"] == job.played.output.decode()
    details = last["process_details"]
    assert details["result"] == "succeeded"
    assert details["commands"][0]["return_code"] == "0"
    assert job.file.read_bytes() == b"".join(line + b"\n" for line in job.played.events)
    assert len(job.tools.workers()) == 1


def told(job: Held) -> dict[str, Any]:
    """The progress that was told last of the running job."""
    with job.daemon.client() as client:
        client.ask("events", "subscribe", {"systems": ["dispatcher"], "since": "oldest"})
        frames = client.until(lambda frame: "progress" in frame["args"])
        progress: dict[str, Any] = frames[-1]["args"]["progress"]
        return progress


@pytest.mark.parametrize(
    ("place", "portable"),
    [*((place, "") for place in PLACES), ("amid a fetch", "1"), ("amid an upgrade", "1")],
)
def test_an_upgrade_is_adopted_by_the_next_daemon(
    tmp_path: Path, place: str, portable: str
) -> None:
    with held(tmp_path, "upgrade", PLACES[place], portable=portable) as job:
        job.daemon.kill()
        job.daemon.start()
        with job.daemon.client() as client:
            job.go.touch()
            check_end(job, all_events(client, job.id))


@pytest.mark.parametrize("portable", MODES)
def test_progress_goes_on_from_what_was_told(tmp_path: Path, portable: str) -> None:
    place = PLACES["amid an upgrade"]
    with held(tmp_path, "upgrade", place, portable=portable) as job:
        before = told(job)
        assert (before["phase"], before["package"]) == ("upgrade", "manyfiles")
        assert (before["done"], before["total"]) == (2, 5)
        job.daemon.kill()
        job.daemon.start()
        with job.daemon.client() as client:
            show = {"action": "show", "job_id": job.id}
            shown = client.ask("rpc", "dispatcher", show)["job"]
            assert shown["state"] == "running"
            assert shown["fields"]["progress"] == before
            job.go.touch()
            check_end(job, all_events(client, job.id))


@pytest.mark.parametrize("portable", MODES)
def test_an_upgrade_that_ends_without_a_daemon_is_told_by_the_next(
    tmp_path: Path, portable: str
) -> None:
    with held(tmp_path, "upgrade", PLACES["amid a fetch"], portable=portable) as job:
        job.daemon.kill()
        job.go.touch()
        wait_for(lambda: not holders(job.daemon.state_dir), "the end of all")
        job.daemon.start()
        with job.daemon.client() as client:
            check_end(job, all_events(client, job.id))


def test_a_daemon_that_dies_again_and_again_loses_nothing(tmp_path: Path) -> None:
    tools, daemon = staged(tmp_path)
    places = [recording("pkg", "upgrade").before(text) for text in PLACES.values() if text]
    with daemon:
        # At its own pace, so what is cut is never the same.
        played = tools.play("pkg", "upgrade")
        with daemon.client() as client:
            id = ask(client, "pkg_upgrade")["proc_id"]
        job = Held(tools, daemon, played, 0, tmp_path / "go", id)
        for place in places[:3]:
            lines = sum(item[1] == "event" for item in played.items[:place])
            wait_for(partial(has_lines, job.file, lines), "its events")
            daemon.kill()
            daemon.start()
        with daemon.client() as client:
            check_end(job, all_events(client, id))


def has_lines(file: Path, count: int) -> bool:
    return file.exists() and file.read_bytes().count(b"\n") >= count


@pytest.mark.parametrize("portable", MODES)
def test_a_killed_job_takes_pkgs_worker_with_it(tmp_path: Path, portable: str) -> None:
    with held(tmp_path, "upgrade", PLACES["amid a fetch"], portable=portable) as job:
        pids = [job.tools.calls("pkg")[0].pid, *job.tools.workers()]
        assert len(set(pids)) == 2
        with job.daemon.client() as client:
            kill = {"action": "kill", "job_id": job.id}
            answer = client.ask("rpc", "dispatcher", kill)
            assert answer == {"killed": {"jobs": [job.id]}}
            # kill_grace is 10 s.
            wait_for(lambda: not any(map(is_there, pids)), "both processes' end", seconds=9)
            events = all_events(client, job.id)
        check_growth(events)
        last = events[-1]
        assert last["process_details"]["result"] == "killed"
        assert last["process_details"]["commands"][0]["return_code"] == f"-{signal.SIGTERM:d}"
        assert last["progress"]["package"] == "bigdata"
        assert 0 < last["progress"]["percent"] < 50


def test_what_ignores_terms_is_killed_after_its_grace(tmp_path: Path) -> None:
    tools, daemon = staged(tmp_path, dispatcher="kill_grace = 0.5")
    script = tools.folder / "pkg"
    script.write_text(
        f"#!/bin/sh\ntrap '' TERM\nsleep 77 &\necho $$ $! > {tools.folder}/pids\nwait\n"
    )
    with daemon, daemon.client() as client:
        client.ask("events", "subscribe", ["dispatcher"])
        id = ask(client, "pkg_upgrade")["proc_id"]
        pids = tools.folder / "pids"
        wait_for(lambda: pids.exists() and pids.read_text().endswith("\n"))
        client.ask("rpc", "dispatcher", {"action": "kill", "job_id": id})
        last = ends(client, id)[-1]
        assert last["process_details"]["commands"][0]["return_code"] == f"-{signal.SIGKILL:d}"
        wait_for(lambda: not any(is_there(int(pid)) for pid in pids.read_text().split()))


@pytest.mark.parametrize(
    ("case", "place", "code"),
    [
        ("upgrade", PLACES["amid a fetch"], 0),
        ("upgrade", PLACES["amid an upgrade"], 0),
        ("fail-disk-full-extract", "INFO_EXTRACT_BEGIN", 3),
    ],
)
def test_a_job_whose_starter_was_killed_ends_with_its_true_code(
    tmp_path: Path, case: str, place: str, code: int
) -> None:
    install = case.startswith("fail")
    action = "pkg_install" if install else "pkg_upgrade"
    args = {"pkg_origins": "bigdata"} if install else {}
    with held(tmp_path, case, place, action=action, **args) as job:
        before = told(job)
        (starter,) = starters(job.daemon.state_dir, busy=True)
        end(starter)
        wait_for(lambda: not is_there(starter))
        job.go.touch()
        with job.daemon.client() as client:
            events = all_events(client, job.id)
        check_growth(events)
        last = events[-1]
        assert last["process_details"]["commands"][0]["return_code"] == str(code)
        assert last["process_details"]["result"] == ("failed" if code else "succeeded")
        # Its text goes on; its events nobody hears any more.
        assert last["pkg_log"] == job.played.output.decode()
        assert last["progress"]["percent"] >= before["percent"]
        if not code:
            assert last["progress"]["done"] == last["progress"]["total"] == 5
