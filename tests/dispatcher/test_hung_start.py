"""Jobs whose working directory or program lies on a file system that does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit import wait_for
from tests.kit.driver import Driver
from tests.kit.hung import hung_file_system
from tests.kit.processes import books


@pytest.fixture
def hung(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with hung_file_system(tmp_path_factory.mktemp("hung") / "pool") as place:
        yield place


@pytest.fixture(params=["cwd", "program", "path"])
def order(request: pytest.FixtureRequest, hung: Path) -> dict[str, Any]:
    """What a job that hangs is asked for with."""
    if request.param == "cwd":
        return {"commands": [["pwd"]], "cwd": str(hung / "sub")}
    if request.param == "program":
        return {"commands": [[str(hung / "program")]]}
    return {"commands": [["no-such-program"]], "env": {"PATH": f"/bin:{hung}/bin"}}


def start(daemon: Driver, order: dict[str, Any], **more: Any) -> int:
    """A job that hangs in its start."""
    reply = daemon.ask({"submit": [{**order, "id": "hung", **more}]})
    uid = int(reply["jobs"][0][0])
    wait_for(lambda: daemon.job(uid).state == "running")
    wait_for(lambda: f'{{"next":[{uid},0]' in books(daemon.state_dir))
    return uid


def test_a_start_that_hangs_holds_no_other_job(daemon: Driver, order: dict[str, Any]) -> None:
    before = daemon.submit(["sh", "-c", "sleep 1; exit 3"])
    hung = start(daemon, order)
    assert daemon.finished(daemon.submit("true")).result == "succeeded"
    assert daemon.finished(before).commands[0].return_code == 3
    daemon.kill()
    daemon.start()
    assert daemon.finished(daemon.submit("true")).result == "succeeded"
    assert daemon.job(hung).state == "running"
    daemon.ask({"kill": ["hung"]})
    assert daemon.finished(hung).result == "killed"


def test_a_start_that_hangs_is_timed_out(daemon: Driver, order: dict[str, Any]) -> None:
    hung = start(daemon, order, timeout=0.5)
    assert daemon.finished(hung).result == "timed-out"


def test_a_start_that_hangs_is_said(daemon: Driver, order: dict[str, Any]) -> None:
    hung = start(daemon, order)
    said = "job hung: the start of command 0"
    wait_for(lambda: said in daemon.log.read_text())
    daemon.kill()
    daemon.start()
    wait_for(lambda: daemon.log.read_text().count(said) == 2)
    assert daemon.job(hung).state == "running"
