"""`sysadmctl pkg`, `update` and `vm`, against a server that a test plays."""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Callable
from typing import Any

import click
import pytest

from sysadmd.ctl.app import cli
from sysadmd.ctl.options import Context
from sysadmd.errors import GARBLED, SysadmdError
from tests.kit.ctl import Ctl, lines
from tests.kit.waiting import DEADLINE

Play = Callable[
    [Callable[[str, dict[str, Any]], Any]], tuple[list[str], list[tuple[str, dict[str, Any]]]]
]
ID = "sysadm_pkg_x-{1}"


def job(**more: Any) -> dict[str, Any]:
    """A job of a class at its end."""
    known = {"id": ID, "state": "finished", "time_created": "t", "result": "succeeded"}
    commands = [{"return_code": "0", "command": "pkg x"}]
    return {**known, "commands": commands, "event_system": "sysadm/pkg", "fields": {}, **more}


def queued(reply: Any, shown: dict[str, Any] | None = None) -> Callable[[str, Any], Any]:
    """A class that answers so, and a job that is shown so."""

    def answer(to: str, args: dict[str, Any]) -> Any:
        if to != "rpc/dispatcher":
            return reply
        if args["action"] == "show":
            return {"job": job() if shown is None else shown}
        return {"text": "output\n", "next": 7, "offset": 0, "complete": True}

    return answer


def pkg_job(action: str) -> dict[str, Any]:
    return {action: {"status": "pending", "proc_cmd": "pkg", "proc_id": ID}}


@pytest.mark.parametrize(
    ("words", "args"),
    [
        (
            ["install", "a", "b", "--repo", "r"],
            {"action": "pkg_install", "pkg_origins": ["a", "b"], "repo": "r"},
        ),
        (
            ["remove", "a"],
            {"action": "pkg_remove", "pkg_origins": ["a"], "recursive": "true"},
        ),
        (
            ["remove", "--no-recursive", "a"],
            {"action": "pkg_remove", "pkg_origins": ["a"], "recursive": "false"},
        ),
        (["lock", "a"], {"action": "pkg_lock", "pkg_origins": ["a"]}),
        (["unlock", "a"], {"action": "pkg_unlock", "pkg_origins": ["a"]}),
        (["update"], {"action": "pkg_update"}),
        (["update", "--force"], {"action": "pkg_update", "force": "true"}),
        (["upgrade"], {"action": "pkg_upgrade"}),
        (["autoremove"], {"action": "pkg_autoremove"}),
    ],
)
def test_a_job_of_packages_is_asked_for_once_and_its_output_shown(
    ctl: Ctl, play: Play, words: list[str], args: dict[str, Any]
) -> None:
    where, asked = play(queued(pkg_job(args["action"])))
    done = ctl("pkg", *words, *where)
    assert (done.returncode, done.stdout, done.stderr) == (0, "output\n", "")
    assert [one for one in asked if one[0] == "sysadm/pkg"] == [("sysadm/pkg", args)]
    assert {a["job_id"] for to, a in asked if to == "rpc/dispatcher"} == {ID}


@pytest.mark.parametrize(
    ("words", "fields", "said"),
    [
        (["check"], {"updates_available": "true"}, "updates are available"),
        (["check"], {"updates_available": "false"}, "no updates are available"),
        (["check"], {"updates_available": []}, "it is not known whether updates are available"),
        (["audit"], {"vulnerable_pkgs": ["a", 1, "b"]}, "vulnerable packages: a, b"),
        (
            ["audit"],
            {"vulnerable_pkgs": ["a"], "vulnerable_pkgs_left_out": 2},
            "vulnerable packages: a, and 2 more",
        ),
        (["audit"], {"vulnerable_pkgs": []}, "no vulnerable packages"),
        (["audit"], "strange", "it is not known which packages are vulnerable"),
    ],
)
def test_what_a_look_has_found_is_a_line_and_problems_are_notes(
    ctl: Ctl, play: Play, words: list[str], fields: Any, said: str
) -> None:
    if fields != "strange":
        fields = dict(fields, problems=["no \x1b room", {}])
    action = {"check": "pkg_check_upgrade", "audit": "pkg_audit"}[words[0]]
    failed = job(result="failed", commands=[{"return_code": "3"}], fields=fields)
    where, _ = play(queued(pkg_job(action), failed))
    done = ctl(*where, "pkg", *words)
    assert (done.returncode, done.stdout) == (3, f"output\n{said}\n")
    assert done.stderr == ("" if fields == "strange" else "sysadmctl: no \\x1b room\n")


