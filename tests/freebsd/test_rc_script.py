"""rc.d/sysadmd in all situations of a service: see tests/kit/service."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dispatcher import keepers
from tests.kit.daemon import ROOT
from tests.kit.needs import needs, needs_freebsd
from tests.kit.service import ON_FREEBSD, SCRIPTS, Service
from tests.kit.waiting import wait_for

GENERATIONS = ["its own"] if ON_FREEBSD else ["signals", "kqueue"]


@pytest.fixture(params=GENERATIONS, scope="module")
def installed(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Generator[Service]:
    """The service, for one test after the other. Paths of sockets are short."""
    made = Service(tmp_path_factory.mktemp("s"), request.param)
    yield made
    made.end()


@pytest.fixture
def service(installed: Service) -> Service:
    """The service, which does not run."""
    installed.end()
    installed.set_up()
    return installed


@pytest.fixture
def running(installed: Service) -> Service:
    """The service, which is ready: as the test before has left it, if that is whole."""
    if not installed.is_whole():
        installed.end()
    installed.set_up()
    if not installed.running():
        installed.start()
    return installed


def submit(service: Service, *command: str, ready: Path | None = None) -> str:
    """A job of this command; it has begun when it has made the file."""
    with service.client() as client:
        job = client.ask(
            "rpc", "dispatcher", {"action": "submit", "job": {"commands": [list(command)]}}
        )["job"]["id"]
    if ready is not None:
        wait_for(ready.exists, f"{command} to begin")
    return str(job)


def show(service: Service, job: str) -> dict[str, Any]:
    """What is known of a job."""
    with service.client() as client:
        found: dict[str, Any] = client.ask(
            "rpc", "dispatcher", {"action": "show", "job_id": job}
        )["job"]
        return found


def end_of(service: Service, job: str) -> dict[str, Any]:
    """A job that has finished."""
    wait_for(lambda: show(service, job)["state"] == "finished", f"the end of {job}")
    return show(service, job)


def said(service: Service, action: str, status: int) -> str:
    """What an action prints; its exit status is this."""
    done = service(action)
    assert done.returncode == status, done.stdout
    return done.stdout


def long_job(service: Service, directory: Path) -> tuple[str, Path]:
    """A job that runs until a file is there: its id, and the file."""
    begun, go_on = directory / "begun", directory / "go on"
    text = (
        f"echo before; : > '{begun}'; while [ ! -e '{go_on}' ]; do sleep 0.2; done; echo after"
    )
    return submit(service, "/bin/sh", "-c", f"{text}; exit 7", ready=begun), go_on


def test_one_that_is_not_enabled_is_not_started(service: Service) -> None:
    del service.settings["sysadmd_enable"]
    assert "YES" in said(service, "start", 0)
    assert not service.running()
    said(service, "onestart", 0)
    service.wait_until_ready()
    said(service, "onestop", 0)
    assert not service.running()


def test_it_is_started_once_and_stopped_as_a_whole(service: Service) -> None:
    assert "not running" in said(service, "status", 1)
    service.start()
    supervisor = service.pid("daemon(8)")
    assert sorted((supervisor, service.pid("sysadmd"))) == service.running()
    assert f"pid {supervisor}" in said(service, "status", 0)
    assert "already running" in said(service, "start", 1)
    assert "Stopping" in said(service, "stop", 0)
    assert not service.running()
    assert "not running" in said(service, "stop", 1)
    said(service, "faststop", 0)


def test_a_start_that_looks_for_none_ends_none(running: Service) -> None:
    """At boot rc(8) says faststart, which does not ask whether it runs."""
    before = running.running()
    assert "Stopping" not in running("faststart").stdout
    assert running.running() == before


def test_a_job_survives_a_restart(running: Service, tmp_path: Path) -> None:
    job, go_on = long_job(running, tmp_path)
    before = running.pid("sysadmd")
    said(running, "restart", 0)
    running.wait_until_ready(but=before)
    assert len(running.running()) == 2
    assert show(running, job)["state"] == "running"
    go_on.touch()
    assert end_of(running, job)["commands"][0]["return_code"] == "7"
    with running.client() as client:
        args = {"action": "log", "job_id": job, "command": 0}
        assert client.ask("rpc", "dispatcher", args)["text"] == "before\nafter\n"


def test_a_job_holds_up_no_stop(running: Service, tmp_path: Path) -> None:
    """daemon(8) reads what its child says to the end: no job may hold that pipe."""
    job, go_on = long_job(running, tmp_path)
    running.stop()
    go_on.touch()
    running.start()
    assert end_of(running, job)["result"] == "failed"


def test_the_daemon_finds_the_programs_of_ports(running: Service) -> None:
    environment = psutil.Process(running.pid("sysadmd")).environ()
    assert environment["PATH"].endswith(":/usr/local/sbin:/usr/local/bin")
    assert environment["LANG"] == "C.UTF-8"


def test_a_reload_is_the_daemons(running: Service) -> None:
    before = running.running()
    running.config.write_text(running.config.read_text() + "[retention]\njobs = 77\n")
    said(running, "reload", 0)
    wait_for(lambda: "configuration reloaded" in running.log.read_text(), "the reload")
    assert running.running() == before


def test_a_reload_of_nothing_says_so(service: Service) -> None:
    assert "not running" in said(service, "reload", 1)


def test_what_is_wrong_in_the_configuration_stops_nothing_that_runs(running: Service) -> None:
    before = running.running()
    running.config.write_text("[server]\nlissten = 1\n")
    assert "server.lissten" in said(running, "configtest", 1)
    assert "server.lissten" in said(running, "restart", 1)
    said(running, "reload", 0)
    wait_for(lambda: "lissten" in running.log.read_text(), "the refusal")
    assert running.running() == before


def test_what_the_machine_lacks_is_told_and_keeps_no_service_from_starting(
    service: Service,
) -> None:
    # Accounts may be in a directory that comes up later.
    service.config.write_text('[auth]\nfull = ["no-such-account"]\n')
    assert "auth.full[0]: this machine has no account" in said(service, "configtest", 1)
    said(service, "start", 0)
    assert service.running()


def test_with_a_wrong_configuration_nothing_is_started(service: Service) -> None:
    assert "ok" in said(service, "configtest", 0)
    service.config.write_text("[server]\nlissten = 1\n")
    assert "server.lissten: " in said(service, "start", 1)
    assert not service.running()


def test_a_daemon_that_was_killed_is_started_again(running: Service, tmp_path: Path) -> None:
    job, go_on = long_job(running, tmp_path)
    supervisor, child = running.pid("daemon(8)"), running.kill("sysadmd")
    running.wait_until_ready(but=child)
    assert running.pid("daemon(8)") == supervisor
    go_on.touch()
    assert end_of(running, job)["commands"][0]["return_code"] == "7"


def test_it_is_stopped_while_it_is_to_be_started_again(running: Service) -> None:
    running.kill("sysadmd")
    running.stop()


def test_without_its_supervisor_it_is_still_the_service(running: Service) -> None:
    running.kill("daemon(8)")
    child = running.pid("sysadmd")
    assert f"pid {child}" in said(running, "status", 0)
    said(running, "reload", 0)
    wait_for(lambda: running.running() == [child], "daemon(8) to be gone")
    running.stop()


def test_a_start_replaces_one_without_its_supervisor(running: Service) -> None:
    running.kill("daemon(8)")
    child = running.pid("sysadmd")
    assert f"pid {child}" in said(running, "start", 0)
    running.wait_until_ready(but=child)
    assert sorted((running.pid("daemon(8)"), running.pid("sysadmd"))) == running.running()


def test_a_restart_without_its_supervisor_leaves_one(running: Service) -> None:
    running.kill("daemon(8)")
    child = running.pid("sysadmd")
    said(running, "restart", 0)
    running.wait_until_ready(but=child)
    assert len(running.running()) == 2


def test_stopping_the_daemon_with_its_jobs_stops_the_service(
    running: Service, tmp_path: Path
) -> None:
    """It would be started again if its supervisor were not told."""
    needs_freebsd("daemon(8), known by its name,")
    long_job(running, tmp_path)
    program, state = running.settings["sysadmd_bin"], str(running.state_dir)
    subprocess.run([program, "stop", "--jobs", "--state-dir", state], check=True)
    assert not running.running()
    assert not keepers.living(running.state_dir / "keeper")


def test_pid_files_of_the_dead_are_nothing(service: Service) -> None:
    service.start()
    service.kill("daemon(8)")
    service.kill("sysadmd")
    assert "not running" in said(service, "status", 1)
    service.start()


def test_a_pid_that_another_has_now_is_left_alone(service: Service) -> None:
    """Even another program that the same Python runs."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as another:
        service.write_pid("sysadmd", another.pid)
        assert "not running" in said(service, "status", 1)
        service.start()
        service.stop()
        assert another.poll() is None
        assert another.stdin is not None
        another.stdin.close()


