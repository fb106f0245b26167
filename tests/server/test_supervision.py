"""Whether jobs end with the daemon, by what is known of who manages it."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.supervision import Unit, doom_of, unit_of
from tests.kit import QUIET, Daemon, wait_for

SERVICE = Unit("sysadmd.service", of_user=False)


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        ("0::/system.slice/sysadmd.service\n", SERVICE),
        ("0::/system.slice/sysadmd.service/inner\n", SERVICE),
        # Of the hybrid and the old layout systemd has a hierarchy of its own.
        ("2:pids:/x.service\n1:name=systemd:/system.slice/sysadmd.service\n0::/\n", SERVICE),
        ("2:pids:/\n1:name=systemd:/\n0::/system.slice/sysadmd.service\n", SERVICE),
        (
            "0::/user.slice/user-7.slice/user@7.service/app.slice/sysadmd.service\n",
            Unit("sysadmd.service", of_user=True),
        ),
        ("0::/user.slice/user-7.slice/user@7.service\n", Unit("user@7.service", of_user=False)),
        ("0::/user.slice/user-7.slice/session-3.scope\n", None),
        ("0::/user.slice/user-7.slice/user@7.service/app.slice/term.scope\n", None),
        ("0::/system.slice/docker-0123.scope\n", None),
        ("0::/\n", None),
        ("0::/openrc.sysadmd\n", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_the_unit_is_the_innermost_service(cgroups: str, unit: Unit | None) -> None:
    assert unit_of(cgroups) == unit


@pytest.mark.parametrize("mode", ["control-group", "mixed"])
def test_a_unit_that_kills_all_that_is_in_it_is_told_with_the_remedy(mode: str) -> None:
    doom = doom_of(100, SERVICE, f"KillMode={mode}\n")
    assert doom is not None
    assert doom.reason == f"systemd ends them with sysadmd.service (KillMode={mode})"
    assert "(systemctl edit sysadmd.service)" in doom.remedy
    users = doom_of(100, Unit("x.service", of_user=True), f"KillMode={mode}\n")
    assert users is not None
    assert "(systemctl --user edit x.service)" in users.remedy


@pytest.mark.parametrize("shown", ["KillMode=process\n", "KillMode=none\n", "", "Failed to"])
def test_what_leaves_jobs_alone_or_is_not_known_is_not_warned_of(shown: str) -> None:
    assert doom_of(100, SERVICE, shown) is None
    assert doom_of(100, None, "KillMode=control-group\n") is None


def test_with_process_1_of_a_container_all_in_there_ends() -> None:
    assert doom_of(1, None, "") is not None


def test_a_daemon_that_takes_its_jobs_with_it_says_so_at_once_and_at_the_end(
    tmp_path: Path,
) -> None:
    killing = (
        "from server import supervision; "
        "supervision._own_unit = lambda: supervision.Unit('x.service', of_user=False); "
        "supervision.ask = lambda *_: type('Said', (), {'output': 'KillMode=mixed'})"
    )
    before = f"import sysadmd.__main__; {killing}"
    with Daemon(tmp_path / "state", QUIET, before=before) as daemon:
        wait_for(lambda: "will not outlive this daemon" in daemon.log.read_text())
        daemon.stop()
    text = daemon.log.read_text()
    assert text.count("systemctl edit x.service") == 1
    assert "stopping: told to; running jobs end, too: systemd ends them" in text
    assert "go on" not in text


def test_one_whose_jobs_go_on_says_so_at_the_end(tmp_path: Path) -> None:
    outside = "from server import supervision; supervision._own_unit = lambda: None"
    before = f"import sysadmd.__main__; {outside}"
    with Daemon(tmp_path / "state", QUIET, before=before) as daemon:
        wait_for(lambda: "nothing is known that would end" in daemon.log.read_text())
        daemon.stop()
    assert "stopping: told to; running jobs go on and are adopted" in daemon.log.read_text()