def test_a_job_of_a_class_is_told_in_json(ctl: Ctl, play: Play) -> None:
    fields = {"updates_available": "true", "problems": ["p"]}
    where, _ = play(queued(pkg_job("pkg_check_upgrade"), job(fields=fields)))
    done = ctl("pkg", "--json", "check", *where)
    reply, output, end = lines(done)
    assert reply == pkg_job("pkg_check_upgrade")
    assert output["text"] == "output\n"
    assert end["job"]["fields"] == fields
    assert done.stderr == "sysadmctl: p\n"


def test_who_does_not_wait_gets_the_id(ctl: Ctl, play: Play) -> None:
    where, asked = play(queued(pkg_job("pkg_upgrade")))
    assert ctl(*where, "pkg", "upgrade", "--no-wait").stdout == ID + "\n"
    where, asked = play(queued({"startupdate": {"comment": "Task Queued", "queueid": "{2}"}}))
    assert ctl(*where, "update", "start", "--no-wait").stdout == (
        "sysadm_update_runupdates::{2}\n"
    )
    where, asked = play(queued({"fetchiso": {"queueid": "sysadm_iohyve_fetch::{3}"}}))
    assert ctl(*where, "vm", "fetch", "http://x/y.iso", "--no-wait").stdout == (
        "sysadm_iohyve_fetch::{3}\n"
    )
    wanted = {"action": "fetchiso", "url": "http://x/y.iso"}
    assert asked == [("sysadm/iohyve", wanted)]


@pytest.mark.parametrize(
    ("words", "reply", "status", "said"),
    [
        (
            ["pkg", "upgrade"],
            ("error", {"code": "404", "message": "Not Found", "detail": "there is no pkg"}),
            1,
            "there is no pkg",
        ),
        (
            ["pkg", "install", "a"],
            ("error", {"code": 403, "message": "Forbidden", "detail": "not your role"}),
            77,
            "not your role",
        ),
        (["pkg", "search", "x"], ("error", {"code": "204", "message": "No Content"}), 1, "not"),
        (["vm", "fetch", "x"], {"fetchiso": {"error": "no such thing"}}, 1, "no such thing"),
        (["vm", "start", "x"], {"start": {"error": "no VM"}}, 1, "no VM"),
        (["update", "stop"], {"stopupdate": {"result": "error: none"}}, 1, "error: none"),
        (
            ["update", "set", "a=b"],
            {"changesettings": {"result": "error", "detail": "no room"}},
            1,
            "no room",
        ),
        (["update", "log", "x"], {"readlogs": {}}, 1, "there is no log 'x'"),
        (["update", "check"], ("error", {"code": 503, "message": "later"}), 1, "later"),
    ],
)
def test_a_refusal_is_told(
    ctl: Ctl, play: Play, words: list[str], reply: Any, status: int, said: str
) -> None:
    where, _ = play(queued(reply))
    for json_too in ([], ["--json"]):
        done = ctl(*where, *words, *json_too)
        assert (done.returncode, done.stdout) == (status, "")
        assert done.stderr.startswith("sysadmctl: ")
        assert said in done.stderr


def test_a_request_that_is_lost_is_not_made_again(ctl: Ctl, play: Play) -> None:
    where, asked = play(queued(ConnectionError))
    done = ctl(*where, "pkg", "upgrade")
    assert done.returncode == 69
    assert "it is not known whether a job was accepted" in done.stderr
    assert len(asked) == 1
    nobody = ctl("pkg", "upgrade", "--url", "wss://127.0.0.1:1", "--token", "x")
    assert nobody.returncode == 69
    assert "not known" not in nobody.stderr


def test_ctrl_c_leaves_the_job_of_a_class_running(ctl: Ctl, play: Play) -> None:
    def answer(to: str, args: dict[str, Any]) -> Any:
        if to == "rpc/dispatcher" and args["action"] == "log":
            text = "output\n" if args["offset"] == 0 else ""
            return {"text": text, "next": 7, "offset": 0, "complete": False}
        return queued(pkg_job("pkg_upgrade"), job(state="running"))(to, args)

    where, _ = play(answer)
    with ctl.started(*where, "pkg", "upgrade") as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "output\n"
        waiting.send_signal(signal.SIGINT)
        _, errors = waiting.communicate(timeout=DEADLINE)
    assert waiting.returncode == 130
    assert f"the job {ID} goes on" in errors
    assert "log -f" in errors
    assert "kill" in errors


def checks(*statuses: dict[str, Any]) -> Callable[[str, Any], Any]:
    """A server that says one of these each time it is asked for updates, the last for ever."""
    left = list(statuses)

    def answer(to: str, args: dict[str, Any]) -> Any:
        if to == "sysadm/update":
            return {"checkupdates": left.pop(0) if len(left) > 1 else left[0]}
        return queued({}, job(fields={"problems": ["slow"]}))(to, args)

    return answer


