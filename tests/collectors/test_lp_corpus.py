"""Every recorded log, played against the running daemon, killed and started in the middle."""

from __future__ import annotations

import importlib.util
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.kit import Client, Daemon
from tests.kit.corpus import LPRESERVER
from tests.kit.daemon import following

# The corpus' own player leaves a file to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
CASES = sorted(
    path.name for path in LPRESERVER.iterdir() if path.is_dir() and path.name[0] != "_"
)

FAST = ("all-messages", "half-lines", "rotation-newsyslog-rename", "not-utf8")
# How long the last lines of a case may take: two looks of the timer, and a rotation.
SETTLE = 6.0


class Run:
    """One case: the daemon, and all events of the journal by a resumed subscription."""

    def __init__(self, directory: Path, case: str) -> None:
        self.case = LPRESERVER / case
        self.logs = directory / case / "log"
        self.logs.mkdir(parents=True)
        state = directory / case / "state"
        self.daemon = Daemon(state, following(self.logs / "lpreserver.log"))
        steps = (self.case / "steps.jsonl").read_text().splitlines()
        self.restarts = any('"collector"' in step for step in steps)
        # Until the daemon is killed, s of the play.
        self.left = sum(json.loads(step)["sleep"] for step in steps) / 2

    def collector(self, what: str) -> None:
        if what in ("begin", "start"):
            self.daemon.start()
        else:
            self.daemon.kill()

    def play(self) -> list[dict[str, Any]]:
        spec = importlib.util.spec_from_file_location("play", LPRESERVER / "play.py")
        assert spec is not None and spec.loader is not None
        player: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(player)
        player.time = SimpleNamespace(sleep=self._sleep)
        try:
            player.play(str(self.case), str(self.logs), 1.0, self.collector)
            return self._events()
        finally:
            if self.daemon.is_up:
                self.daemon.stop()

    def _sleep(self, seconds: float) -> None:
        """The play goes on when the daemon is there again: what it could not see in time, on
        a busy machine, would rightly be missing."""
        before, self.left = self.left, self.left - seconds
        if self.left > 0 or before <= 0 or self.restarts:
            # A case of restarts has its own.
            time.sleep(seconds)
            return
        time.sleep(before)
        if self.daemon.is_up:
            self.daemon.kill()
            self.daemon.start()
        time.sleep(seconds - before)

    def _events(self) -> list[dict[str, Any]]:
        wanted = [e for e in self.expected() if not e.get("optional")]
        found: list[dict[str, Any]] = []
        with self.daemon.client() as client:
            client.ask(
                "events", "subscribe", {"systems": ["life-preserver"], "since": "oldest"}
            )
            found += self._until_quiet(client, len(wanted))
        return [frame["args"] for frame in found if frame["name"] == "life_preserver"]

    def _until_quiet(self, client: Client, least: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        try:
            while True:
                found.append(client.event(SETTLE if len(found) >= least else 15.0))
        except TimeoutError:
            return found

    def expected(self) -> list[dict[str, Any]]:
        lines = (self.case / "expected.jsonl").read_text().splitlines()
        return [
            json.loads(line.replace("@LOGDIR@/", f"{self.logs}/")) for line in lines if line
        ]


def fits(event: dict[str, str], wanted: dict[str, Any]) -> bool:
    number = int(event["priority"].partition("/")[0])
    if number != wanted["number"]:
        return False
    if not wanted.get("class_free") and event["class"] != wanted["class"]:
        return False
    if "message_prefix" in wanted:
        return wanted["message_prefix"] in event["message"]
    if "message_pattern" in wanted:
        return re.search(wanted["message_pattern"], event["message"]) is not None
    message = event["message"]
    if "replaced_bytes" in wanted:
        squeeze = re.compile("\ufffd+")
        return squeeze.sub("?", wanted["message"]) in squeeze.sub("?", message)
    return wanted["message"] in message


def judge(case: str, events: list[dict[str, str]], expected: list[dict[str, Any]]) -> None:
    """Required events exactly once and in order, optional ones at most once, nothing else."""
    required = [e for e in expected for _ in range(1) if not e.get("optional")]
    optional = [e for e in expected if e.get("optional")]
    at = 0
    pending = list(required)
    for event in events:
        if event["priority"].startswith("0/"):
            assert any(fits(event, e) for e in optional) or "Replicating" in event["message"], (
                event
            )
            continue
        window = pending[: 2 if pending and pending[0].get("any_order_with_next") else 1]
        match = next((e for e in window if fits(event, e)), None)
        if match is not None:
            pending.remove(match)
            at += 1
            continue
        repeated = any(e.get("repeat") and fits(event, e) for e in required)
        assert repeated or any(fits(event, e) for e in optional), (case, at, event, pending[:2])
    assert not pending, (case, pending[:3], events[-3:])


def run_cases(directory: Path, cases: tuple[str, ...] | list[str], at_once: int) -> None:
    def one(case: str) -> None:
        run = Run(directory, case)
        judge(case, run.play(), run.expected())

    with ThreadPoolExecutor(at_once) as threads:
        for done in [threads.submit(one, case) for case in cases]:
            done.result()


def test_some_recorded_logs_give_their_events_once_through_a_kill(tmp_path: Path) -> None:
    run_cases(tmp_path, FAST, 4)


@pytest.mark.long
def test_every_recorded_log_gives_its_events_once_through_a_kill(tmp_path: Path) -> None:
    run_cases(tmp_path, CASES, 6)
