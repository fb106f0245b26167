"""What sysadm/pkg is asked for: who may, what gets to pkg, what its questions are answered."""

from __future__ import annotations

import asyncio
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.orders import Order
from server.job_classes.definition import Arguments, Asked
from server.job_classes.pkg import CLASS
from sysadmd.errors import BadRequest
from tests.kit import Daemon, wait_for
from tests.kit.pkg_class import Stage, anew, ask, ends, refused, running, staged
from tests.kit.replay import Tools

READING: Final = ("pkg_info", "pkg_search", "list_categories", "list_repos")
JOBS: Final = tuple(action for action in CLASS.actions if action not in READING)
NAMES: Final = ["curl", "www/nginx", "py311-foo_bar", "gtk+3", "a~b@c,1", "_x", "7zip-23.01"]
# Action, arguments, pkg's arguments, and whether the catalogues are brought up to date.
RUNS: Final[list[tuple[str, dict[str, Any], list[str], bool]]] = [
    ("pkg_install", {"pkg_origins": "curl"}, ["install", "-y", "curl"], True),
    ("pkg_install", {"pkg_origins": NAMES}, ["install", "-y", *NAMES], True),
    (
        "pkg_install",
        {"pkg_origins": ["curl"], "repo": "local"},
        ["install", "-y", "curl"],
        True,
    ),
    ("pkg_install", {"pkg_origins": ["curl"], "repo": ""}, ["install", "-y", "curl"], True),
    (
        "pkg_install",
        {"pkg_origins": ["curl"], "repo": "FreeBSD-ports"},
        ["install", "-y", "--repository", "FreeBSD-ports", "curl"],
        True,
    ),
    ("pkg_remove", {"pkg_origins": "curl"}, ["delete", "-y", "-R", "curl"], False),
    (
        "pkg_remove",
        {"pkg_origins": "curl", "recursive": "true"},
        ["delete", "-y", "-R", "curl"],
        False,
    ),
    (
        "pkg_remove",
        {"pkg_origins": "curl", "recursive": "false"},
        ["delete", "-y", "curl"],
        False,
    ),
    ("pkg_remove", {"pkg_origins": "a", "recursive": False}, ["delete", "-y", "a"], False),
    ("pkg_lock", {"pkg_origins": ["a", "b"]}, ["lock", "-y", "a", "b"], False),
    ("pkg_unlock", {"pkg_origins": ["a", "b"]}, ["unlock", "-y", "a", "b"], False),
    ("pkg_update", {}, ["update"], True),
    ("pkg_update", {"force": "false"}, ["update"], True),
    ("pkg_update", {"force": "true"}, ["update", "-f"], True),
    ("pkg_check_upgrade", {}, ["upgrade", "-n"], True),
    ("pkg_upgrade", {}, ["upgrade", "-y"], True),
    ("pkg_audit", {}, ["audit", "--raw=json-compact"], False),
    ("pkg_audit", {"fetch": "true"}, ["audit", "-F", "--raw=json-compact"], False),
    ("pkg_autoremove", {}, ["autoremove", "-y"], False),
]
BAD_NAMES: Final = [
    *("-y", "-", "--repository", "-/a", "a/-b", "/a", "/etc/passwd", "../a", "a/../b", "a/b/c"),
    *(".", "~root", "a b", " a", "a ", "a\t", "a\n", "a\nb", "a\r", "a\0", "\0", "\x1b[2J"),
    *("*", "curl*", "c?rl", "[a-z]", "http://x/a.pkg", "file:a", "a;b", "$(id)", "`id`"),
    *("a|b", "a&b", "a=b", "a%n", "a\\b", "'a'", '"a"', "\N{LATIN SMALL LETTER E WITH ACUTE}"),
    *("a\u2028", "\N{FULLWIDTH HYPHEN-MINUS}a", "+a", "@a", ",a", "a/", "a" * 256),
]
BAD_ORIGINS: Final[list[Any]] = [
    *({}, {"pkg_origins": None}, {"pkg_origins": ""}, {"pkg_origins": []}),
    *({"pkg_origins": [""]}, {"pkg_origins": 7}, {"pkg_origins": True}),
    *({"pkg_origins": {"a": "b"}}, {"pkg_origins": ["a", 7]}, {"pkg_origins": [["a"]]}),
    {"pkg_origins": ["a", None]},
    # Too much for a job.
    {"pkg_origins": [f"{'a' * 100}{number}" for number in range(1000)]},
    *({"pkg_origins": ["fine", name]} for name in BAD_NAMES),
]
# What else can't be meant, by action and key.
BAD_VALUES: Final[dict[tuple[str, str], list[Any]]] = {
    ("pkg_install", "repo"): [*BAD_NAMES, 7, True, ["a"], {}, "a/b", "a,b", "a~b"],
    ("pkg_remove", "recursive"): ["yes", "", 1, None, []],
    ("pkg_update", "force"): ["-f", 1, {}],
    ("pkg_audit", "fetch"): ["perhaps"],
    ("pkg_info", "pkg_origins"): [7, *BAD_NAMES],
    ("pkg_info", "repo"): BAD_NAMES,
    ("pkg_info", "category"): [7, ["www"]],
    ("list_categories", "repo"): BAD_NAMES,
    ("pkg_search", "search_term"): ["", None, 7, "a\n", "a\0", "x" * 256],
    ("pkg_search", "search_excludes"): [7, [7]],
}


