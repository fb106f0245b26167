"""`sysadmctl` as a program, against a real daemon."""

import itertools
import json
import re
import signal
from pathlib import Path

import pytest

from sysadmd.ctl.app import cli
from tests.kit import DEADLINE, Daemon, wait_for
from tests.kit.ctl import Ctl, lines


def at(daemon: Daemon) -> Ctl:
    """`sysadmctl` as root has it on the daemon's own machine."""
    return Ctl(Path("/nonexistent"), "--state-dir", str(daemon.state_dir))


@pytest.mark.parametrize(
    ("words", "status", "output"),
    [
        (["--", "echo", "a b", "+", "echo", "c"], 0, "a b\nc\n"),
        (
            ["--", "sh", "-c", "echo out; echo err >&2; exit 7", "+", "echo", "x"],
            7,
            "out\nerr\n",
        ),
        (["--", "sh", "-c", "kill -9 $$"], 137, ""),
        (["--", "sh", "-c", "kill -15 $$"], 143, ""),
        (["--timeout", "0.5", "--", "sleep", "60"], 124, ""),
        (["--", "/no/such/program"], 127, None),
    ],
)
def test_run_shows_the_output_and_exits_with_the_jobs_status(
    shared: Daemon, words: list[str], status: int, output: str | None
) -> None:
    done = at(shared)("run", *words)
    assert done.returncode == status, done.stderr
    if output is not None:
        assert done.stdout == output


def test_run_rides_through_a_daemon_that_is_killed_and_started_again(daemon: Daemon) -> None:
    script = "for i in 1 2 3 4 5 6; do echo line $i; sleep 0.3; done; exit 3"
    with at(daemon).started("run", "--", "sh", "-c", script) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "line 1\n"
        daemon.kill()
        daemon.start()
        output, errors = run.communicate(timeout=DEADLINE)
    assert run.returncode == 3
    assert output == "".join(f"line {n}\n" for n in range(2, 7))
    assert "connected again" in errors


def test_a_job_that_kills_the_daemon_succeeds_with_its_whole_log(daemon: Daemon) -> None:
    script = f"echo before; kill -9 {daemon.pid}; sleep 2; echo after"
    with at(daemon).started("run", "--", "sh", "-c", script) as run:
        daemon.wait()
        daemon.start()
        output, _ = run.communicate(timeout=DEADLINE)
    assert (run.returncode, output) == (0, "before\nafter\n")


def test_ctrl_c_leaves_the_job_running_and_says_how_to_go_on(daemon: Daemon) -> None:
    with at(daemon).started(
        "run", "--id", "long", "--", "sh", "-c", "echo on; sleep 60"
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "on\n"
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=DEADLINE)
    assert run.returncode == 130
    assert "log -f" in errors
    assert "kill" in errors
    assert [job["state"] for job in lines(at(daemon)("jobs", "--json"))] == ["running"]
    assert at(daemon)("kill", "long").returncode == 0
    wait_for(lambda: not lines(at(daemon)("jobs", "--json")), "the end of the job")
    assert at(daemon)("kill", "long").returncode == 1
    (job,) = lines(at(daemon)("show", "long", "--json"))
    assert job["result"] == "killed"


