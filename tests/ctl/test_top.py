"""`sysadmctl top` on a real terminal, against a real daemon."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import Daemon, wait_for
from tests.kit.ctl import Ctl
from tests.kit.tmux import Tmux


def local(daemon: Daemon) -> list[str]:
    return ["--state-dir", str(daemon.state_dir)]


def at(daemon: Daemon) -> Ctl:
    return Ctl(Path("/nonexistent"), *local(daemon))


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Tmux]:
    with Tmux(tmp_path, 80, 24) as running:
        yield running


def submit(daemon: Daemon, id: str, script: str, *, queue: str = "pkg_queue") -> None:
    words = ("--no-wait", "--id", id, "--queue", queue, "--", "sh", "-c", script)
    done = at(daemon)("run", *words, "+", "true")
    assert done.returncode == 0, done.stderr


def modes(terminal: Tmux, tmp_path: Path, name: str) -> str:
    """What the terminal's modes are, asked in its shell."""
    file = tmp_path / name
    terminal.types_line(f"stty -g > {name}.new; mv {name}.new {name}")
    wait_for(file.exists, "stty")
    return file.read_text()


def alternate(terminal: Tmux) -> bool:
    return terminal.run("display-message", "-p", "#{alternate_on}").strip() == "1"


def test_jobs_come_are_read_and_killed_and_the_terminal_is_given_back(
    daemon: Daemon, terminal: Tmux, tmp_path: Path
) -> None:
    before = modes(terminal, tmp_path, "before")
    terminal.starts_ctl(local(daemon), "top")
    terminal.sees("connected", "0 running, 0 waiting", "q quit")
    assert alternate(terminal)
    submit(daemon, "one", "for i in 1 2 3; do echo line $i; done; sleep 1000")
    submit(daemon, "two", "echo hi")
    terminal.sees("1 running, 1 waiting", "> running", "1/2", "one", "line 3", "pkg_queue sh")
    terminal.types("l")
    terminal.sees("running one", "1/2 sh -c", "line 1", "line 2", "line 3", "following")
    terminal.resizes(40, 12)
    terminal.sees("line 3", "following")
    terminal.types("Escape")
    terminal.sees("1 running, 1 waiting", "> running", "pending")
    terminal.types("x")
    terminal.sees("y/n: kill the job one?")
    terminal.types("n")
    terminal.sees("left as it is", "1 running, 1 waiting")
    terminal.types("x")
    terminal.sees("y/n: kill the job one?")
    terminal.types("y")
    terminal.sees("0 running, 0 waiting", "> killed", "succeeded")
    terminal.resizes(80, 24)
    terminal.types("q")
    terminal.sees("status 0.")
    assert not alternate(terminal)
    assert modes(terminal, tmp_path, "after") == before


def test_a_queue_is_paused_and_goes_on(daemon: Daemon, terminal: Tmux) -> None:
    submit(daemon, "one", "sleep 1000")
    submit(daemon, "two", "echo hi")
    terminal.starts_ctl(local(daemon), "top")
    terminal.sees("1 running, 1 waiting")
    terminal.types("Down", "p")
    terminal.sees("y/n: pause the queue pkg_queue?")
    terminal.types("y")
    terminal.sees("paused: pkg_queue", "pkg_queue (paused)")
    at(daemon)("kill", "one")
    terminal.sees("0 running, 1 waiting")
    terminal.types("p")
    terminal.sees("y/n: let it go on, the queue pkg_queue?")
    terminal.types("y")
    terminal.sees("> succeeded", "0 running, 0 waiting")


def test_it_goes_on_with_a_daemon_that_was_killed_and_started_again(
    daemon: Daemon, terminal: Tmux
) -> None:
    submit(daemon, "one", "sleep 1000")
    terminal.starts_ctl(local(daemon), "top")
    terminal.sees("1 running, 0 waiting")
    daemon.kill()
    terminal.sees("connecting again", "running")
    terminal.types("x", "y")
    terminal.sees("not done:")
    daemon.start()
    terminal.sees(" connected", "1 running, 0 waiting")
    submit(daemon, "two", "sleep 1000", queue="no_queue")
    terminal.sees("2 running, 0 waiting")


