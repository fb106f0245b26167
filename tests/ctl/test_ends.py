"""How `sysadmctl` ends when it is interrupted, or when nobody reads it any more."""

import signal
from pathlib import Path

import pytest

from tests.kit import DEADLINE, Daemon, wait_for
from tests.kit.ctl import Ctl, lines

# Ctrl-C in the moment in which a module is looked for.
_PRESSED = """
import os, signal, sys
class Finder:
    @staticmethod
    def find_spec(name, path, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize("module", ["sysadmd.ctl.app", "click.types", "sysadmd.ctl.output"])
def test_ctrl_c_while_it_is_loaded_ends_it_without_a_word(ctl: Ctl, module: str) -> None:
    done = ctl("--help", before=_PRESSED.format(name=module))
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("module", ["sysadmd.ctl.tail", "websockets.asyncio.client", "ssl"])
def test_ctrl_c_while_a_command_is_loaded_is_130(shared: Daemon, ctl: Ctl, module: str) -> None:
    done = ctl(
        *("--state-dir", str(shared.state_dir), "tail"), before=_PRESSED.format(name=module)
    )
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


def test_ctrl_c_at_the_interpreters_end_says_nothing(ctl: Ctl) -> None:
    late = "import atexit, os, signal; atexit.register(os.kill, os.getpid(), signal.SIGINT); "
    done = ctl("--version", before=late)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_an_ignored_ctrl_c_stays_ignored(ctl: Ctl) -> None:
    ignored = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    done = ctl("--version", before=ignored + _PRESSED.format(name="click.types"))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_tail_ends_once_nobody_reads_it_though_nothing_happens(
    shared: Daemon, ctl: Ctl, options: list[str]
) -> None:
    def listeners() -> int:
        with shared.client() as client:
            listed = client.ask("rpc", "clients", {"action": "list"})["clients"]
        return sum(bool(one["systems"]) for one in listed)

    before = listeners()
    words = ["--state-dir", str(shared.state_dir), "tail", "life-preserver", *options]
    with ctl.started(*words) as tail:
        wait_for(lambda: listeners() > before, "the subscription")
        assert tail.stdout is not None
        assert tail.stderr is not None
        tail.stdout.close()
        assert tail.wait(timeout=DEADLINE) == 1
        assert tail.stderr.read() == ""


def test_run_ends_once_nobody_reads_it_and_the_job_goes_on(daemon: Daemon, ctl: Ctl) -> None:
    where = ("--state-dir", str(daemon.state_dir))
    with ctl.started(*where, "run", "--id", "quiet", "--", "sh", "-c", "echo; sleep 60") as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.readline() == "\n"
        run.stdout.close()
        # The status that all trouble of its own has.
        assert run.wait(timeout=DEADLINE) == 125
        assert "the job quiet goes on" in run.stderr.read()
    (job,) = lines(ctl(*where, "show", "quiet", "--json"))
    assert job["state"] == "running"
    assert ctl(*where, "kill", "quiet").returncode == 0


def test_a_file_has_no_reader_that_could_go(shared: Daemon, ctl: Ctl, tmp_path: Path) -> None:
    with shared.client() as client, (tmp_path / "events").open("w+") as file:
        job = {"commands": ["sleep 1.2"]}
        client.ask("rpc", "dispatcher", {"action": "submit", "job": job})
        words = ["tail", "dispatcher", "--since", "oldest", "--count", "3"]
        done = ctl("--state-dir", str(shared.state_dir), *words, out=file)
        file.seek(0)
        assert (done.returncode, len(file.readlines()) >= 3) == (0, True), done.stderr