def test_without_its_queue_it_is_said_what_to_do(tmp_path: Path) -> None:
    tools, daemon = staged(tmp_path, dispatcher="queues = { other = 1 }")
    with daemon, daemon.client() as client:
        frame = client.ask_raw("sysadm", "pkg", {"action": "pkg_upgrade"})
        assert frame["args"]["code"] == 409
        assert "add `pkg_queue = 1` to [dispatcher.queues]" in frame["args"]["detail"]
        assert tools.calls("pkg") == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tools, Daemon]]:
    tools, daemon = staged(tmp_path_factory.mktemp("pkg"))
    with daemon:
        yield tools, daemon


@pytest.fixture
def stage(shared: tuple[Tools, Daemon]) -> Iterator[Stage]:
    with anew(*shared) as stage:
        yield stage


# What gets to pkg.


def test_each_action_runs_pkg_so_and_not_otherwise(stage: Stage) -> None:
    tools, client = stage.tools, stage.client
    tools.say("pkg", "")
    client.ask("events", "subscribe", ["dispatcher"])
    ids: list[str] = []
    for action, args, argv, updates in RUNS:
        job = ask(client, action, **args)
        ids.append(job["proc_id"])
        end = ends(client, job["proc_id"])[-1]
        assert end["process_details"]["result"] == "succeeded"
        call = tools.calls("pkg")[-1]
        assert call.argv == ("pkg", *argv)
        path = call.env["EVENT_PIPE"]
        assert call.env == {
            "ASSUME_ALWAYS_YES": "yes",
            "REPO_AUTOUPDATE": "yes" if updates else "no",
            "EVENT_PIPE": path,
        }
        assert path.endswith("/0.sock")
        # It is shown as it is run.
        assert job["proc_cmd"] == " ".join([str(tools.folder / "pkg"), *argv])
        assert end["process_details"]["commands"][0]["argv"][1:] == argv
    assert len(tools.calls("pkg")) == len(RUNS)
    # Who asked for it is written down.
    trail = client.trail()
    assert all(any(f"queue {id}: " in text for text in trail) for id in ids)


def test_events_go_to_a_socket_that_goes_with_the_job(stage: Stage, tmp_path: Path) -> None:
    tools, client = stage.tools, stage.client
    go = tmp_path / "go"
    tools.play("pkg", "lock", speed=None, hold=(0, go))
    client.ask("events", "subscribe", ["dispatcher"])
    id = ask(client, "pkg_lock", pkg_origins="keepme")["proc_id"]
    wait_for(lambda: tools.workers())
    pipe = Path(tools.calls("pkg")[0].env["EVENT_PIPE"])
    assert stat.S_ISSOCK(pipe.stat().st_mode)
    go.touch()
    ends(client, id)
    wait_for(lambda: not pipe.exists())


def test_a_long_state_directory_has_a_socket_too(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 20) / ("deeper" * 10)
    folder.mkdir(parents=True)
    with running(folder) as stage:
        tools, daemon, client = stage.tools, stage.daemon, stage.client
        played = tools.play("pkg", "remove-leaf", speed=None)
        client.ask("events", "subscribe", ["dispatcher"])
        id = ask(client, "pkg_remove", pkg_origins="keepme")["proc_id"]
        assert ends(client, id)[-1]["progress"]["done"] == 1
        lines = (daemon.state_dir / "jobs" / "1" / "0.events").read_bytes()
        assert lines == b"".join(line + b"\n" for line in played.events)
        link = Path(tools.calls("pkg")[0].env["EVENT_PIPE"]).parent
        wait_for(lambda: not link.is_symlink())