def test_a_look_for_updates_is_waited_for(ctl: Ctl, play: Play) -> None:
    looking = {"status": "checkingforupdates"}
    found = {
        "status": "updatesavailable",
        "details": "two\nlines",
        "packageupdate1": {"name": "a", "version": 2},
        "last_check": "then",
    }
    where, asked = play(checks(looking, found))
    done = ctl(*where, "update", "check", "--force")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        *("output", "updates are available", "two", "lines"),
        *("packageupdate1 name a, version 2", "last_check then"),
    ]
    assert done.stderr == "sysadmctl: slow\n"
    assert [args for to, args in asked if to == "sysadm/update"] == [
        {"action": "checkupdates", "force": "true"},
        {"action": "checkupdates"},
    ]
    followed = {args["job_id"] for to, args in asked if to == "rpc/dispatcher"}
    assert followed == {"sysadm_update_checkupdates"}
    where, _ = play(checks({"status": "noupdates"}))
    assert lines(ctl(*where, "update", "check", "--json")) == [
        {"checkupdates": {"status": "noupdates"}}
    ]


def test_a_look_for_updates_that_never_ends_is_said(ctl: Ctl, play: Play) -> None:
    where, asked = play(checks({"status": "checkingforupdates"}))
    done = ctl(*where, "update", "check")
    assert done.returncode == 0
    assert done.stdout.endswith("updates are being looked for\n")
    assert len([to for to, _ in asked if to == "sysadm/update"]) == 3


def test_a_restart_must_be_meant(ctl: Ctl, play: Play) -> None:
    where, asked = play(queued({"applyupdate": {"result": "rebooting to complete updates"}}))
    refused = ctl(*where, "update", "apply")
    assert refused.returncode == 2
    assert "restarts the machine at once" in refused.stderr
    assert asked == []
    done = ctl(*where, "update", "apply", "--confirm", "reboot")
    assert done.stdout == "rebooting to complete updates\n"
    assert asked == [("sysadm/update", {"action": "applyupdate", "confirm": "reboot"})]


def test_settings_are_changed_by_key_and_value(ctl: Ctl, play: Play) -> None:
    where, asked = play(queued({"changesettings": {"result": "success"}}))
    done = ctl(*where, "update", "set", "maxbe=5", "package_url=http://x/?a=b")
    assert (done.returncode, done.stdout) == (0, "")
    wanted = {"action": "changesettings", "maxbe": "5", "package_url": "http://x/?a=b"}
    assert asked == [("sysadm/update", wanted)]
    for wrong in (["maxbe"], ["=5"], ["action=x"], ["a=1", "a=2"]):
        assert ctl(*where, "update", "set", *wrong).returncode == 2


@pytest.mark.parametrize(
    ("words", "reply", "shown"),
    [
        (
            ["pkg", "info"],
            {"pkg_info": {"x/a": {"name": "a", "version": "1", "comment": "c\nd"}, "y": 3}},
            ["NAME  VERSION  ORIGIN  COMMENT", r"a     1        -       c\nd", "y     -"],
        ),
        (
            ["pkg", "search", "x"],
            {"pkg_search": {"a": {}, "b": {}, "results_order": ["b", "no", "b", 1]}},
            ["NAME", "b", "a"],
        ),
        (["pkg", "categories"], {"list_categories": ["www", "x11"]}, ["www", "x11"]),
        (["pkg", "repos"], {"list_repos": ["FreeBSD"]}, ["FreeBSD"]),
        (
            ["update", "settings"],
            {"listsettings": {"maxbe": 5, "auto_update": "all"}},
            ["maxbe               5", "auto_update         all"],
        ),
        (
            ["update", "logs"],
            {"listlogs": {"f": {"started": "0", "finished": "9" * 30}, "g": {}}},
            ["NAME  STARTED", "f     1970-01-01T00:00:00Z  9999", "g     -"],
        ),
        (["update", "log", "f"], {"readlogs": {"f": "text\nmore"}}, ["text", "more"]),
        (
            ["vm", "list"],
            {"listvms": {"a": {"vcpu": "2"}, "b": {"memory": 3}}},
            ["NAME  VCPU  MEMORY", "a     2     -", "b     -     3"],
        ),
        (["vm", "isos"], {"listisos": ["a.iso"]}, ["a.iso"]),
        (["vm", "start", "a"], {"start": {"name": "a"}}, []),
        (["vm", "stop", "a"], {"stop": {"name": "a"}}, []),
        (["update", "stop"], {"stopupdate": {"result": "success"}}, []),
        (
            ["update", "set", "a=b"],
            {"changesettings": {"result": "no changes"}},
            ["no changes"],
        ),
    ],
)
def test_answers_are_shown_and_are_one_line_of_json(
    ctl: Ctl, play: Play, words: list[str], reply: dict[str, Any], shown: list[str]
) -> None:
    where, _ = play(queued(reply))
    done = ctl(*where, *words)
    assert (done.returncode, done.stderr) == (0, "")
    printed = done.stdout.splitlines()
    assert len(printed) == len(shown), done.stdout
    for line, begin in zip(printed, shown, strict=True):
        assert line.startswith(begin)
    assert lines(ctl("--json", *words, *where)) == [reply]