def test_without_the_program_it_says_so(service: Service) -> None:
    service.settings["sysadmd_bin"] = "/nonexistent/bin/sysadmd"
    assert "/nonexistent/bin/sysadmd is not readable" in said(service, "start", 1)


def test_flags_are_those_of_the_daemon(service: Service) -> None:
    service.settings["sysadmd_flags"] = "--log-format json"
    service.start()
    wait_for(lambda: '{"time": ' in service.log.read_text(), "a log in JSON")


def test_paths_may_have_blanks(service: Service) -> None:
    named = service.config.with_name("my settings.toml")
    named.write_text(service.config.read_text())
    service.config.unlink()
    service.settings["sysadmd_config"] = str(named)
    service.start()


def rotate(service: Service) -> Path:
    """Have the log rotated as the sample for newsyslog(8) says; returns the old one."""
    old = service.log.with_name(f"{service.log.name}.0")
    if ON_FREEBSD:
        sample = (ROOT / "packaging" / "newsyslog" / "sysadmd.conf.sample").read_text()
        assert "/var/log/sysadmd.log" in sample
        config = service.log.with_name("newsyslog.conf")
        config.write_text(sample.replace("/var/log/sysadmd.log", str(service.log)))
        subprocess.run(["newsyslog", "-F", "-f", config], check=True)
    else:
        service.log.rename(old)
        os.kill(service.pid("daemon(8)"), signal.SIGHUP)
    wait_for(service.log.exists, "the new log")
    return old


