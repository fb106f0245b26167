"""Exit statuses of our programs say what happened, whoever reads what they print."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

from tests.kit import DEADLINE, QUIET, ROOT, Daemon, wait_for
from tests.kit.daemon import MAIN
from tests.kit.processes import clean, ended, held

SYSADMD: Final = (sys.executable, MAIN)
CTL: Final = (sys.executable, "-c", "from sysadmd.ctl import main; main()")
# Python's own buffers: with this set there is nothing left in them.
ENVIRONMENT: Final = {key: os.environ[key] for key in os.environ if key != "PYTHONUNBUFFERED"}
NULL: Final = ("null", "null")
# What takes no text: a pipe without a reader, nothing at all, a full disk where there is one.
DEAF: Final = ("pipe", "closed", *(("full",) if Path("/dev/full").exists() else ()))


def run(argv: tuple[str, ...], out: str, errors: str) -> int:
    """The exit status with these for stdout and stderr."""
    files: list[int] = []
    for kind in (out, errors):
        if kind == "pipe":
            reader, writer = os.pipe()
            os.close(reader)
            files.append(writer)
        else:
            path = "/dev/full" if kind == "full" else os.devnull
            files.append(os.open(path, os.O_WRONLY))

    def close() -> None:
        for number, kind in enumerate((out, errors), 1):
            if kind == "closed":
                os.close(number)

    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=files[0],
            stderr=files[1],
            env=ENVIRONMENT,
            preexec_fn=close,
            timeout=DEADLINE,
            check=False,
        ).returncode
    finally:
        for file in files:
            os.close(file)


@pytest.mark.parametrize("out", ["null", *DEAF])
@pytest.mark.parametrize("errors", ["null", *DEAF])
def test_who_reads_nothing_changes_no_exit_status(out: str, errors: str) -> None:
    # What was asked for could not be told; to close stdout is to not want it.
    told = 1 if out in ("pipe", "full") else 0
    assert run((*SYSADMD, "check-config"), out, errors) == told
    assert run((*SYSADMD, "check-config", "--config", "/nowhere"), out, errors) == 2
    assert run((*CTL, "--version"), out, errors) == told
    assert run((*CTL, "--state-dir", "/nowhere", "state"), out, errors) == 69


def test_a_python_without_sqlite_is_told_which_package_it_lacks() -> None:
    blocked = "import sys; sys.modules['_sqlite3'] = None; "
    path = f"sys.path.insert(0, {str(ROOT)!r}); "
    door = "from sysadmd.__main__ import main; main()"
    argv = [sys.executable, "-c", blocked + path + door, "serve"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 1
    package = f"py{sys.version_info.major}{sys.version_info.minor}-sqlite3"
    assert f"on FreeBSD install the package {package} (" in done.stderr
    assert "Traceback" not in done.stderr
    # The client needs none.
    assert run((*CTL[:2], blocked + CTL[2], "--state-dir", "/nowhere", "jobs"), *NULL) == 69


@pytest.fixture
def piped(tmp_path: Path) -> Generator[Daemon]:
    """A daemon that is ready, whose stdout and stderr are one pipe, as under daemon(8)."""
    daemon = Daemon(tmp_path / "state", QUIET)
    daemon.process = subprocess.Popen(
        daemon.command(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
    )
    with ended(daemon.process), daemon:
        assert daemon.process.stdout is not None
        assert any(map(daemon.is_ready, daemon.process.stdout))
        yield daemon
    clean(daemon.state_dir)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_whose_reader_is_gone_stops_as_ever(
    piped: Daemon, number: signal.Signals
) -> None:
    process = piped.process
    assert process is not None
    assert process.stdout is not None
    process.stdout.close()
    # It has something to say.
    process.send_signal(signal.SIGHUP)
    with piped.client() as client:
        assert client.ask("rpc", "identify")["type"] == "server"
    process.send_signal(number)
    assert piped.wait(20) == 0


def test_nothing_of_a_job_holds_the_daemons_output(piped: Daemon) -> None:
    process = piped.process
    assert process is not None
    job = {"id": "long", "commands": [["sh", "-c", "echo begun; exec sleep 600"]]}
    with piped.local() as client:
        client.ask("rpc", "dispatcher", {"action": "submit", "job": job})
        log = wait_for(lambda: [*piped.state_dir.glob("jobs/*/0.log")], "the start")[0]
        wait_for(lambda: log.read_text() == "begun\n", "its output")
    process.terminate()
    # daemon(8) of FreeBSD reads it to its end before it ends itself.
    process.communicate(timeout=DEADLINE)
    assert piped.wait() == 0
    assert held(piped.state_dir) == [log]