def test_what_can_not_be_meant_is_refused_and_runs_nothing(stage: Stage) -> None:
    tools, client = stage.tools, stage.client
    before = client.ask("rpc", "dispatcher", {"action": "history"})
    listed = client.ask("rpc", "dispatcher", {"action": "list"})
    for action in ("pkg_install", "pkg_remove", "pkg_lock", "pkg_unlock"):
        for args in BAD_ORIGINS:
            assert refused(client, action, **args)[0] == 400, (action, args)
    needed = {"pkg_origins": "curl", "search_term": "curl"}
    for (action, key), values in BAD_VALUES.items():
        for value in values:
            code, _ = refused(client, action, **{**needed, key: value})
            assert code == 400, (action, key, value)
    assert client.ask("rpc", "dispatcher", {"action": "history"}) == before
    assert client.ask("rpc", "dispatcher", {"action": "list"}) == listed
    assert tools.calls("pkg") == []


def test_everything_of_all_packages_is_not_even_asked_for(stage: Stage) -> None:
    tools, client = stage.tools, stage.client
    assert refused(client, "pkg_info", result="full")[0] == 400
    assert tools.calls("pkg") == []


def test_a_thousand_packages_are_one_job(stage: Stage) -> None:
    tools, client = stage.tools, stage.client
    tools.say("pkg", "")
    names = [f"devel/p5-Package-{number}" for number in range(1000)]
    client.ask("events", "subscribe", ["dispatcher"])
    ends(client, ask(client, "pkg_install", pkg_origins=names)["proc_id"])
    assert tools.calls("pkg")[0].argv[3:] == tuple(names)


TEXTS: Final = st.text(
    st.sampled_from("-aZ09_.+,~@/: \n\t\0*?[]\\%$\N{LATIN SMALL LETTER E WITH ACUTE}"),
    max_size=8,
)


@given(st.lists(TEXTS | st.text(max_size=300), min_size=1, max_size=3))
def test_a_name_gets_to_pkg_as_it_is_or_not_at_all(names: list[str]) -> None:
    orders: list[Order] = []

    async def queue(order: Order) -> object:
        orders.append(order)
        return SimpleNamespace(id=order.id)

    asked = cast(
        "Asked",
        SimpleNamespace(args=Arguments({"pkg_origins": names}), tool="pkg", queue=queue),
    )

    async def remove() -> None:
        await CLASS.actions["pkg_remove"].answer(asked)

    try:
        asyncio.run(remove())
    except BadRequest:
        assert not orders
        return
    (order,) = orders
    assert order.commands[0].argv == ("pkg", "delete", "-y", "-R", *names)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_.+,~@/-]{1,255}", name, re.ASCII)
        assert all(part[:1].isalnum() or part[:1] == "_" for part in name.split("/"))


# Who may.


def test_each_role_may_what_it_may(stage: Stage) -> None:
    tools, daemon, client = stage.tools, stage.daemon, stage.client
    row = "\x1f".join(["curl", "8.0", "ftp/curl", *"cmwpqs", "FreeBSD", "0", "0", "1"])
    tools.say("pkg", f"{row}\n", when=("query",))
    tools.say("pkg", "FreeBSD\n", when=("repositories",))
    assert client.ask("rpc", "query")["sysadm/pkg"] == "read/write"
    assert refused(client, "pkg_fly")[0] == 404
    needed: dict[str, Any] = {"pkg_origins": "curl", "search_term": "curl"}
    for role in ("limited", "read"):
        add = {"action": "add", "name": role, "role": role}
        token = client.ask("rpc", "tokens", add)["token"]
        with daemon.stranger() as other:
            assert refused(other, "pkg_info")[0] == 401
            other.ask("rpc", "auth_token", {"token": token})
            listed = other.ask("rpc", "query").get("sysadm/pkg")
            assert listed == {"limited": "read", "read": None}[role]
            for action in (*JOBS, "pkg_fly"):
                assert refused(other, action, **needed)[0] == 403, action
            for action in READING:
                if role == "limited":
                    assert ask(other, action, **needed), action
                else:
                    assert refused(other, action, **needed)[0] == 403, action
    assert {call.argv[1] for call in tools.calls("pkg")} == {"query", "repositories"}


def test_a_tool_that_appears_is_found(tmp_path: Path) -> None:
    tools, daemon = staged(tmp_path)
    pkg = tools.folder / "pkg"
    pkg.rename(tools.folder / "elsewhere")
    with daemon, daemon.client() as client:
        assert "sysadm/pkg" not in client.ask("rpc", "query")
        code, detail = refused(client, "pkg_upgrade")
        assert code == 404
        assert "pkg" in detail
        (tools.folder / "elsewhere").rename(pkg)
        wait_for(lambda: "sysadm/pkg" in client.ask("rpc", "query"), seconds=10)
        tools.say("pkg", "FreeBSD\n")
        assert ask(client, "list_repos") == ["local", "FreeBSD"]
        pkg.unlink()
        wait_for(lambda: "sysadm/pkg" not in client.ask("rpc", "query"), seconds=10)
