"""`sysadmctl check`: a monitoring plugin's statuses, its line and its figures."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysadmd.ctl.check import (
    CRITICAL,
    OK,
    UNKNOWN,
    WARNING,
    Limits,
    check_collectors,
    check_daemon,
    check_pool,
    check_pools,
    plugin_text,
    plugin_value,
    worst,
)
from tests.kit import Daemon, wait_for
from tests.kit.ctl import Ctl
from tests.kit.pools import StandIn, watching

_FINE: dict[str, Any] = {"health": "ONLINE", "capacity": "50%", "priority": "0/Information"}


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ctl, StandIn]]:
    """`sysadmctl` at a daemon with pools, of which one is bad."""
    directory = tmp_path_factory.mktemp("checked")
    stand_in = StandIn(directory)
    stand_in.put("ozfs-several-pools-one-bad", 1)
    ctl = Ctl(directory, "--state-dir", str(directory / "state"))
    with Daemon(directory / "state", watching(str(stand_in.command))):
        wait_for(lambda: "zroot" in ctl("state").stdout, "the first reading")
        yield ctl, stand_in


def seen(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """The status and the first line; nothing else may have been said."""
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()[0]


def test_pools_are_checked(pools: tuple[Ctl, StandIn]) -> None:
    ctl, _ = pools
    assert seen(ctl("check", "pool", "zroot")) == (
        OK,
        "POOL OK - zroot ONLINE 0 %|'zroot'=0%;;;0;100",
    )
    status, line = seen(ctl("check", "pool"))
    assert status == CRITICAL
    assert line.startswith("POOL CRITICAL - tank DEGRADED: /vdev/d2 is OFFLINE|'backup'=0%;;;0")
    assert seen(ctl("check", "pool", "nope"))[0] == CRITICAL
    limited = ctl("check", "pool", "zroot", "--warning", "90", "--critical", "95")
    assert seen(limited)[1].endswith("|'zroot'=0%;90;95;0;100")
    value = json.loads(ctl("check", "pool", "tank", "--json").stdout)
    assert (value["status"], value["state"]) == (CRITICAL, "CRITICAL")


def test_collectors_are_checked(pools: tuple[Ctl, StandIn]) -> None:
    ctl, stand_in = pools
    status, line = seen(ctl("check", "collector", "zpool"))
    assert status == OK
    assert re.fullmatch(
        r"COLLECTOR OK - zpool tells of no trouble\|'zpool_age'=[0-9.]+s;;;0", line
    )
    stand_in.put("ozfs-zpool-not-installed", 1)
    wait_for(lambda: ctl("check", "collector").returncode == CRITICAL, "the trouble")
    status, line = seen(ctl("check", "collector", "zpool"))
    assert status == CRITICAL
    assert line.startswith("COLLECTOR CRITICAL - zpool: ")
    assert seen(ctl("check", "collector", "hostname"))[0] == OK
    # What is known last may not be so any more.
    assert seen(ctl("check", "pool", "zroot"))[0] == UNKNOWN


def test_a_daemon_is_checked(shared: Daemon, ctl: Ctl) -> None:
    local = ctl("--state-dir", str(shared.state_dir), "check", "daemon")
    status, line = seen(local)
    assert status == OK
    figures = r"'time'=[0-9.]+s;;;0 'loop_lag'=[0-9.]+s;;;0 'stood_still'=[0-9.]+s;;;0"
    assert re.fullmatch(rf"DAEMON OK - sysadmd \S+ on .* is healthy\|{figures}", line)
    endpoint = json.loads((shared.state_dir / "endpoint.json").read_text())
    token = Path(endpoint["token_file"]).read_text().strip()
    remote = ("--url", endpoint["url"], "--cafile", endpoint["certificate"])
    assert seen(ctl(*remote, "--token", token, "check", "daemon"))[0] == OK
    # It is there, but what it is like nobody tells us.
    assert seen(ctl(*remote, "--token", "x", "check", "daemon"))[0] == UNKNOWN


def test_a_daemon_that_is_not_there_is_critical_and_its_pools_unknown(
    ctl: Ctl, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        # Bound, but nothing listens: refused.
        gone = ("--url", f"wss://127.0.0.1:{free.getsockname()[1]}", "--token", "x")
        status, line = seen(ctl(*gone, "check", "daemon"))
        assert status == CRITICAL
        assert line.startswith("DAEMON CRITICAL - wss://127.0.0.1:")
        assert seen(ctl(*gone, "check", "pool"))[0] == UNKNOWN
    absent = ("--state-dir", str(tmp_path))
    assert seen(ctl(*absent, "check", "daemon"))[0] == CRITICAL
    assert seen(ctl(*absent, "check", "collector"))[0] == UNKNOWN


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_can_not_be_told_is_unknown(shared: Daemon, ctl: Ctl, options: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        words = ("--state-dir", str(shared.state_dir), "check", "daemon", *options)
        assert ctl(*words, out=full).returncode == 3


def test_who_never_answers_is_unknown_in_time(ctl: Ctl) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"wss://127.0.0.1:{mute.getsockname()[1]}"
        options = ("--url", url, "--token", "x", "check", "daemon", "--timeout", "0.3")
        assert seen(ctl(*options)) == (
            UNKNOWN,
            "DAEMON UNKNOWN - no answer within 0.3 s",
        )


def test_a_stranger_is_unknown(play: Callable[..., Any], ctl: Ctl) -> None:
    options, _ = play(lambda to, args: [7])  # pyright: ignore[reportUnknownLambdaType]
    status, line = seen(ctl(*options, "check", "daemon"))
    assert status in (CRITICAL, UNKNOWN)
    assert line.startswith("DAEMON ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("pool", "--warning", "x"),
        ("pool", "--warning", "101"),
        ("pool", "--nope"),
        ("nope",),
        ("--nope", "pool"),
        ("daemon", "--timeout", "0"),
        ("collector", "nope|x"),
    ],
)
def test_wrong_usage_is_unknown(ctl: Ctl, arguments: tuple[str, ...]) -> None:
    status, line = seen(ctl("check", *arguments))
    assert status == UNKNOWN
    assert line.startswith("CHECK UNKNOWN - ")
    assert "|" not in line


@pytest.mark.parametrize(
    ("more", "limits", "status"),
    [
        ({}, Limits(), OK),
        ({"capacity": "91%", "priority": "6/Critical"}, Limits(), WARNING),
        ({"capacity": "91%", "priority": "6/Critical"}, Limits(warning=95), OK),
        ({}, Limits(warning=50), OK),
        ({}, Limits(warning=49), WARNING),
        ({}, Limits(critical=49), CRITICAL),
        ({"capacity": "91%", "priority": "6/Critical"}, Limits(critical=95), WARNING),
        ({"data_errors": 3, "priority": "6/Critical"}, Limits(), CRITICAL),
        ({"health": "DEGRADED", "priority": "9/Urgent"}, Limits(), CRITICAL),
        ({"vdevs": [{"name": "ada1", "state": "ONLINE", "cksum": "574"}]}, Limits(), WARNING),
    ],
)
def test_a_pool_is_as_bad_as_its_worst(
    more: dict[str, Any], limits: Limits, status: int
) -> None:
    assert check_pool("tank", {**_FINE, **more}, limits).status == status


def test_the_disk_is_named() -> None:
    vdev = {"name": "ada1", "state": "ONLINE", "read": "0", "write": "0", "cksum": "574"}
    found = check_pool("tank", {**_FINE, "vdevs": [vdev]}, Limits())
    assert plugin_text("pool", [found]) == (
        "POOL WARNING - tank ONLINE: ada1 has 574 checksum errors|'tank'=50%;;;0;100"
    )


def test_the_troubles_of_collectors_are_told_apart() -> None:
    state = {"error": "zpool: not found; gone; life_preserver: a: b"}
    zpool, log = check_collectors(state, "", ["zpool", "life_preserver"])
    assert zpool.text == "zpool: not found; gone"
    assert log.text == "life_preserver: a: b"
    assert check_collectors(state, "", ["hostname"])[0].status == OK
    assert check_collectors({"error": "hangs"}, "", ["zpool"])[0].text == "zpool: hangs"


def test_a_daemon_that_is_not_healthy_says_why() -> None:
    found = check_daemon({"version": "1", "hostname": "vm"}, (503, "a|b\nc\n"), "", 0.5)
    assert plugin_text("daemon", found) == (
        "DAEMON CRITICAL - sysadmd 1 on vm: a/b, c|'time'=0.500s;;;0\n"
        "CRITICAL: sysadmd 1 on vm: a/b\n"
        "CRITICAL: c"
    )


_JUNK = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
_STATE = st.fixed_dictionaries(
    {},
    optional={
        "error": _JUNK,
        "zpools": _JUNK
        | st.dictionaries(
            st.text(),
            st.dictionaries(st.sampled_from(("health", "capacity", "priority")), _JUNK),
        ),
    },
)


@given(_STATE, st.text(), st.text())
def test_whatever_a_server_says_is_one_state_and_one_bar_at_most(
    state: dict[str, Any], metrics: str, text: str
) -> None:
    for found in (
        check_pools(state, [], Limits()),
        check_collectors(state, metrics, []),
        check_daemon(state, (503, text), metrics, 0.1),
    ):
        assert worst(found) in (OK, WARNING, CRITICAL, UNKNOWN)
        first, *rest = plugin_text("pool", found).split("\n")
        assert first.count("|") <= 1
        assert all("|" not in line and line.isprintable() for line in rest)
        json.dumps(plugin_value("pool", found))
