"""Questions to sysadm/pkg: what pkg is asked, what is told, and what if it fails."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from server.job_classes import tool
from server.job_classes.pkg import MOST_FOUND, PAGE_SIZE
from server.job_classes.tool import MOST
from server.session import READ_AT_ONCE
from sysadmd.errors import ToolFailed
from tests.kit import Daemon, wait_for
from tests.kit.pkg_class import Stage, anew, ask, is_there, refused, running, staged
from tests.kit.replay import Tools

BETWEEN: Final = "\x1f"
COLUMNS: Final = (
    *("name", "version", "origin", "comment", "maintainer", "www", "prefix", "arch"),
    *("flatsize", "repository"),
)
INSTALLED: Final = (*COLUMNS, "automatic", "locked", "time")
FORMAT: Final = BETWEEN.join(["%n", "%v", "%o", "%c", "%m", "%w", "%p", "%q", "%sb", "%R"])
INSTALLED_FORMAT: Final = BETWEEN.join([FORMAT, "%a", "%k", "%t"])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tools, Daemon]]:
    tools, daemon = staged(tmp_path_factory.mktemp("pkg"))
    with daemon:
        yield tools, daemon


@pytest.fixture
def stage(shared: tuple[Tools, Daemon]) -> Iterator[Stage]:
    with anew(*shared) as stage:
        yield stage


def package(origin: str, *, installed: bool = True, **values: str) -> dict[str, str]:
    """As it is told."""
    columns = INSTALLED if installed else COLUMNS
    name = origin.rpartition("/")[2]
    return {key: f"{key} of {name}" for key in columns} | {
        "name": name,
        "origin": origin,
        **values,
    }


def rows(*packages: dict[str, str]) -> str:
    """As pkg prints them."""
    return "".join(f"{BETWEEN.join(one.values())}\n" for one in packages)


CURL: Final = package("ftp/curl")
NGINX: Final = package("www/nginx", comment="Robust, small; \N{SNOWMAN} 100% | a\tb")
LYNX: Final = package("www/lynx-curl")


def test_packages_are_told_by_origin(stage: Stage) -> None:
    tools, client = stage.tools, stage.client
    tools.say("pkg", rows(CURL, NGINX, LYNX), argv=["query", "-a", INSTALLED_FORMAT])
    tools.say("pkg", rows(CURL), argv=["query", INSTALLED_FORMAT, "curl", "ftp/curl"])
    everything = {one["origin"]: one for one in (CURL, NGINX, LYNX)}
    assert ask(client, "pkg_info") == everything
    assert ask(client, "pkg_info", repo="local") == everything
    named = ask(client, "pkg_info", pkg_origins=["curl", "ftp/curl"])
    assert named == {"ftp/curl": CURL}
    www = ask(client, "pkg_info", category="www")
    assert list(www) == ["www/nginx", "www/lynx-curl"]
    assert refused(client, "pkg_info", category="ww")[0] == 204
    # A repository's are asked of its catalogue, and that is left as it is.
    remote = package("ftp/curl", installed=False)
    question = ["rquery", "-U", "-r", "FreeBSD", "-a", FORMAT]
    tools.say("pkg", rows(remote), argv=question)
    assert ask(client, "pkg_info", repo="FreeBSD") == {"ftp/curl": remote}
    assert all("EVENT_PIPE" not in call.env for call in tools.calls("pkg"))


def test_packages_of_one_origin_are_all_told(stage: Stage) -> None:
    flavours = [package("devel/py-x", name=f"py{version}-x") for version in (39, 311)]
    tools, client = stage.tools, stage.client
    tools.say("pkg", rows(*flavours))
    assert ask(client, "pkg_info") == {"devel/py-x": flavours[0], "py311-x": flavours[1]}


def test_of_named_packages_everything_is_told(stage: Stage) -> None:
    several: dict[str, tuple[str, list[str]]] = {
        "dependencies": ("%do", ["lib/a", "lib/b"]),
        "licenses": ("%L", ["MIT"]),
        "shlibs_required": ("%B", ["libc.so.7"]),
        "shlibs_provided": ("%b", []),
        "files": ("%Fp", ["/usr/local/bin/curl", "/usr/local/a b\N{SNOWMAN}"]),
    }
    tools, client = stage.tools, stage.client
    tools.say("pkg", rows(CURL), argv=["query", INSTALLED_FORMAT, "curl"])
    for column, values in several.values():
        text = "".join(f"curl{BETWEEN}{value}\n" for value in values)
        tools.say("pkg", text, argv=["query", f"%n{BETWEEN}{column}", "curl"])
    found = ask(client, "pkg_info", pkg_origins="curl", result="full")
    full = CURL | {key: values for key, (_, values) in several.items()}
    assert found == {"ftp/curl": full}


def test_what_begins_with_the_term_is_found_first(stage: Stage) -> None:
    tools, client = stage.tools, stage.client
    search = ["query", "-i", "-x", INSTALLED_FORMAT]
    tools.say("pkg", rows(LYNX, CURL, NGINX), argv=[*search, "(curl)"])
    found = ask(client, "pkg_search", search_term="curl")
    assert found["results_order"] == ["ftp/curl", "www/lynx-curl", "www/nginx"]
    assert set(found) == {"results_order", *found["results_order"]}
    assert found["ftp/curl"] == CURL
    for excluded in ("lynx", ["lynx", "nginx"]):
        less = ask(client, "pkg_search", search_term="curl", search_excludes=excluded)
        assert "www/lynx-curl" not in less
    www = ask(client, "pkg_search", search_term="curl", category="www")
    assert www["results_order"] == ["www/lynx-curl", "www/nginx"]
    remote = ["rquery", "-U", "-r", "FreeBSD", "-i", "-x", FORMAT, "(curl)"]
    tools.say("pkg", rows(package("ftp/curl", installed=False)), argv=remote)
    assert ask(client, "pkg_search", search_term="curl", repo="FreeBSD")["ftp/curl"]


def test_a_term_is_sought_as_it_stands(stage: Stage) -> None:
    tools, client = stage.tools, stage.client
    tools.say("pkg", rows(CURL))
    for term in (
        "-a",
        "c++",
        "a.*|b",
        "^$",
        "[x]",
        "a\\b",
        "(a){2}",
        "x y",
        "%n",
        "]",
        "][",
    ):
        ask(client, "pkg_search", search_term=term)
        pattern = tools.calls("pkg")[-1].argv[-1]
        assert pattern.startswith("(")
        assert found_by(pattern, [term, term + "x", "", "a"]) == [term]


def test_categories_and_repositories_are_listed(stage: Stage) -> None:
    tools, client = stage.tools, stage.client
    tools.say("pkg", "www\nftp\nwww\nnet\n", argv=["query", "-a", "%C"])
    remote = ["rquery", "-U", "-r", "FreeBSD", "-a", "%C"]
    tools.say("pkg", "games\nafterstep\n", argv=remote)
    tools.say("pkg", "FreeBSD\nmine\n", argv=["repositories", "-e", "-l"])
    assert ask(client, "list_categories") == ["ftp", "net", "www"]
    assert ask(client, "list_categories", repo="local") == ["ftp", "net", "www"]
    assert ask(client, "list_categories", repo="FreeBSD") == ["afterstep", "games"]
    assert ask(client, "list_repos") == ["local", "FreeBSD", "mine"]


def test_nothing_found_is_an_answer_of_its_own(stage: Stage) -> None:
    tools, client = stage.tools, stage.client
    tools.say("pkg", "", rc=1)
    for action, args in (
        ("pkg_info", {"pkg_origins": "nosuchpkg"}),
        ("pkg_search", {"search_term": "nosuch"}),
        ("pkg_info", {}),
    ):
        frame = client.ask_raw("sysadm", "pkg", {"action": action, **args})
        assert (frame["namespace"], frame["name"]) == ("sysadm", "error")
        assert frame["args"]["code"] == 204
        assert frame["args"]["message"] == "No Content"


FAILURES: Final = [
    "pkg: sqlite error while executing PRAGMA user_version: file is not a database",
    'ld-elf.so.1: Shared object "libarchive.so.7" not found, required by "pkg"',
    "pkg: Repository FreeBSD cannot be opened. 'pkg update' required",
]


@pytest.mark.parametrize("complaint", FAILURES)
@pytest.mark.parametrize("before", ["", rows(CURL)])
def test_a_pkg_that_fails_says_why(stage: Stage, complaint: str, before: str) -> None:
    tools, client = stage.tools, stage.client
    write_pkg(tools, f"printf %s {shell(before)}; echo {shell(complaint)} >&2; exit 1")
    for action in ("pkg_info", "pkg_search", "list_categories", "list_repos"):
        code, detail = refused(client, action, search_term="a")
        assert code == 503
        assert complaint.removeprefix("pkg: ")[:60] in detail


def test_what_pkg_says_beside_its_answer_is_no_part_of_it(stage: Stage) -> None:
    tools, client = stage.tools, stage.client
    write_pkg(tools, f"echo 'pkg: Warning: new OS' >&2; printf %s {shell(rows(CURL))}")
    assert ask(client, "pkg_info") == {"ftp/curl": CURL}


@pytest.mark.parametrize("closes", ["", "exec >&- 2>&-; "])
def test_a_pkg_that_hangs_is_ended(tmp_path: Path, closes: str) -> None:
    with running(tmp_path, classes="query_timeout = 1") as stage:
        tools, client = stage.tools, stage.client
        told = tools.folder / "pids"
        write_pkg(tools, f"sleep 77 & echo $$ $! > {told}; {closes}wait")
        code, detail = refused(client, "pkg_info")
        assert code == 503
        assert "query_timeout" in detail
        pids = [int(word) for word in told.read_text().split()]
        assert len(pids) == 2
        wait_for(lambda: not any(is_there(pid) for pid in pids))


def test_a_pkg_that_says_too_much_is_ended(stage: Stage) -> None:
    tools, daemon, client = stage.tools, stage.daemon, stage.client
    write_pkg(tools, f"echo $$ > {tools.folder}/pid; exec head -c {MOST + 1} /dev/zero")
    code, detail = refused(client, "list_categories")
    assert code == 503
    assert str(MOST) in detail
    assert not is_there(int((tools.folder / "pid").read_text()))
    write_pkg(tools, "yes")
    assert refused(client, "pkg_info")[0] == 503
    assert daemon.is_up


def pages(stage: Stage, action: str, **args: Any) -> list[dict[str, Any]]:
    """What the replies have told, one after the other, to the last."""
    found: list[dict[str, Any]] = []
    while True:
        reply = stage.client.ask("sysadm", "pkg", {"action": action, **args})
        assert set(reply) <= {action, "next"}
        found.append(reply[action])
        if "next" not in reply:
            return found
        args["after"] = reply["next"]


def test_packages_are_told_in_pages(stage: Stage) -> None:
    many = [package(f"devel/p{number}") for number in range(MOST_FOUND)]
    stage.tools.say("pkg", rows(*many))
    assert len(ask(stage.client, "pkg_info")) == MOST_FOUND
    assert [len(page) for page in pages(stage, "pkg_info")] == [MOST_FOUND]
    stage.tools.say("pkg", rows(*many, CURL, *many, LYNX))
    first, second, third = pages(stage, "pkg_info")
    assert list(first) == [one["origin"] for one in many]
    # The same package once more is not lost, nor has it a key that was there before.
    assert list(second) == ["ftp/curl", *(f"p{number}" for number in range(MOST_FOUND - 1))]
    assert list(third) == [f"p{MOST_FOUND - 1}", "www/lynx-curl"]
    assert pages(stage, "pkg_info", category="ftp") == [{"ftp/curl": CURL}]
    found = [list(page) for page in pages(stage, "pkg_info", category="www", limit=1)]
    assert found == [["www/lynx-curl"]]
    reply = stage.client.ask(
        "sysadm", "pkg", {"action": "pkg_info", "limit": 2, "after": "499"}
    )
    assert reply["next"] == "501"
    assert list(reply["pkg_info"]) == ["devel/p499", "ftp/curl"]
    # What was there when the page before was told may be gone.
    assert pages(stage, "pkg_info", after="9999") == [{}]
    assert pages(stage, "pkg_search", search_term="x", after="9999") == [{"results_order": []}]


def test_what_is_found_has_one_order_in_all_pages(stage: Stage) -> None:
    names = ("lib-b", "b2", "ab", "b1", "b", "b1")
    stage.tools.say("pkg", rows(*(package(f"x/{name}") for name in names)))
    found = pages(stage, "pkg_search", search_term="b", limit=2)
    order = [page["results_order"] for page in found]
    assert order == [["x/b", "x/b1"], ["b1", "x/b2"], ["x/ab", "x/lib-b"]]
    for page in found:
        assert set(page) == {"results_order", *page["results_order"]}


def test_a_page_fits_into_a_frame(stage: Stage) -> None:
    # Each of these characters is six bytes of JSON.
    long = [package(f"x/p{number}", comment="\x01" * 5000) for number in range(40)]
    stage.tools.say("pkg", rows(*long))
    for action in ("pkg_info", "pkg_search"):
        found = pages(stage, action, search_term="p")
        told = [name for page in found for name in page if name != "results_order"]
        assert sorted(told) == sorted(one["origin"] for one in long)
        assert all(len(json.dumps(page)) <= PAGE_SIZE for page in found)
        assert len(found) == 4


@pytest.mark.parametrize("action", ["pkg_info", "pkg_search"])
def test_a_place_is_the_next_of_a_reply(stage: Stage, action: str) -> None:
    stage.tools.say("pkg", rows(CURL))
    for limit in (0, 501, -1, True, 1.5, "5", None, [1]):
        code, detail = refused(stage.client, action, search_term="c", limit=limit)
        assert (code, "from 1 to 500" in detail) == (400, True)
    for after in (1, "", "-1", "1.0", "x", "\u0661", "1" * 19, ["1"], True):
        code, detail = refused(stage.client, action, search_term="c", after=after)
        assert (code, "args.after" in detail) == (400, True)
    assert stage.tools.calls("pkg") == []


def test_of_long_lists_the_beginning_is_told(stage: Stage) -> None:
    tools, client = stage.tools, stage.client
    files = [f"/usr/local/share/{number:060}" for number in range(7000)]
    tools.say("pkg", rows(CURL, NGINX))
    for column in ("%do", "%L", "%B", "%b"):
        tools.say("pkg", "", when=("query", f"%n{BETWEEN}{column}"))
    several = [("curl", file) for file in files] + [("nginx", "/short"), ("nginx", files[0])]
    text = "".join(f"{name}{BETWEEN}{file}\n" for name, file in several)
    question = ["query", f"%n{BETWEEN}%Fp", "curl", "nginx"]
    tools.say("pkg", text, argv=question)
    found = ask(client, "pkg_info", pkg_origins=["ftp/curl", "nginx"], result="full")
    curl, nginx = found["ftp/curl"], found["www/nginx"]
    kept = len(curl["files"])
    assert 4000 < kept < 7000
    assert curl["files"] == files[:kept]
    assert curl["files_left_out"] == 7000 - kept
    assert (nginx["files"], nginx["files_left_out"]) in (([], 2), (["/short"], 1))
    assert "licenses_left_out" not in curl
    assert PAGE_SIZE * 0.98 < len(json.dumps(found, separators=(",", ":"))) <= PAGE_SIZE
    assert tools.calls("pkg")[-1].argv[1:] == tuple(question)


def test_the_lists_of_many_packages_fit_into_a_frame(stage: Stage) -> None:
    tools = stage.tools
    many = [package(f"x/p{number}") for number in range(MOST_FOUND)]
    tools.say("pkg", rows(*many))
    for column in ("%do", "%L", "%B", "%b", "%Fp"):
        text = "".join(f"{one['name']}{BETWEEN}{'v' * 300}\n" for one in many)
        tools.say("pkg", text, when=("query", f"%n{BETWEEN}{column}"))
    found = pages(stage, "pkg_info", pkg_origins=["x/p"], result="full")
    assert [name for page in found for name in page] == [one["origin"] for one in many]
    assert all(len(json.dumps(page, separators=(",", ":"))) <= PAGE_SIZE for page in found)
    last = found[0]["x/p0"]
    assert (last["dependencies"], last["files"]) == (["v" * 300], [])
    assert last["files_left_out"] == 1


def test_a_slow_question_delays_nobody(stage: Stage) -> None:
    tools, daemon, client = stage.tools, stage.daemon, stage.client
    go = hang(tools)
    for number in range(4):
        request = {"namespace": "sysadm", "name": "pkg", "id": f"slow-{number}"}
        question = {"action": "list_categories"}
        client.socket.send(json.dumps({**request, "args": question}))
    wait_for(lambda: asked_so_far(tools, "%C") == 2)
    assert client.ask("rpc", "identify")["type"] == "server"
    assert client.ask("rpc", "dispatcher", {"action": "list"}) == {"jobs": {}}
    with daemon.client() as other:
        assert other.ask("rpc", "dispatcher", {"action": "list"}) == {"jobs": {}}
    # Of one account no more than two at once.
    assert asked_so_far(tools, "%C") == 2
    go.touch()
    answers = [client.receive() for _ in range(4)]
    assert {frame["id"] for frame in answers} == {f"slow-{number}" for number in range(4)}
    assert all(frame["args"] == {"list_categories": []} for frame in answers)


def test_a_long_question_delays_nobody_either(stage: Stage) -> None:
    tools, daemon, client = stage.tools, stage.daemon, stage.client
    go = hang(tools)
    names = [f"devel/p5-Package-{number}" for number in range(600)]
    question = {"action": "pkg_info", "pkg_origins": names}
    request = {"namespace": "sysadm", "name": "pkg", "id": "long", "args": question}
    assert len(json.dumps(request)) > READ_AT_ONCE
    client.socket.send(json.dumps(request))
    wait_for(lambda: asked_so_far(tools, "devel/p5-Package-7") == 1)
    assert client.ask("rpc", "dispatcher", {"action": "list"}) == {"jobs": {}}
    job = {"id": "a", "commands": [["true", "x" * READ_AT_ONCE]]}
    with daemon.client() as other:
        other.ask("rpc", "dispatcher", {"action": "submit", "job": job})
    go.touch()
    client.documented = False
    assert client.receive()["id"] == "long"


def test_who_logs_out_meanwhile_has_nothing_done(tmp_path: Path) -> None:
    tool = tmp_path / "tools" / "freebsd-update"
    with running(tmp_path, classes=f'freebsd_update = "{tool}"') as stage:
        tools, client = stage.tools, stage.client
        # sysadm/update is looked for by asking pkg.
        go = hang(tools)
        tools.install("freebsd-update")
        update = {"namespace": "sysadm", "name": "update", "id": "u"}
        client.socket.send(json.dumps({**update, "args": {"action": "startupdate"}}))
        wait_for(lambda: asked_so_far(tools, "FreeBSD-runtime") == 1)
        client.socket.send('{"namespace":"rpc","name":"auth_clear","id":"c","args":{}}')
        assert client.ask_raw("rpc", "query")["args"]["code"] == 401
        go.touch()
        client.documented = False
        frame = client.receive()
        assert (frame["id"], frame["args"]["code"]) == ("u", 401)
        with stage.daemon.client() as other:
            assert other.ask("rpc", "dispatcher", {"action": "list"}) == {"jobs": {}}
        assert "defect" not in stage.daemon.log.read_text()


def test_who_logs_out_meanwhile_is_told_nothing(stage: Stage) -> None:
    tools, daemon = stage.tools, stage.daemon
    go = hang(tools)
    with daemon.client() as client:
        before = asked_so_far(tools, "%C")
        pkg = {"namespace": "sysadm", "name": "pkg", "id": "p"}
        client.socket.send(json.dumps({**pkg, "args": {"action": "list_categories"}}))
        wait_for(lambda: asked_so_far(tools, "%C") > before)
        client.socket.send('{"namespace":"rpc","name":"auth_clear","id":"c","args":{}}')
        assert client.ask_raw("rpc", "query")["args"]["code"] == 401
        go.touch()
        client.documented = False
        frame = client.receive()
        assert (frame["id"], frame["args"]["code"]) == ("p", 401)


def test_what_is_here_is_told_though_it_hangs(tmp_path: Path) -> None:
    with running(tmp_path) as stage:
        tools, client = stage.tools, stage.client
        tools.say("pkg", "FreeBSD-runtime\n")
        known = client.ask("rpc", "query")
        assert {"sysadm/pkg", "sysadm/update"} <= set(known)
        # sysadm/update asks pkg whether the system is made of packages.
        go = hang(tools)

        def query() -> dict[str, Any]:
            client.socket.send('{"namespace":"rpc","name":"query","id":"q","args":{}}')
            args: dict[str, Any] = client.receive(seconds=8)["args"]
            return args

        wait_for(lambda: query() == known and asked_so_far(tools, "%n") == 1)
        # Longer than an answer is remembered; one look at a time is enough.
        for _ in range(4):
            assert query() == known
        assert asked_so_far(tools, "%n") == 1
        go.touch()
        wait_for(lambda: "sysadm/update" not in query(), seconds=30)
        assert "sysadm/pkg" in query()


def test_a_tool_has_its_time_once(tmp_path: Path) -> None:
    script = "sleep 1.5; exec >&- 2>&-; sleep 77"
    begun = time.monotonic()
    with pytest.raises(ToolFailed, match=r"within 2 s"):
        tool.ask(["/bin/sh", "-c", script], 2.0)
    assert time.monotonic() - begun < 3.2


def found_by(pattern: str, names: list[str]) -> list[str]:
    """Those that are of this extended pattern from end to end."""
    done = subprocess.run(
        ["grep", "-xE", "--", pattern],
        input="".join(f"{name}\n" for name in names),
        capture_output=True,
        text=True,
        check=False,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    )
    return done.stdout.splitlines()


def write_pkg(tools: Tools, script: str) -> None:
    """Put a shell script in its place."""
    new = tools.folder / "pkg.sh"
    new.write_text(f"#!/bin/sh\n{script}\n")
    new.chmod(0o755)
    new.rename(tools.folder / "pkg")


def shell(text: str) -> str:
    """As one word of a shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def hang(tools: Tools) -> Path:
    """Let pkg hang until this file is there, at most a minute, and say nothing then."""
    go, asked = tools.folder / "go", tools.folder / "asked"
    go.unlink(missing_ok=True)
    wait = f"[ -e {go} ] && exit; sleep 0.05"
    write_pkg(tools, f'echo "$@" >> {asked}; for n in $(seq 1200); do {wait}; done')
    return go


def asked_so_far(tools: Tools, word: str) -> int:
    """How often this was among what a pkg that hangs was asked."""
    file = tools.folder / "asked"
    return file.read_text().split().count(word) if file.exists() else 0