def test_a_killed_job_gives_137_to_who_waits(daemon: Daemon) -> None:
    with at(daemon).started(
        "run", "--id", "victim", "--", "sh", "-c", "echo on; sleep 60"
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        at(daemon)("kill", "victim")
        run.communicate(timeout=DEADLINE)
    assert run.returncode == 137


def test_tail_loses_and_doubles_nothing_over_a_kill(daemon: Daemon) -> None:
    with at(daemon).started(
        "tail", "dispatcher", "--since", "oldest", "--json", "--count", "18"
    ) as tail:
        for round in range(3):
            assert at(daemon)("run", "--id", f"job {round}", "--", "true").returncode == 0
        daemon.kill()
        daemon.start()
        for round in range(3, 6):
            assert at(daemon)("run", "--id", f"job {round}", "--", "true").returncode == 0
        output, errors = tail.communicate(timeout=DEADLINE)
    assert tail.returncode == 0
    frames = [json.loads(line) for line in output.splitlines()]
    told = [(f["args"]["process_id"], f["args"]["state"]) for f in frames]
    states = ("pending", "running", "finished")
    assert told == [(f"job {n}", state) for n in range(6) for state in states]
    for before, after in itertools.pairwise(frames):
        assert after["prev"] == before["cursor"]
    assert "connecting again" in errors
    assert "connected again" in errors


def test_jobs_queues_logs_and_state_are_shown(daemon: Daemon) -> None:
    assert at(daemon)("queue", "pause", "pkg_queue").returncode == 0
    at(daemon)("run", "--no-wait", "--queue", "pkg_queue", "--id", "w", "--", "echo", "hi")
    table = at(daemon)("jobs", "--queue", "pkg_queue").stdout
    assert "pending" in table
    assert "w" in table
    assert at(daemon)("queue", "resume", "pkg_queue").returncode == 0
    assert at(daemon)("log", "w", "--follow").stdout == "hi\n"
    assert at(daemon)("log", "w", "--command", "0").stdout == "hi\n"
    assert at(daemon)("log", "w", "--command", "9").returncode == 1
    assert "succeeded" in at(daemon)("jobs", "--all").stdout
    assert "succeeded" in at(daemon)("show", "w").stdout
    assert "host" in at(daemon)("state").stdout
    assert "submit w" in at(daemon)("audit").stdout
    assert lines(at(daemon)("identify", "--json"))[0]["type"] == "server"


def test_exit_statuses_tell_what_kind_of_failure_it_was(daemon: Daemon, tmp_path: Path) -> None:
    assert at(daemon)("show", "nobody").returncode == 1
    assert at(daemon)("queue", "pause", "nowhere").returncode == 1
    assert at(daemon)("run", "--queue", "nowhere", "--", "true").returncode == 125
    assert at(daemon)("jobs", "--url", "http://x").returncode == 2
    assert at(daemon)("frobnicate").returncode == 2
    assert at(daemon)("run", "--", "true", "+").returncode == 2
    wrong = at(daemon)("jobs", "--token", "wrong")
    assert wrong.returncode == 77
    url = daemon.url
    daemon.stop()
    nobody = at(daemon)("jobs")
    assert nobody.returncode == 69
    gone = at(daemon)("jobs", "--url", url, "--token", "x")
    assert gone.returncode == 69
    for done in (wrong, nobody, gone):
        assert done.stderr.startswith("sysadmctl: ")
        assert "Traceback" not in done.stderr


def test_control_characters_reach_no_terminal(daemon: Daemon) -> None:
    words = ["run", "--", "printf", r"red \033[31m\007\n"]
    shown = at(daemon).on_terminal(*words, NO_COLOR="1")
    assert "\x1b" not in shown
    assert shown == "red \\x07\r\n"
    assert at(daemon).on_terminal(*words) == "red \x1b[31m\\x07\x1b[0m\r\n"
    assert at(daemon)(*words).stdout == "red \x1b[31m\x07\n"


def test_a_pinned_server_with_another_key_is_not_spoken_to(
    daemon: Daemon, ctl: Ctl, tmp_path: Path
) -> None:
    profile = tmp_path / "config" / "sysadmd"
    profile.mkdir(parents=True)
    for pin, status in (("not this key", 69), (None, 0)):
        if pin is None:
            (identity,) = lines(at(daemon)("identify", "--json"))
            pin = str(identity["pin"])
        kept = {"url": daemon.url, "token": daemon.token, "pin": pin, "name": "me"}
        (profile / "profile.json").write_text(json.dumps(kept))
        done = ctl("jobs", "--json", XDG_CONFIG_HOME=str(tmp_path / "config"))
        assert done.returncode == status, done.stderr


@pytest.mark.parametrize("columns", [40, 80])
def test_help_fits_the_terminal_and_names_all_of_a_command_once(ctl: Ctl, columns: int) -> None:
    shown = ctl("--help", COLUMNS=str(columns)).stdout
    for name in cli.commands:
        assert len(re.findall(rf"^  {name}  ", shown, re.MULTILINE)) == 1, name
    assert "..." not in shown.partition("Options:")[2]
    assert "SYSADMCTL_PROFILE" in shown
    for words in ((), ("run",), ("queue", "pause"), ("check", "pool")):
        shown = ctl(*words, "--help", COLUMNS=str(columns)).stdout
        assert max(map(len, shown.splitlines())) <= columns, words
        assert ctl("help", *words, COLUMNS=str(columns)).stdout == shown
        # What says which server it is is told at length in one place.
        assert ("SYSADMCTL_PROFILE" in shown) == (words == ())
    assert ctl("queue", "help", "list").stdout == ctl("queue", "list", "-h").stdout
    unknown = ctl("help", "jbs")
    assert (unknown.returncode, "Did you mean" in unknown.stderr) == (2, True)
