"""docs/protocol.md says what really is: its examples, said to a running daemon."""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit import DEADLINE, QUIET, Client, Daemon
from tests.kit.transcript import DOCUMENT, Differs, Names, differences, layout, steps

TEXT = DOCUMENT.read_text()
# What is named by people: jobs, commands, pools, queues, systems, logs. All else is a key.
NAMED = re.compile(r".*[ /:-].*|tank|later|nothing|wrong|pkg_queue|PASSWORD", re.DOTALL)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
CURSOR = "0123456789abcdef:{}:{}.0.0:4gT0wKXbqOeqzUOMpCLxKg"


def keys(value: Any) -> set[str]:
    """The keys of all objects in it."""
    found = set[str]()

    def note(pairs: list[tuple[str, Any]]) -> None:
        found.update(key for key, _ in pairs)

    json.loads(json.dumps(value), object_pairs_hook=note)
    return found


def test_the_examples_are_as_they_are_shown(tmp_path: Path) -> None:
    for step, why, came in differences(TEXT, tmp_path):
        raise AssertionError(f"{why}\n{step.text}came:\n{came}")


def test_every_key_of_an_example_is_explained() -> None:
    tables = "\n".join(line for line in TEXT.splitlines() if line.startswith("|"))
    for step in steps(TEXT):
        if step.kind in ("send", "reply", "event", "file"):
            for key in keys(step.value):
                assert NAMED.fullmatch(key) or re.search(rf"[`\"]{key}[`\"]", tables), key


def test_every_frame_has_its_answer() -> None:
    asked = [step.value["id"] for step in steps(TEXT) if step.kind == "send"]
    answered = [step.value["id"] for step in steps(TEXT) if step.kind == "reply"]
    assert len(asked) > 30
    assert asked == answered


@given(JSON)
def test_a_frame_is_laid_out_as_it_is(value: Any) -> None:
    assert json.loads(layout(value)) == value
    Names().match(value, json.loads(layout(value)))


def test_a_value_that_is_shown_twice_has_to_come_twice() -> None:
    names = Names()
    one, two, other = (CURSOR.format(n, n) for n in (1, 2, 3))
    names.match(
        [one, two, "2026-11-30T09:11:35.985Z"], [two, other, "2026-11-30T09:11:36.000Z"]
    )
    names.match({"prev": one}, {"prev": two})
    wrong: list[Any] = [[one, other], [other, other], ["a", "b"], [1, True], [["a"], []]]
    for shown, real in wrong:
        with pytest.raises(Differs):
            names.match(shown, real)
    with pytest.raises(Differs):
        names.match({"text": "a"}, {"text": "a", "more": 1})


class Joined:
    """A command's output, as "Joining a running job" says it is to be had."""

    def __init__(self, client: Client, job: str) -> None:
        self.client = client
        self.job = job
        self.have = 0
        self.text = ""
        self.taken = self.asked = 0

    def follow(self) -> None:
        """From the snapshot to the end."""
        asked = {"systems": "dispatcher", "snapshot": True}
        self.client.ask("events", "subscribe", asked)
        snapshot = self.client.event()["args"]
        (job,) = (job for job in snapshot["jobs"] if job["id"] == self.job)
        command = job["commands"][0]
        self._ask(command["log_size"])
        while command["state"] != "finished":
            details = self.client.event()["args"]["process_details"]
            command = details["commands"][0]
            self._take(details.get(command["command"], ""), command["log_size"])

    def _take(self, text: str, size: int) -> None:
        plain = len(text.encode()) == size - self.have and "\ufffd" not in text
        if plain and " bytes left out ...]\n" not in text:
            self.text += text
            self.have = size
            self.taken += 1
        else:
            self._ask(size)

    def _ask(self, size: int) -> None:
        while self.have < size:
            limit = min(size - self.have, 80 * 1024)
            asked = {"action": "log", "job_id": self.job, "offset": self.have, "limit": limit}
            reply = self.client.ask("rpc", "dispatcher", asked)
            self.text += reply["text"]
            self.asked += 1
            if reply["next"] == self.have:
                return
            self.have = reply["next"]


def test_who_joins_a_job_has_all_of_its_output_once(tmp_path: Path) -> None:
    """In its midst; parts of its output are long, or no UTF-8, or end in half a letter."""
    script = tmp_path / "script"
    script.write_text(r"""
        go() { cat go; }
        seq 1000; printf 'gr\303'; go
        for part in 1 2 3; do
            printf '\274n %s\n' $part; go
            yes "long $part" | head -c 100001; go
            printf 'no \377 letter \303'; go
        done
        printf '\274\n'
    """)
    go = tmp_path / "go"
    os.mkfifo(go)
    settings = "[dispatcher]\nprogress_interval = 0.1\n"
    with (
        Daemon(tmp_path / "state", QUIET + settings) as daemon,
        daemon.client() as first,
        daemon.client() as client,
    ):
        job = {"id": "it", "commands": [["sh", str(script)]], "cwd": str(tmp_path)}
        first.ask("events", "subscribe", {"systems": "dispatcher", "since": "now"})
        first.ask("rpc", "dispatcher", {"action": "submit", "job": job})
        # seq has written 3,893 bytes.
        first.until(lambda event: told(event) >= 3893)
        joined = Joined(client, "it")
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(joined.follow)
            for _ in range(10):
                go.write_text("")
                first.event()
            following.result(DEADLINE)
        log = next((daemon.state_dir / "jobs").glob("*/*")).read_bytes()
    assert joined.have == len(log)
    assert joined.text == log.decode("utf-8", "replace")
    assert min(joined.taken, joined.asked) > 1


def told(event: dict[str, Any]) -> int:
    """How far the first command's log has been told."""
    details = event["args"].get("process_details")
    return details["commands"][0]["log_size"] if details else 0