def test_the_log_is_opened_anew_when_it_was_rotated(running: Service) -> None:
    old = rotate(running)
    said(running, "reload", 0)
    wait_for(lambda: "configuration reloaded" in running.log.read_text(), "what is logged next")
    assert "configuration reloaded" not in old.read_text()


@pytest.mark.parametrize(
    ("name", "desc"),
    [
        ("sysadmd", "System integration daemon"),
        ("sysadmd_bridge", "Bridge between servers with sysadmd and their clients"),
    ],
)
def test_a_script_as_rclint_wants_it(name: str, desc: str) -> None:
    """The rules of rclint(1), which is in no package registry: freebsd ports, devel/rclint."""
    text = (SCRIPTS / name).read_text()
    lines = text.splitlines()
    assert lines[0] == "#!/bin/sh"
    # PROVIDE is the file's name, and that of the service.
    assert lines[2:5] == [f"# PROVIDE: {name}", "# REQUIRE: LOGIN", "# KEYWORD: shutdown"]
    code = [line for line in lines if line and not line.startswith("#")]
    assert code[:5] == [
        ". /etc/rc.subr",
        f"name={name}",
        f"rcvar={name}_enable",
        f'desc="{desc}"',
        "load_rc_config $name",
    ]
    assert code[-1] == "run_rc_command $1"
    # After that come defaults; := where blank makes no sense, = where it does.
    assert code[5] == f": ${{{name}_enable:=NO}}"
    for line in code:
        assert not re.match(r" +\S", line), f"indented by blanks: {line!r}"
        assert line == line.rstrip(), f"blanks at the end: {line!r}"
        if line.endswith("()"):
            assert code[code.index(line) + 1] == "{"
    documented = set(re.findall(r"^# (sysadmd_\w+) \(", text, re.M))
    assert documented == set(re.findall(r"^: \$\{(sysadmd_\w+):?=", text, re.M))


@pytest.mark.parametrize("name", ["sysadmd", "sysadmd_bridge"])
def test_shells_find_nothing_wrong_in_it(name: str) -> None:
    subprocess.run(["/bin/sh", "-n", SCRIPTS / name], check=True)
    needs("shellcheck")
    # What rc.subr(8) reads is set and not used, what it evals later is quoted for that.
    but = "SC1091,SC2016,SC2034,SC2086,SC2223"
    done = subprocess.run(
        ["shellcheck", "-s", "dash", "-e", but, SCRIPTS / name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