@pytest.mark.parametrize("words", [["info", "a"], ["search", "a"]])
def test_packages_are_asked_for_to_the_last_page(
    ctl: Ctl, play: Play, words: list[str]
) -> None:
    action = f"pkg_{words[0]}"
    replies: dict[str | None, dict[str, Any]] = {
        None: {action: {"x/a": {"name": "a", "version": "1"}}, "next": "9"},
        "9": {action: {"results_order": ["b", "c"], "c": {}, "b": {}}, "next": "10"},
        "10": {action: {"d": {}}},
    }
    where, asked = play(lambda _, args: replies[args.get("after")])
    done = ctl(*where, "pkg", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["NAME", *"abcd"]
    assert [args.get("after") for _, args in asked] == [None, "9", "10"]
    assert all(args["action"] == action for _, args in asked)
    assert lines(ctl(*where, "--json", "pkg", *words)) == list(replies.values())


@pytest.mark.parametrize("following", ["0", "x", "", 0, [], "9" * 30])
def test_pages_that_lead_nowhere_end(ctl: Ctl, play: Play, following: Any) -> None:
    where, asked = play(queued({"pkg_info": {"a": {}}, "next": following}))
    done = ctl(*where, "pkg", "info")
    assert (done.returncode, done.stdout) == (1, "")
    assert "do not go on" in done.stderr
    assert len(asked) == 1


COMMANDS = {
    "pkg_upgrade": ["pkg", "upgrade"],
    "pkg_check_upgrade": ["pkg", "check"],
    "pkg_info": ["pkg", "info"],
    "list_repos": ["pkg", "repos"],
    "checkupdates": ["update", "check"],
    "startupdate": ["update", "start"],
    "stopupdate": ["update", "stop"],
    "listsettings": ["update", "settings"],
    "listlogs": ["update", "logs"],
    "readlogs": ["update", "log", "x"],
    "fetchiso": ["vm", "fetch", "x"],
    "listvms": ["vm", "list"],
    "listisos": ["vm", "isos"],
    "start": ["vm", "start", "x"],
}
STRANGE: tuple[Any, ...] = (
    *(None, 3, "text", [], [[]], {}, {"x": 1}, {"x": None}, {"x": []}, {"x": {"y": [1]}}),
    *({"proc_id": 3}, {"proc_id": ID}, {"queueid": None}, {"queueid": "q"}),
    *({"status": []}, {"status": "\x1b"}, {"error": []}, {"result": {}}, {"results_order": 3}),
)
JOBS: tuple[Any, ...] = (
    *(None, [], {}, {"commands": 3}, job(commands={}), job(result=[]), job(result="failed")),
    *(job(fields=3), job(fields=[]), job(fields={"problems": 3, "progress": []})),
    *(job(event_system=[], fields={"progress": {"percent": "x"}, "vulnerable_pkgs": 3}),),
)


def run_here(words: list[str]) -> None:
    """Run `sysadmctl` in this process; what it may raise is all that `main` knows."""
    with contextlib.suppress(SysadmdError, click.exceptions.Exit, *GARBLED):
        cli.main(words, standalone_mode=False, obj=Context())


def test_no_answer_of_a_stranger_is_a_traceback(
    play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = itertools.cycle(JOBS)
    for action, words in COMMANDS.items():
        for strange in STRANGE:
            where, _ = play(queued({action: strange}, next(jobs)))
            run_here([*where, *words])
            assert "\x1b" not in "".join(capsys.readouterr())
        where, _ = play(queued([action]))
        run_here([*where, *words])


@pytest.mark.parametrize("shown", JOBS)
def test_no_job_of_a_stranger_is_a_traceback(
    play: Play, capsys: pytest.CaptureFixture[str], shown: Any
) -> None:
    for action, words in (("pkg_audit", ["pkg", "audit"]), ("pkg_lock", ["pkg", "lock", "a"])):
        where, _ = play(queued(pkg_job(action), shown))
        run_here([*where, *words])
        assert "\x1b" not in "".join(capsys.readouterr())
