"""Our programs, started by somebody who leaves them things of his own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.kit import DEADLINE, QUIET, ROOT, Client, Daemon, needed, wait_for
from tests.kit.processes import clean, ended

CTL: Final = (sys.executable, "-c", "from sysadmd.ctl import main; main()")

# What a parent may have done before it became one of our programs; Python, by name.
ALL: Final = "ALL = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}"
BLOCKED: Final = "signal.pthread_sigmask(signal.SIG_SETMASK, ALL)"
LEFT: Final = {
    "no child's end is told": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "all is ignored": "[signal.signal(each, signal.SIG_IGN) for each in ALL]",
    "all is blocked": BLOCKED,
    "signals wait": f"{BLOCKED}; [os.kill(os.getpid(), each) for each in ("
    "signal.SIGUSR1, signal.SIGALRM, signal.SIGCHLD, signal.SIGPROF, signal.SIGQUIT)]",
    "everybody may write": "os.umask(0)",
    "nobody may anything": "os.umask(0o777)",
    # One of them above the limit.
    "descriptors": "[os.dup2(0, each) for each in (3, 9, 200)]; "
    "most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; "
    "resource.setrlimit(resource.RLIMIT_NOFILE, (150, most))",
    "clocks run": "signal.alarm(600); signal.setitimer(signal.ITIMER_VIRTUAL, 600); "
    "signal.setitimer(signal.ITIMER_PROF, 600)",
}
# How a job finds itself. Python itself ignores two signals.
FOUND: Final = """
import json, os, signal
def is_open(file):
    try:
        os.fstat(file)
    except OSError:
        return False
    return True
