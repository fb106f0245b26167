"""`sysadmctl` as a program, against a real daemon."""

import contextlib
import itertools
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from tests.daemon import ROOT, Daemon, ended, wait_for

MAIN = "from sysadmd.ctl import main; main()"


def command(daemon: Daemon, *arguments: str) -> list[str]:
    return [sys.executable, "-c", MAIN, "--state-dir", str(daemon.state_dir), *arguments]


def environment(tmp: Path | None = None, **more: str) -> dict[str, str]:
    home = {"XDG_CONFIG_HOME": str(tmp)} if tmp else {"XDG_CONFIG_HOME": "/nonexistent"}
    return {**os.environ, "PYTHONPATH": str(ROOT), **home, **more}


def ctl(daemon: Daemon, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(daemon, *arguments),
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(),
        cwd="/",
    )


def start(
    daemon: Daemon, *arguments: str, stderr: int | IO[str] = subprocess.PIPE
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(daemon, *arguments),
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=environment(),
        cwd="/",
    )
    return ended(process)


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


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
    done = ctl(shared, "run", *words)
    assert done.returncode == status, done.stderr
    if output is not None:
        assert done.stdout == output


def test_run_rides_through_a_daemon_that_is_killed_and_started_again(daemon: Daemon) -> None:
    script = "for i in 1 2 3 4 5 6; do echo line $i; sleep 0.3; done; exit 3"
    with start(daemon, "run", "--", "sh", "-c", script) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "line 1\n"
        daemon.kill()
        daemon.start()
        output, errors = run.communicate(timeout=60)
    assert run.returncode == 3
    assert output == "".join(f"line {n}\n" for n in range(2, 7))
    assert "connected again" in errors


def test_a_job_that_kills_the_daemon_succeeds_with_its_whole_log(daemon: Daemon) -> None:
    script = f"echo before; kill -9 {daemon.pid}; sleep 2; echo after"
    with start(daemon, "run", "--", "sh", "-c", script) as run:
        assert daemon.process is not None
        daemon.process.wait(30)
        daemon.kill()
        daemon.start()
        output, _ = run.communicate(timeout=60)
    assert (run.returncode, output) == (0, "before\nafter\n")


def test_ctrl_c_leaves_the_job_running_and_says_how_to_go_on(daemon: Daemon) -> None:
    with start(daemon, "run", "--id", "long", "--", "sh", "-c", "echo on; sleep 60") as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "on\n"
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=20)
    assert run.returncode == 130
    assert "log --follow" in errors
    assert "kill" in errors
    assert [job["state"] for job in lines(ctl(daemon, "jobs", "--json"))] == ["running"]
    assert ctl(daemon, "kill", "long").returncode == 0
    wait_for(lambda: not lines(ctl(daemon, "jobs", "--json")), "the end of the job")
    assert ctl(daemon, "kill", "long").returncode == 1
    (job,) = lines(ctl(daemon, "show", "long", "--json"))
    assert job["result"] == "killed"


def test_a_killed_job_gives_137_to_who_waits(daemon: Daemon) -> None:
    with start(daemon, "run", "--id", "victim", "--", "sh", "-c", "echo on; sleep 60") as run:
        assert run.stdout is not None
        run.stdout.readline()
        ctl(daemon, "kill", "victim")
        run.communicate(timeout=30)
    assert run.returncode == 137


def test_tail_loses_and_doubles_nothing_over_a_kill(daemon: Daemon) -> None:
    with start(
        daemon, "tail", "dispatcher", "--since", "oldest", "--json", "--count", "18"
    ) as tail:
        for round in range(3):
            assert ctl(daemon, "run", "--id", f"job {round}", "--", "true").returncode == 0
        daemon.kill()
        daemon.start()
        for round in range(3, 6):
            assert ctl(daemon, "run", "--id", f"job {round}", "--", "true").returncode == 0
        output, errors = tail.communicate(timeout=60)
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
    assert ctl(daemon, "queue", "pause", "pkg_queue").returncode == 0
    ctl(daemon, "run", "--no-wait", "--queue", "pkg_queue", "--id", "w", "--", "echo", "hi")
    table = ctl(daemon, "jobs", "--queue", "pkg_queue").stdout
    assert "pending" in table
    assert "w" in table
    assert ctl(daemon, "queue", "resume", "pkg_queue").returncode == 0
    assert ctl(daemon, "log", "w", "--follow").stdout == "hi\n"
    assert ctl(daemon, "log", "w", "--command", "0").stdout == "hi\n"
    assert ctl(daemon, "log", "w", "--command", "9").returncode == 1
    assert "succeeded" in ctl(daemon, "jobs", "--all").stdout
    assert "succeeded" in ctl(daemon, "show", "w").stdout
    assert "host" in ctl(daemon, "state").stdout
    assert "submit w" in ctl(daemon, "audit").stdout
    assert lines(ctl(daemon, "identify", "--json"))[0]["type"] == "server"


def test_exit_statuses_tell_what_kind_of_failure_it_was(daemon: Daemon, tmp_path: Path) -> None:
    assert ctl(daemon, "show", "nobody").returncode == 1
    assert ctl(daemon, "queue", "pause", "nowhere").returncode == 1
    assert ctl(daemon, "run", "--queue", "nowhere", "--", "true").returncode == 125
    assert ctl(daemon, "jobs", "--url", "http://x").returncode == 2
    assert ctl(daemon, "frobnicate").returncode == 2
    assert ctl(daemon, "run", "--", "true", "+").returncode == 2
    wrong = ctl(daemon, "jobs", "--token", "wrong")
    assert wrong.returncode == 77
    url = daemon.url
    daemon.stop()
    nobody = ctl(daemon, "jobs")
    assert nobody.returncode == 69
    gone = ctl(daemon, "jobs", "--url", url, "--token", "x")
    assert gone.returncode == 69
    for done in (wrong, nobody, gone):
        assert done.stderr.startswith("sysadmctl: ")
        assert "Traceback" not in done.stderr


def test_control_characters_reach_no_terminal(daemon: Daemon) -> None:
    words = ["run", "--", "printf", r"red \033[31m\007\n"]
    leader, follower = pty.openpty()
    done = subprocess.run(
        command(daemon, *words), stdout=follower, timeout=30, check=True, env=environment()
    )
    os.close(follower)
    assert done.returncode == 0
    shown = os.read(leader, 4096).decode()
    os.close(leader)
    assert "\x1b" not in shown
    assert "\\x1b[31m" in shown
    assert ctl(daemon, *words).stdout == "red \x1b[31m\x07\n"


def test_a_pinned_server_with_another_key_is_not_spoken_to(
    daemon: Daemon, tmp_path: Path
) -> None:
    profile = tmp_path / "config" / "sysadmd"
    profile.mkdir(parents=True)
    for pin, status in (("not this key", 69), (None, 0)):
        if pin is None:
            (identity,) = lines(ctl(daemon, "identify", "--json"))
            pin = str(identity["pin"])
        kept = {"url": daemon.url, "token": daemon.token, "pin": pin, "name": "me"}
        (profile / "profile.json").write_text(json.dumps(kept))
        done = subprocess.run(
            [sys.executable, "-c", MAIN, "jobs", "--json"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env=environment(tmp_path / "config"),
        )
        assert done.returncode == status, done.stderr