@pytest.mark.parametrize(("key", "status"), [("C-c", 130), ("C-\\", 131)])
def test_a_signal_of_the_terminal_ends_it_and_gives_that_back(
    shared: Daemon, terminal: Tmux, tmp_path: Path, key: str, status: int
) -> None:
    before = modes(terminal, tmp_path, "before")
    terminal.starts_ctl(local(shared), "top")
    terminal.sees("connected", "q quit")
    terminal.types(key)
    terminal.sees(f"status {status}.")
    assert not alternate(terminal)
    assert modes(terminal, tmp_path, "after") == before


def viewer(terminal: Tmux) -> int:
    """The pid of `sysadmctl` in the terminal's shell."""
    shell = terminal.run("display-message", "-p", "#{pane_pid}").strip()
    found = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    pairs = [line.split() for line in found.splitlines()]
    (pid,) = [pid for pid, parent in pairs if parent == shell]
    return int(pid)


def test_a_sigterm_ends_it_and_it_is_stopped_and_continued(
    shared: Daemon, terminal: Tmux, tmp_path: Path
) -> None:
    before = modes(terminal, tmp_path, "before")
    terminal.starts_ctl(local(shared), "top")
    terminal.sees("connected", "q quit")
    pid = viewer(terminal)
    for time in ("first", "second"):
        terminal.types("C-z")
        wait_for(lambda: not alternate(terminal), "the terminal given back")
        assert modes(terminal, tmp_path, time) == before
        terminal.types_line("fg")
        terminal.sees("connected", "q quit")
        assert alternate(terminal)
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not alternate(terminal), "the terminal given back")
    assert modes(terminal, tmp_path, "after") == before


def test_a_terminal_that_is_gone_ends_it(shared: Daemon, terminal: Tmux) -> None:
    terminal.starts_ctl(local(shared), "top")
    terminal.sees("connected", "q quit")
    pid = viewer(terminal)
    # The server of tmux holds the terminal's other end.
    terminal.run("new-window", "/bin/sh")
    terminal.run("kill-window", "-t", ":0")
    wait_for(lambda: not alive(pid), "its end")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_is_no_full_terminal_is_refused_with_words(shared: Daemon, tmp_path: Path) -> None:
    done = at(shared)("top")
    assert done.returncode == 2
    for word in ("terminal", "sysadmctl jobs", "sysadmctl state", "sysadmctl tail"):
        assert word in done.stderr
    done = at(shared)("top", "--json")
    assert (done.returncode, "--json" in done.stderr) == (2, True)
    with Tmux(tmp_path, 200, 24) as terminal:
        terminal.types_line("export TERM=dumb")
        terminal.starts_ctl(local(shared), "top")
        terminal.sees("TERM=dumb", "sysadmctl tail", "status 2.")


def test_what_can_not_be_reached_is_said_on_the_plain_terminal(tmp_path: Path) -> None:
    with Tmux(tmp_path, 200, 24) as terminal:
        terminal.starts_ctl(["--state-dir", str(tmp_path)], "top")
        terminal.sees("no daemon runs with", "status 69.")
        assert not alternate(terminal)


def test_without_colours_there_are_none(shared: Daemon, terminal: Tmux) -> None:
    terminal.types_line("export NO_COLOR=1")
    terminal.starts_ctl(local(shared), "top")
    terminal.sees("connected", "q quit")
    assert "\x1b[32m" not in terminal.run("capture-pane", "-p", "-e")
    terminal.types("q")
    terminal.sees("status 0.")
    terminal.types_line("unset NO_COLOR; clear")
    terminal.starts_ctl(local(shared), "top")
    terminal.sees("connected", "q quit")
    assert "\x1b[32m" in terminal.run("capture-pane", "-p", "-e")
