"""rc.d/sysadmd_bridge: what it has in common with rc.d/sysadmd is tried on that."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Generator

import psutil
import pytest

from tests.kit.service import ON_FREEBSD, Service
from tests.kit.waiting import wait_for

GENERATIONS = ["its own"] if ON_FREEBSD else ["signals", "kqueue"]


@pytest.fixture(params=GENERATIONS)
def service(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Generator[Service]:
    """The bridge's service, which does not run. Paths of sockets are short."""
    made = Service(tmp_path_factory.mktemp("b"), request.param, "sysadmd_bridge")
    made.set_up()
    yield made
    made.end()


def said(service: Service, action: str, status: int) -> str:
    """What an action prints; its exit status is this."""
    done = service(action)
    assert done.returncode == status, done.stdout
    return done.stdout


def test_one_that_is_not_enabled_is_not_started(service: Service) -> None:
    del service.settings["sysadmd_bridge_enable"]
    assert "YES" in said(service, "start", 0)
    assert not service.running()


def test_it_is_started_as_an_account_and_stopped_as_a_whole(service: Service) -> None:
    # Of another one the directories above would have to be.
    service.settings["sysadmd_bridge_user"] = pwd.getpwuid(os.geteuid()).pw_name
    service.settings["sysadmd_bridge_flags"] = "--log-format json"
    service.start()
    assert service.is_whole()
    assert "already running" in said(service, "start", 1)
    assert f"pid {service.pid('daemon(8)')}" in said(service, "status", 0)
    found = service.state_dir.stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (os.geteuid(), 0o700)
    assert psutil.Process(service.pid("sysadmd")).environ()["LANG"] == "C.UTF-8"
    wait_for(lambda: '{"time": ' in service.log.read_text(), "a log in JSON")
    service.stop()
    assert "not running" in said(service, "stop", 1)
    assert "not running" in said(service, "reload", 1)


def test_reload_and_restart_go_by_what_is_right(service: Service) -> None:
    service.start()
    before = service.running()
    said(service, "reload", 0)
    wait_for(lambda: "configuration reloaded" in service.log.read_text(), "the reload")
    right = service.config.read_text()
    service.config.write_text("[bridge]\nlissten = 1\n")
    assert "bridge.lissten" in said(service, "configtest", 1)
    assert "bridge.lissten" in said(service, "restart", 1)
    assert service.running() == before
    service.config.write_text(right)
    child = service.pid("sysadmd")
    said(service, "restart", 0)
    service.wait_until_ready(but=child)
    assert len(service.running()) == 2
    service.stop()
    service.config.write_text("[bridge]\nlissten = 1\n")
    assert "bridge.lissten" in said(service, "start", 1)
    assert not service.running()


def test_one_that_was_killed_comes_again_and_one_without_supervisor_is_replaced(
    service: Service,
) -> None:
    service.start()
    supervisor, child = service.pid("daemon(8)"), service.kill("sysadmd")
    service.wait_until_ready(but=child)
    assert service.pid("daemon(8)") == supervisor
    service.kill("daemon(8)")
    child = service.pid("sysadmd")
    assert f"pid {child}" in said(service, "start", 0)
    service.wait_until_ready(but=child)
    assert sorted((service.pid("daemon(8)"), service.pid("sysadmd"))) == service.running()


def test_paths_may_have_blanks(service: Service) -> None:
    service.state_dir = service.state_dir.with_name("its state")
    service.settings["sysadmd_bridge_state_dir"] = str(service.state_dir)
    named = service.config.with_name("my settings.toml")
    service.config.rename(named)
    service.settings["sysadmd_bridge_config"] = str(named)
    service.start()
    assert (service.state_dir / "endpoint.json").exists()
