"""Exit statuses of `sysadmctl`, each as the contract has it."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit import DEADLINE, Daemon, wait_for
from tests.kit.ctl import Ctl
from tests.kit.pools import StandIn, watching

Play = Callable[
    [Callable[[str, dict[str, Any]], Any]], tuple[list[str], list[tuple[str, dict[str, Any]]]]
]


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ctl]:
    """`sysadmctl` at a daemon with a pool that is 89 % full."""
    directory = tmp_path_factory.mktemp("statuses")
    stand_in = StandIn(directory)
    stand_in.put("ozfs-capacity-89", 1)
    ctl = Ctl(directory, "--state-dir", str(directory / "state"))
    (directory / "text").write_text("no program\n")
    with Daemon(directory / "state", watching(str(stand_in.command))):
        wait_for(lambda: "89%" in ctl("state").stdout, "the first reading")
        yield ctl


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("jobs", 0),
        ("show nobody", 1),
        ("log nobody", 1),
        ("kill nobody", 1),
        ("rerun nobody", 1),
        ("jobs --queue nowhere", 1),
        ("queue pause nowhere", 1),
        ("tail --since nocursor", 1),
        ("key revoke nobody", 1),
        ("unblock 192.0.2.7", 1),
        ("pkg search", 2),
        ("nocommand", 2),
        ("jobs --nope", 2),
        ("jobs --limit 0", 2),
        ("run", 2),
        ("tail nosystem", 2),
        ("jobs --profile x --url y", 2),
        ("servers", 2),
        ("top", 2),
        ("jobs --url 127.0.0.1:1 --token x", 69),
        ("run --url 127.0.0.1:1 --token x -- true", 69),
        ("state --token wrong", 77),
        ("run --token wrong -- true", 77),
        ("run -- true", 0),
        ("run -- sh -c 'exit 3' + true", 3),
        ("run --timeout 0.3 -- sleep 60", 124),
        ("run --queue nowhere -- true", 125),
        ("run -- FILE", 126),
        ("run -- /no/such/program", 127),
        ("run -- sh -c 'kill -TERM $$'", 143),
        ("check pool", 0),
        ("check pool --warning 80", 1),
        ("check pool --critical 80", 2),
        ("check pool nopool", 2),
        ("check pool --token wrong", 3),
        ("check pool --url 127.0.0.1:1 --token x", 3),
        ("check pool --nope", 3),
    ],
)
def test_a_command_ends_with_the_status_that_says_what_happened(
    at: Ctl, words: str, status: int
) -> None:
    done = at(*shlex.split(words.replace("FILE", str(at.home / "text"))))
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr


def test_a_job_that_was_killed_or_is_lost_has_a_status_of_its_own(ctl: Ctl, play: Play) -> None:
    def answer(result: str) -> Callable[[str, dict[str, Any]], Any]:
        def told(_: str, args: dict[str, Any]) -> Any:
            job: dict[str, Any] = {"id": "j", "time_created": "t", "commands": []}
            return {"job": {**job, "state": "finished", "result": result}}

        return told

    for result, status in (("killed", 137), ("lost", 125), ("succeeded", 0)):
        where, _ = play(answer(result))
        assert ctl(*where, "run", "-q", "--", "true").returncode == status


@pytest.mark.parametrize("words", [["tail"], ["run", "--", "sleep", "60"], ["log", "-f", "it"]])
def test_ctrl_c_is_130(daemon: Daemon, words: list[str]) -> None:
    ctl = Ctl(Path("/nonexistent"), "--state-dir", str(daemon.state_dir))
    ctl("run", "--no-wait", "--id", "it", "--", "sleep", "600")

    def connections() -> int:
        with daemon.local() as client:
            return len(client.ask("rpc", "clients", {"action": "list"})["clients"])

    before = connections()
    with ctl.started(*words) as process:
        wait_for(lambda: connections() > before, "the connection")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    # Jobs go on without us, and without the daemon.
    with daemon.local() as client:
        listed = client.ask("rpc", "dispatcher", {"action": "list"})["jobs"]
    assert ctl("kill", *(id for jobs in listed.values() for id in jobs)).returncode == 0