print(json.dumps({
    "umask": os.umask(0),
    "files": [file for file in range(256) if is_open(file)],
    "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "ignored": [
        each
        for each in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}
        if signal.getsignal(each) == signal.SIG_IGN
    ],
}))
raise SystemExit(3)
"""
CLEAN: Final = {"umask": 0o022, "files": [0, 1, 2], "blocked": [], "ignored": []}


def leaving(what: str) -> list[str]:
    """Before a command line: what its process inherits."""
    become = "os.execv(sys.argv[1], sys.argv[1:])"
    code = f"import os, resource, signal, sys; {ALL}; {what}; {become}"
    return [sys.executable, "-c", code]


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    """Where a daemon is to be; what it has started is ended."""
    yield tmp_path / "state"
    clean(tmp_path / "state")


def job(client: Client, id: str, *argv: str) -> dict[str, Any]:
    """The end of a job."""
    order = {"commands": [list(argv)], "id": id}
    client.ask("rpc", "dispatcher", {"action": "submit", "job": order})

    def look() -> dict[str, Any] | None:
        reply = client.ask("rpc", "dispatcher", {"action": "show", "job_id": id})
        return dict(reply["job"]) if reply["job"]["state"] == "finished" else None

    return wait_for(look, f"the end of job {id}", 20)


@pytest.mark.parametrize("what", [*LEFT.values(), "; ".join(LEFT.values())], ids=[*LEFT, "all"])
def test_a_daemon_works_whatever_it_was_left(what: str, state_dir: Path) -> None:
    daemon = Daemon(state_dir, QUIET, wrapper=leaving(what))
    with contextlib.ExitStack() as stack:
        # One that can't be told to stop is not left behind.
        stack.callback(daemon.kill)
        daemon.start()
        with daemon.client() as client:
            done = job(client, "look", sys.executable, "-S", "-c", FOUND)
            assert [each["return_code"] for each in done["commands"]] == ["3"]
            log = {"action": "log", "job_id": "look", "command": 0, "offset": 0}
            text = client.ask("rpc", "dispatcher", log)["text"]
            assert json.loads(text) == CLEAN
            # What Python ignores for itself is the command's again.
            done = job(client, "pipe", "sh", "-c", "kill -PIPE $$")
            assert [each["return_code"] for each in done["commands"]] == ["-13"]
        daemon.reload()
        for file in (state_dir, *state_dir.rglob("*")):
            mode = file.stat().st_mode
            if not stat.S_ISSOCK(mode):
                assert not mode & 0o077, file
        assert daemon.stop() == 0


def test_no_clock_of_who_started_it_runs_in_a_daemon(state_dir: Path) -> None:
    before = (
        "import pathlib, signal, server.service as s; run = s.run; s.run = lambda *given: ("
        f"pathlib.Path({str(state_dir)!r} + '.clocks').write_text(repr([signal.getitimer(each)"
        " for each in (0, 1, 2)])), run(*given))[1]"
    )
    wrapper = leaving(LEFT["clocks run"])
    with Daemon(state_dir, QUIET, wrapper=wrapper, before=before):
        clocks = state_dir.with_name("state.clocks").read_text()
    assert clocks == repr([(0.0, 0.0)] * 3)


@pytest.mark.parametrize("portable", ["0", "1"])
def test_a_daemon_holds_nothing_that_its_parent_had_open(
    portable: str, state_dir: Path
) -> None:
    reader, writer = os.pipe()
    try:
        with Daemon(state_dir, QUIET, env={"SYSADMD_PORTABLE": portable}).start(
            pass_fds=[writer]
        ):
            os.close(writer)
            os.set_blocking(reader, False)
            # The end: nobody holds it.
            assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_that_came_before_the_start_is_a_stop(
    number: signal.Signals, state_dir: Path
) -> None:
    what = f"{BLOCKED}; os.kill(os.getpid(), {int(number)})"
    command = Daemon(state_dir, QUIET, wrapper=leaving(what)).command()
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_what_a_daemon_opens_never_becomes_its_standard_streams(state_dir: Path) -> None:
    if not Path("/proc/self/fd").exists():
        needed("/proc, to see what is open")
    daemon = Daemon(state_dir, QUIET, wrapper=leaving("os.closerange(0, 3)"))
    with ended(subprocess.Popen(daemon.command(), text=True)) as process:
        endpoint = state_dir / "endpoint.json"
        wait_for(endpoint.exists, "the daemon")
        for file in range(3):
            assert str(Path(f"/proc/{process.pid}/fd/{file}").readlink()) == os.devnull
        daemon.url = json.loads(endpoint.read_text())["url"]
        with daemon.client() as client:
            done = job(client, "x", "sh", "-c", "exit 3")
            assert [each["return_code"] for each in done["commands"]] == ["3"]
        process.terminate()
        assert process.wait(20) == 0


def test_the_other_commands_work_whatever_they_were_left(tmp_path: Path) -> None:
    what = "; ".join(LEFT[each] for each in ("all is ignored", "all is blocked"))
    for more in ("os.umask(0)", "os.umask(0o777)"):
        state_dir = tmp_path / f"state {more[-2:]}"
        command = [sys.executable, str(ROOT / "sysadmd" / "__main__.py"), "token", "add", "x"]
        command += ["--role", "read", "--state-dir", str(state_dir)]
        for _ in range(2):
            done = subprocess.run(
                [*leaving(f"{what}; {more}"), *command],
                capture_output=True,
                timeout=DEADLINE,
                check=False,
            )
            command[4] = "y"
            assert done.returncode == 0, done.stderr
        for file in (state_dir, *state_dir.rglob("*")):
            assert not file.stat().st_mode & 0o077, file


@contextlib.contextmanager
def ctl(what: str, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """`sysadmctl`, away from the caller's terminal and home, killed at the end."""
    process = subprocess.Popen(
        [*leaving(what), *CTL, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": "/nonexistent"},
        cwd="/",
        start_new_session=True,
    )
    with ended(process):
        yield process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("what", [BLOCKED, "signal.signal(signal.SIGTERM, signal.SIG_IGN)"])
def test_a_client_can_be_ended_whatever_it_was_left(
    what: str, number: signal.Signals, daemon: Daemon
) -> None:
    place = ("--state-dir", str(daemon.state_dir))
    with ctl("pass", *place, "run", "--", "true") as first:
        assert first.wait(DEADLINE) == 0
    with ctl(what, *place, "tail", "--since", "oldest") as tail:
        assert tail.stdout is not None
        assert "pending" in tail.stdout.readline()
        tail.send_signal(number)
        _, errors = tail.communicate(timeout=DEADLINE)
    assert tail.returncode == (130 if number == signal.SIGINT else -signal.SIGTERM)
    assert "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_what_nohup_and_the_shell_let_a_client_ignore_stays_ignored(
    number: signal.Signals, daemon: Daemon, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    script = f"echo on; while [ ! -e '{go}' ]; do sleep 0.05; done; echo off; exit 4"
    run = ("run", "--", "sh", "-c", script)
    what = f"signal.signal({int(number)}, signal.SIG_IGN); {BLOCKED}"
    with ctl(what, "--state-dir", str(daemon.state_dir), *run) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "on\n"
        client.send_signal(number)
        go.touch()
        rest, errors = client.communicate(timeout=DEADLINE)
    assert (client.returncode, rest) == (4, "off\n")
    (closing,) = errors.splitlines()
    assert "exited with 4" in closing


@pytest.mark.parametrize(
    ("module", "status"),
    [
        ("server.cli", -signal.SIGINT),
        ("click.core", -signal.SIGINT),
        ("server.config_check", 130),
    ],
)
def test_ctrl_c_while_modules_are_loaded_is_no_traceback(
    module: str, status: int, tmp_path: Path
) -> None:
    """Before anything is done it ends the program; behind that, what is done."""
    config = tmp_path / "sysadmd.toml"
    config.touch()
    pressed = f"""
import os, signal, sys
class Finder:
    @staticmethod
    def find_spec(name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
sys.argv = ["sysadmd", "check-config", "--config", {str(config)!r}]
from sysadmd.__main__ import main; main()
"""
    done = subprocess.run(
        [sys.executable, "-c", pressed],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.strip()) == (status, "", "")


def test_the_clock_that_a_client_was_given_ends_it(daemon: Daemon) -> None:
    """`perl -e 'alarm 5; exec @ARGV' sysadmctl tail`, where there is no timeout(1)."""
    what = f"{BLOCKED}; signal.alarm(1)"
    with ctl(what, "--state-dir", str(daemon.state_dir), "tail") as tail:
        assert tail.wait(20) == -signal.SIGALRM


@pytest.mark.parametrize("closed", ["0", "1", "2", "0, 1", "0, 1, 2"])
def test_a_client_without_standard_streams_tells_the_jobs_status(
    closed: str, daemon: Daemon
) -> None:
    what = f"[os.close(each) for each in ({closed},)]"
    run = ("run", "--", "sh", "-c", "echo out; exit 3")
    with ctl(what, "--state-dir", str(daemon.state_dir), *run) as client:
        output, errors = client.communicate(timeout=DEADLINE)
    assert client.returncode == 3, errors
    assert output == ("" if "1" in closed else "out\n")
