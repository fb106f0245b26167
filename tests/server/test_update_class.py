"""sysadm/update in a running daemon, by stand-ins that do what was recorded of its tools."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import stat
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.job_classes import update_conf
from tests.kit import QUIET, Client, Daemon, wait_for
from tests.kit.class_site import ClassSite, subscribe
from tests.kit.clock import Clocks
from tests.kit.processes import members, runs
from tests.kit.replay import Tools, recording

CHECK = "sysadm_update_checkupdates"
RUN = "sysadm_update_runupdates::"
UUID = re.compile(r"\{[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}")
UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
LOCAL_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
FETCH = ("--not-running-from-cron", "fetch")
# No result is reused.
ALWAYS_ASK = "import server.job_classes.update as update; update.GOOD_FOR = 0.0"
# Of one frame, bytes. Source: docs/protocol.md.
FRAME = 512 * 1024

NO_KEY = "Fetching public key from mirror1.update.test... failed."
FOUND = {
    "status": "updatesavailable",
    "release": "13.2-RELEASE-p4",
    "files": {"updated": 23, "added": 1, "removed": 1, "modified_locally": 1},
}
NONE = {"status": "noupdates", "release": "13.2-RELEASE-p3"}
# Of each recording that is one of an action's command: the job's result, its percent, how its
# problems begin, and what else is told at its end.
CASES: dict[str, dict[str, tuple[str, int, list[str], dict[str, Any]]]] = {
    "checkupdates": {
        "fetch-after-kill": ("succeeded", 100, [], FOUND),
        "fetch-bad-file": ("failed", 97, ["2d8662b416c2113b90e790fa7cfddc49eb43c5"], {}),
        "fetch-eol-past": ("failed", 99, ["WARNING: FreeBSD 13.2-RELEASE-p3 HAS PASSED"], NONE),
        "fetch-killed": ("failed", 75, [], {}),
        "fetch-mirror-down": ("succeeded", 100, [NO_KEY], FOUND),
        "fetch-no-server": (
            *("failed", 2),
            [NO_KEY.replace("mirror1.", ""), "No mirrors remaining, giving up."],
            {},
        ),
        "fetch-no-tty": ("failed", 0, ["freebsd-update fetch should not be run non-int"], {}),
        "fetch-none": ("succeeded", 100, [], NONE),
        "fetch-tty": ("succeeded", 100, [], FOUND),
        "fetch-updates": ("succeeded", 100, [], FOUND),
    },
    "startupdate": {
        "fetch-install-none": ("succeeded", 100, [], NONE),
        "install": ("succeeded", 100, [], {"status": "runagain"}),
        "install-after-reboot": ("succeeded", 100, [], {"status": "runagain"}),
        "install-kernel-first": ("succeeded", 100, [], {"status": "rebootrequired"}),
        "install-none": ("failed", 0, [], {"status": "noupdates"}),
        "install-second-run": ("succeeded", 100, [], {"status": "installed"}),
    },
}
READING = ("listbranches", "listsettings", "listlogs", "readlogs")
CHANGING = ("checkupdates", "startupdate", "stopupdate", "applyupdate", "changesettings")
CONF = """\
# $FreeBSD$
Components src world kernel # all
ServerName update.FreeBSD.org
IgnorePaths /boot/kernel/linker.hints
MailTo root
"""


@dataclass(frozen=True, slots=True)
class Site(ClassSite):
    """That of sysadm/update."""

    NAME = "update"

    @property
    def conf(self) -> Path:
        return self.tools.folder / "freebsd-update.conf"

    def start(self) -> str:
        """Start an update; returns the job's id."""
        id: str = self.ask("startupdate")["queueid"]
        return RUN + id

    def until_end(self, id: str) -> list[dict[str, Any]]:
        """`args` of the job's events."""
        events = self.client.until(lambda event: is_end(event, id))
        return [event["args"] for event in events if event["args"].get("process_id") == id]

    def ran(self) -> int:
        """How often freebsd-update was run."""
        return len(self.tools.calls("freebsd-update"))


def is_end(event: dict[str, Any], id: str) -> bool:
    args: dict[str, Any] = event["args"]
    return (args.get("process_id"), args.get("state")) == (id, "finished")


@contextlib.contextmanager
def running(daemon: Daemon, tools: Tools) -> Generator[Site]:
    with daemon, daemon.client() as client:
        subscribe(client)
        yield Site(daemon, client, tools)


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    found = Tools(tmp_path / "tools")
    found.install("freebsd-update")
    found.install("shutdown")
    (found.folder / "freebsd-update.conf").write_text(CONF)
    return found


def config(tools: Tools) -> str:
    """Never the machine's own: what is not installed is not there."""
    names = ("pkg", "freebsd-update", "shutdown", "vm", "iohyve")
    lines = [f'{name.replace("-", "_")} = "{tools.folder}/{name}"' for name in names]
    paths = (
        f'update_conf = "{tools.folder}/freebsd-update.conf"',
        f'pkg_database = "{tools.folder}/pkg"',
    )
    return "\n".join((QUIET, "[classes]", *lines, *paths, ""))


@pytest.fixture
def daemon(tmp_path: Path, tools: Tools) -> Daemon:
    return Daemon(tmp_path / "state", config(tools))


@pytest.fixture
def site(daemon: Daemon, tools: Tools) -> Iterator[Site]:
    with running(daemon, tools) as found:
        yield found


def percents(events: Sequence[dict[str, Any]]) -> list[int]:
    return [args["progress"]["percent"] for args in events if "progress" in args]


# What a job tells.


def test_each_recording_gives_the_documented_events_and_fields(
    tmp_path: Path, tools: Tools
) -> None:
    with running(Daemon(tmp_path / "state", config(tools), before=ALWAYS_ASK), tools) as site:
        for action, cases in CASES.items():
            for case, (result, percent, problems, more) in cases.items():
                played = tools.play("freebsd-update", case, speed=None)
                id = CHECK if action == "checkupdates" else site.start()
                if action == "checkupdates":
                    site.ask(action)
                events = site.until_end(id)
                assert [args["state"] for args in events][:2] == ["pending", "running"], case
                for args in events:
                    assert args["event_system"] == "sysadm/update"
                    assert args["action"] == action
                    assert isinstance(args["update_log"], str)
                assert events[0]["update_log"] == ""
                seen = percents(events)
                assert seen == sorted(seen), case
                assert max(seen[:-1], default=0) < 100
                end = events[-1]
                assert end["process_details"]["result"] == result, case
                assert end["progress"]["percent"] == percent, case
                assert (percent == 100) == (result == "succeeded")
                for found, expected in zip(end.get("problems", []), problems, strict=True):
                    assert found.startswith(expected), case
                told = {key: end[key] for key in ("status", "release", "files") if key in end}
                assert told == more, case
                assert end["update_log"] == played.output.decode(), case
                show = {"action": "show", "job_id": id}
                job = site.client.ask("rpc", "dispatcher", show)["job"]
                assert job["event_system"] == "sysadm/update"
                assert job["fields"]["progress"] == end["progress"]
                assert job["env"] == []
        calls = {call.argv[1:] for call in tools.calls("freebsd-update")}
        assert calls == {FETCH, (*FETCH, "install")}
        # Nobody is there to leave a pager.
        assert all(call.env == {"PAGER": "cat"} for call in tools.calls("freebsd-update"))


def test_progress_grows_while_it_runs_and_is_told_at_most_once_a_second(site: Site) -> None:
    played = site.tools.play("freebsd-update", "fetch-updates", speed=1.3)
    site.ask("checkupdates")
    frames = site.client.until(lambda event: is_end(event, CHECK))
    events = [frame["args"] for frame in frames]
    running = [frame for frame in frames if frame["args"]["state"] == "running"]
    # The beginning, and one in each second of four.
    assert 3 <= len(running) <= 7
    times = [datetime.fromisoformat(frame["time"]) for frame in running]
    for before, after in itertools.pairwise(times):
        assert (after - before).total_seconds() > 0.99
    told = [args["progress"] for args in events if "progress" in args]
    for before, after in itertools.pairwise(told):
        assert all(before[key] <= after[key] for key in ("percent", "done", "total"))
    assert len({progress["percent"] for progress in told}) >= 3
    assert told[-1] == {"phase": "done", "package": "", "percent": 100, "done": 36, "total": 36}
    # While it runs only what is new.
    pieces = [args["update_log"] for args in events if args["state"] == "running"]
    whole = played.output.decode()
    assert whole.startswith("".join(pieces))
    assert max(map(len, pieces)) < len(whole)


def test_the_original_client_is_told_in_its_own_words(site: Site) -> None:
    go = site.tools.folder / "go"
    played = recording("freebsd-update", "fetch-updates")
    at = played.before("Fetching 13 ")
    site.tools.play("freebsd-update", "fetch-updates", speed=None, hold=(at, go))
    with original(site.daemon) as client:
        client.ask("events", "subscribe", ["dispatcher"])
        assert client.ask("sysadm", "update", {"action": "checkupdates"})["checkupdates"]
        frames = client.until(lambda event: "progress" in event["args"])
        go.touch()
        frames += client.until(lambda event: event["args"]["state"] == "finished")
    # A notice as of any job, then what the class tells of its start.
    notice = frames.pop(1)
    assert notice["args"] == {"process_id": CHECK, "state": "running"}
    for frame in frames:
        assert set(frame) == {"namespace", "name", "id", "args"}
        assert (frame["namespace"], frame["name"], frame["id"]) == ("events", "dispatcher", "")
        args = frame["args"]
        assert args["event_system"] == "sysadm/update"
        assert "process_id" not in args
        assert args["process_details"]["process_id"] == CHECK
        assert args["process_details"]["state"] == args["state"]
    pending, start, *middle, end = (frame["args"] for frame in frames)
    assert (pending["state"], pending["update_log"]) == ("pending", "")
    text = " ".join((str(site.tools.folder / "freebsd-update"), *FETCH))
    details = {"state": "pending", "process_id": CHECK, "cmd_list": [text]}
    assert pending["process_details"] == details
    for args in (start, *middle):
        details = args["process_details"]
        assert args["state"] == "running"
        assert details["current_cmd"] == text
        assert details.get(text, "") == args["update_log"]
        assert LOCAL_TIME.fullmatch(details["time_started"])
    details = end["process_details"]
    assert LOCAL_TIME.fullmatch(details["time_finished"])
    assert details["cmd_list"] == [text]
    assert details[f"return_codes/{text}"] == "0"
    assert not details.keys() & {"current_cmd", "commands", "result"}
    assert end["update_log"] == details[text] == played.output.decode()
    assert end["status"] == "updatesavailable"


@contextlib.contextmanager
def original(daemon: Daemon) -> Generator[Client]:
    """The Qt client of the original."""
    with daemon.stranger() as client:
        client.documented = False
        identify = {"namespace": "rpc", "name": "identify", "id": "sysadm_client_identify"}
        client.socket.send(json.dumps(identify))
        assert client.receive()["args"]["type"] == "server"
        client.ask("rpc", "auth_token", {"token": daemon.token})
        yield client


@pytest.mark.parametrize("ends", ["after", "before"])
def test_a_check_goes_on_when_the_daemon_is_killed_and_tells_the_same(
    site: Site, ends: str
) -> None:
    go = site.tools.folder / "go"
    played = recording("freebsd-update", "fetch-updates")
    at = played.before("Fetching 13 ")
    site.tools.play("freebsd-update", "fetch-updates", speed=None, hold=(at, go))
    site.ask("checkupdates")
    frames = site.client.until(lambda event: "progress" in event["args"])
    assert 60 <= frames[-1]["args"]["progress"]["percent"] < 90
    site.daemon.kill()
    if ends == "before":
        # It ends while nobody looks.
        (call,) = site.tools.calls("freebsd-update")
        go.touch()
        wait_for(lambda: not psutil.pid_exists(call.pid), "its end")
    site.daemon.start()
    go.touch()
    with site.daemon.client() as client:
        subscribe(client, frames[-1]["cursor"])
        after = client.until(lambda event: is_end(event, CHECK))
        assert after[0]["prev"] == frames[-1]["cursor"]
        found = client.ask("sysadm", "update", {"action": "checkupdates"})["checkupdates"]
        assert found["status"] == "updatesavailable"
    seen = percents([frame["args"] for frame in frames + after])
    assert seen == sorted(seen)
    end = after[-1]["args"]
    assert end["process_details"]["result"] == "succeeded"
    assert end["progress"]["done"] == end["progress"]["total"] == 36
    assert {key: end[key] for key in FOUND} == FOUND
    assert end["update_log"] == played.output.decode()
    assert site.ran() == 1


# checkupdates


def test_a_check_is_one_job_and_its_result_is_used_again(site: Site) -> None:
    go = site.tools.folder / "go"
    at = recording("freebsd-update", "fetch-updates").before("Inspecting")
    site.tools.play("freebsd-update", "fetch-updates", speed=None, hold=(at, go))
    first = site.ask("checkupdates")
    assert first["status"] == "checkingforupdates"
    assert CHECK in first["details"]
    assert "last_check" not in first
    for _ in range(2):
        assert site.ask("checkupdates", force="true")["status"] == "checkingforupdates"
    jobs = site.client.ask("rpc", "dispatcher", {"action": "list"})["jobs"]
    assert list(jobs["no_queue"]) == [CHECK]
    go.touch()
    site.until_end(CHECK)
    (job,) = site.history()
    found = site.ask("checkupdates")
    what = "files updated: 23, added: 1, removed: 1, modified locally: 1"
    release = "13.2-RELEASE-p4"
    assert found == {
        "status": "updatesavailable",
        "details": f"{release}: {what}",
        "patch1": {
            **{"name": release, "tag": release, "details": what},
            **{"date": "", "size": ""},
        },
        "last_check": job["time_finished"],
    }
    assert UTC_TIME.fullmatch(found["last_check"])
    # Some minutes it is good also for who insists.
    assert site.ask("checkupdates", force=True) == found
    assert site.ran() == 1
    assert site.refused("checkupdates", force="perhaps")[0] == 400


def test_an_update_is_told_of_while_it_runs_and_says_then_how_things_are(site: Site) -> None:
    go = site.tools.folder / "go"
    site.tools.play("freebsd-update", "fetch-updates", speed=None)
    site.ask("checkupdates")
    site.until_end(CHECK)
    last = site.ask("checkupdates")["last_check"]
    after = {
        "install-kernel-first": "rebootrequired",
        "install": "updatesavailable",
        "install-second-run": "noupdates",
        "install-none": "noupdates",
    }
    for case, status in after.items():
        site.tools.play("freebsd-update", case, when=("install",), speed=None, hold=(1, go))
        id = site.start()
        found = site.ask("checkupdates", force="true")
        assert found["status"] == "updaterunning"
        assert id in found["details"]
        assert found["last_check"] == last
        assert site.ask("listlogs")[id]["finished"] == ""
        go.touch()
        site.until_end(id)
        go.unlink()
        found = site.ask("checkupdates")
        assert found["status"] == status, case
        assert found["last_check"] > last
        last = found["last_check"]
    # One more for each: no check was needed.
    assert site.ran() == 1 + len(after)


def test_a_reboot_is_required_until_it_was_made(site: Site) -> None:
    site.tools.play("freebsd-update", "install-kernel-first", speed=None)
    site.until_end(site.start())
    assert site.ask("checkupdates")["status"] == "rebootrequired"
    # What else is tried, or asked, meanwhile changes nothing of that.
    site.ask("applyupdate", confirm="reboot")
    site.client.until(lambda event: event["args"]["state"] == "finished")
    site.tools.play("freebsd-update", "fetch-no-server", speed=None)
    site.until_end(site.start())
    assert site.ask("checkupdates", force="true")["status"] == "rebootrequired"


def test_a_check_that_failed_is_made_again(site: Site) -> None:
    site.tools.play("freebsd-update", "fetch-no-server", speed=None)
    assert site.ask("checkupdates") == {
        "status": "checkingforupdates",
        "details": f"job {CHECK} asks for updates",
    }
    site.until_end(CHECK)
    site.tools.play("freebsd-update", "fetch-none", speed=None)
    assert site.ask("checkupdates")["status"] == "checkingforupdates"
    site.until_end(CHECK)
    found = site.ask("checkupdates")
    assert (found["status"], site.ran()) == ("noupdates", 2)
    # What an update has failed at makes older knowledge doubtful, too.
    site.tools.play("freebsd-update", "fetch-no-server", when=("install",), speed=None)
    site.until_end(site.start())
    again = site.ask("checkupdates")
    assert again["status"] == "checkingforupdates"
    assert again["last_check"] == found["last_check"]
    site.until_end(CHECK)
    assert site.ask("checkupdates")["status"] == "noupdates"
    assert site.ran() == 4


def test_a_result_is_good_for_twelve_hours_or_five_minutes_if_forced(
    tmp_path: Path, tools: Tools
) -> None:
    clocks = Clocks(tmp_path)
    tools.play("freebsd-update", "fetch-none", speed=None)
    daemon = Daemon(tmp_path / "state", config(tools), env=clocks.environment)
    with running(daemon, tools) as site:

        def check(ahead: float, **args: str) -> str:
            clocks.set(ahead)
            status: str = site.ask("checkupdates", **args)["status"]
            if status == "checkingforupdates":
                site.until_end(CHECK)
            return status

        # Ends are told by who sees them, whose clock is right: after each the age is `ahead`.
        assert check(0) == "checkingforupdates"
        assert check(240, force="true") == "noupdates"
        assert check(310) == "noupdates"
        assert check(310, force="true") == "checkingforupdates"
        assert check(240, force="true") == "noupdates"
        assert check(12 * 3600 - 60) == "noupdates"
        assert check(12 * 3600 + 60) == "checkingforupdates"
        assert check(12 * 3600 - 60) == "noupdates"
        # One from the future says nothing.
        assert check(-60) == "checkingforupdates"
        assert site.ran() == 4


# startupdate, stopupdate, applyupdate


def test_an_update_is_answered_with_its_bare_uuid(site: Site) -> None:
    site.tools.play("freebsd-update", "install-second-run", speed=None)
    reply = site.ask("startupdate", target="pkgupdate")
    assert set(reply) == {"command", "comment", "queueid"}
    assert UUID.fullmatch(reply["queueid"])
    assert reply["comment"] == "Task Queued"
    path = site.tools.folder / "freebsd-update"
    assert reply["command"] == f"{path} --not-running-from-cron fetch install"
    end = site.until_end(RUN + reply["queueid"])[-1]
    assert end["status"] == "installed"
    assert end["process_details"]["cmd_list"] == [reply["command"]]
    (call,) = site.tools.calls("freebsd-update")
    assert call.argv == ("freebsd-update", *FETCH, "install")
    assert call.env == {"PAGER": "cat"}


@pytest.mark.parametrize("target", ["chbranch", "standalone", "-v", " pkgupdate", 1, ["x"]])
def test_another_target_is_refused(site: Site, target: object) -> None:
    code, detail = site.refused("startupdate", target=target, branch="x", tag="y")
    assert code == 400
    assert "target" in detail
    assert site.history() == []
    assert site.ran() == 0


def test_there_is_one_update_at_a_time_whoever_asks(site: Site) -> None:
    go = site.tools.folder / "go"
    site.tools.play("freebsd-update", "install-second-run", speed=None, hold=(1, go))
    request = {"namespace": "sysadm", "name": "update", "args": {"action": "startupdate"}}
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(site.daemon.client()) for _ in range(5)]
        for client in clients:
            client.socket.send(json.dumps({**request, "id": "x"}))
        replies = [client.receive() for client in clients]
    (started,) = [frame["args"] for frame in replies if frame["name"] == "response"]
    codes = [frame["args"]["code"] for frame in replies if frame["name"] == "error"]
    assert codes == [409] * 4
    id = RUN + started["startupdate"]["queueid"]
    code, detail = site.refused("startupdate")
    assert code == 409
    assert id in detail
    go.touch()
    site.until_end(id)
    # A check is at it, too.
    go.unlink()
    site.tools.play("freebsd-update", "fetch-none", speed=None, hold=(1, go))
    site.tools.play("freebsd-update", "fetch-no-server", when=("install",), speed=None)
    site.until_end(site.start())
    assert site.ask("checkupdates")["status"] == "checkingforupdates"
    code, detail = site.refused("startupdate")
    assert (code, CHECK in detail) == (409, True)
    # And none that may be stopped.
    assert site.ask("stopupdate") == {"result": "error: no update is running"}
    go.touch()
    site.until_end(CHECK)


def test_an_update_is_stopped_with_all_that_it_has_begun(site: Site) -> None:
    assert site.ask("stopupdate") == {"result": "error: no update is running"}
    # As the real one, which is a script, has programs that fetch.
    tool = site.tools.folder / "freebsd-update"
    tool.write_text("#!/bin/sh\n(sleep 1000; true) &\necho Fetching\nsleep 1000; true\n")
    id = site.start()
    state_dir = site.daemon.state_dir
    begun = wait_for(
        lambda: found if len(found := members(state_dir)) == 4 else None, "its processes"
    )
    assert site.ask("stopupdate") == {"result": "success"}
    end = site.until_end(id)[-1]
    assert end["process_details"]["result"] == "killed"
    assert end["progress"]["percent"] < 100
    # Its own end is told; others of its tree may take a moment longer.
    wait_for(lambda: not any(runs(process) for process in begun), "the end of all")
    assert site.ask("stopupdate") == {"result": "error: no update is running"}


def test_the_machine_restarts_only_if_that_is_meant(site: Site) -> None:
    shutdown = site.tools.folder / "shutdown"
    for confirm in ({}, {"confirm": ""}, {"confirm": "true"}, {"confirm": True}):
        code, detail = site.refused("applyupdate", **confirm)
        assert code == 400
        assert "confirm" in detail
    assert f"{shutdown} -r now" in site.refused("applyupdate")[1]
    assert site.history() == []
    assert site.tools.calls("shutdown") == []
    reply = site.ask("applyupdate", confirm="reboot")
    assert reply == {"result": "rebooting to complete updates"}
    end = site.client.until(lambda event: event["args"]["state"] == "finished")[-1]["args"]
    assert end["process_id"].startswith("sysadm_update_applyupdate::{")
    assert end["action"] == "applyupdate"
    assert [call.argv for call in site.tools.calls("shutdown")] == [("shutdown", "-r", "now")]
    # That it was asked for does not tell whether there are updates.
    site.tools.play("freebsd-update", "fetch-none", speed=None)
    assert site.ask("checkupdates")["status"] == "checkingforupdates"
    site.until_end(CHECK)


# Settings


def test_settings_are_read_and_changed_in_the_tools_own_file(site: Site) -> None:
    site.conf.chmod(0o640)
    settings = {"package_set": "src world kernel", "package_url": "update.FreeBSD.org"}
    assert site.ask("listsettings") == settings
    assert site.ask("changesettings", **settings) == {"result": "no changes"}
    assert site.ask("changesettings") == {"result": "no changes"}
    assert site.conf.read_text() == CONF
    wanted = {"package_set": "world kernel", "package_url": "updates.example.org"}
    assert site.ask("changesettings", **wanted) == {"result": "success"}
    assert site.ask("listsettings") == wanted
    changed = CONF.replace("src world kernel", "world kernel")
    assert site.conf.read_text() == changed.replace("update.FreeBSD", "updates.example")
    assert stat.S_IMODE(site.conf.stat().st_mode) == 0o640
    assert site.ask("changesettings", package_url="update.FreeBSD.org")["result"] == "success"
    assert site.conf.read_text() == changed


def test_what_is_no_setting_or_no_value_changes_nothing(site: Site) -> None:
    for key in ("auto_update", "maxbe", "auto_update_reboot", "cdn_type"):
        code, detail = site.refused("changesettings", **{key: "1", "package_set": "world"})
        assert code == 404
        assert detail.startswith(key)
    for key in ("Components", "package_set\n", "ServerName evil", ""):
        assert site.refused("changesettings", **{key: "world"})[0] == 400
    bad: dict[str, list[object]] = {
        "package_set": [
            *("", " ", "world ", "world  kernel", "all", "world\nServerName evil", "../world"),
            *("world # x", "world\\", "world\r", "world/../x", "worldkernel", "world;reboot"),
            *(["world"], 1, True, {"a": "b"}, "world\u2028src", "world " * 200),
        ],
        "package_url": [
            *("", "a b", "-h", "http://example.org", "example.org\nComponents src", "a..b"),
            *("a_b", "a/b", "$(reboot)", "a#b", "\u00e4.org", "a" * 64, "a.b\\", 7),
        ],
    }
    for key, values in bad.items():
        for value in values:
            code, detail = site.refused("changesettings", **{key: value})
            assert code == 400, value
            assert key in detail
    assert site.conf.read_text() == CONF
    assert not any("change " in text for text in site.client.trail())


PIECES = (
    *("src", "world", "kernel", "ServerName", "Components", "evil", "a.b", "-"),
    *(" ", "\n", "\r", "\t", "#", "\\", "/", "..", "\x00", "\x85", "\u2028", "="),
)


@given(
    st.sampled_from(("package_set", "package_url")),
    st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=6).map("".join)),
)
@example("package_set", "world\nServerName evil")
@example("package_url", "a.b\\\nComponents src")
def test_whatever_is_set_only_its_own_line_changes(key: str, value: str) -> None:
    try:
        after = update_conf.changed(CONF, {key: value})
    except ValueError as error:
        assert str(error).startswith(key)
        return
    number = 1 if key == "package_set" else 2
    old, new = CONF.split("\n"), after.split("\n")
    assert old[:number] + old[number + 1 :] == new[:number] + new[number + 1 :]
    keyword, *words = new[number].partition("#")[0].split()
    assert keyword == update_conf.COUNTERPARTS[key]
    assert words == value.split(" ")
    assert update_conf.settings(after) == {**update_conf.settings(CONF), key: value}


def test_what_is_not_changed_stays_byte_by_byte(site: Site) -> None:
    rest = b"# caf\xe9 \r\n# one\rline\nMailTo root\r\n"
    site.conf.write_bytes(b"Components src\n" + rest)
    assert site.ask("changesettings", package_set="world") == {"result": "success"}
    assert site.conf.read_bytes() == b"Components world\n" + rest


def test_a_file_of_settings_that_is_of_no_use_is_a_clear_error(site: Site) -> None:
    # Where the new file would be made something lies in the way.
    new = site.conf.with_name(site.conf.name + ".new")
    new.mkdir()
    reply = site.ask("changesettings", package_set="world")
    assert reply["result"] == "error"
    assert reply["detail"]
    assert site.conf.read_text() == CONF
    new.rmdir()
    site.conf.unlink()
    actions: list[tuple[str, dict[str, str]]] = [
        ("listsettings", {}),
        ("changesettings", {"package_set": "world"}),
    ]
    for action, args in actions:
        code, detail = site.refused(action, **args)
        assert code == 503
        assert str(site.conf) in detail
        assert "No such file" in detail
    assert not site.conf.exists()
    # Even root can't read a directory.
    site.conf.mkdir()
    for action, args in actions:
        code, detail = site.refused(action, **args)
        assert (code, "directory" in detail) == (503, True)


# Logs, branches


def test_logs_are_those_of_its_jobs(site: Site) -> None:
    assert site.ask("listlogs") == {}
    assert site.refused("readlogs")[0] == 400
    assert site.refused("readlogs", logs=[])[0] == 400
    checked = site.tools.play("freebsd-update", "fetch-none", speed=None)
    installed = site.tools.play(
        "freebsd-update", "install-second-run", when=("install",), speed=None
    )
    # Of another class's jobs nothing is told.
    site.client.ask("rpc", "dispatcher", {"action": "run", "other": ["echo secret"]})
    site.ask("checkupdates")
    site.until_end(CHECK)
    id = site.start()
    site.until_end(id)
    listed = site.ask("listlogs")
    assert {key: value["name"] for key, value in listed.items()} == {
        CHECK: "checkupdates",
        id: "startupdate",
    }
    for value in listed.values():
        assert set(value) == {"name", "started", "finished"}
        assert 1_600_000_000 < int(value["started"]) <= int(value["finished"])
    texts = {CHECK: checked.output.decode(), id: installed.output.decode()}
    assert site.ask("readlogs", logs=list(texts)) == texts
    assert site.ask("readlogs", logs=[id, id]) == {id: texts[id]}
    assert site.ask("readlogs", logs=CHECK) == {CHECK: texts[CHECK]}
    for unknown in ("other", "../0.log", "", id.removeprefix(RUN)):
        code, detail = site.refused("readlogs", logs=[CHECK, unknown])
        assert code == 404
        assert "listlogs" in detail
    assert site.refused("readlogs", logs=[1])[0] == 400
    # Of several of one id the newest.
    site.tools.play("freebsd-update", "fetch-no-server", when=("install",), speed=None)
    site.until_end(site.start())
    site.tools.say("freebsd-update", "anew\n", argv=FETCH)
    site.ask("checkupdates")
    site.until_end(CHECK)
    assert site.ask("readlogs", logs=CHECK) == {CHECK: "anew\n"}


def test_of_a_long_log_both_ends_are_told(site: Site) -> None:
    # As JSON a control character has six bytes.
    text = "begin\n" + ("\x01\u00e4" * 100 + "\n") * 3000 + "end\n"
    site.tools.say("freebsd-update", text)
    ids = [CHECK]
    site.ask("checkupdates")
    site.until_end(CHECK)
    ids.append(site.start())
    site.until_end(ids[-1])
    for asked in (ids[:1], ids):
        frame = site.client.ask_raw("sysadm", "update", {"action": "readlogs", "logs": asked})
        size = len(json.dumps(frame, ensure_ascii=False).encode())
        assert FRAME // 2 < size <= FRAME
        found = frame["args"]["readlogs"]
        assert list(found) == asked
        for log in found.values():
            assert log.startswith("begin\n")
            assert log.endswith("end\n")
            (left_out,) = re.findall(r"^\[\.\.\. (\d+) bytes left out \.\.\.\]$", log, re.M)
            marker = f"[... {left_out} bytes left out ...]\n"
            rest = len(log.replace(marker, "").encode())
            # A marker on a line of its own may have needed an end of line.
            assert rest + int(left_out) - len(text.encode()) in (0, 1)


def test_nobody_tells_which_branches_there_are(site: Site) -> None:
    code, detail = site.refused("listbranches")
    assert code == 404
    assert "releases" in detail
    code, detail = site.refused("listbranch")
    assert (code, "listbranches" in detail) == (404, True)


# Systems of packages


def test_a_system_of_packages_is_updated_by_pkg(daemon: Daemon, tools: Tools) -> None:
    tools.install("pkg")
    tools.say("pkg", "FreeBSD-runtime\n", when=("query",))
    checked = tools.play("pkg", "upgrade-check", when=("-n",), speed=None)
    tools.play("pkg", "upgrade", when=("-y",), speed=None)
    with running(daemon, tools) as site:
        assert site.ask("checkupdates")["status"] == "checkingforupdates"
        end = site.until_end(CHECK)[-1]
        assert (end["action"], end["status"]) == ("checkupdates", "updatesavailable")
        assert end["progress"]["percent"] == 100
        assert end["update_log"] == checked.output.decode()
        found = site.ask("checkupdates")
        assert found["status"] == "updatesavailable"
        assert found["packageupdate"] == {"name": "packages of the system"}
        assert "last_check" in found
        reply = site.ask("startupdate")
        pkg = tools.folder / "pkg"
        assert reply["command"] == f"{pkg} upgrade -y -r FreeBSD-base"
        id = RUN + reply["queueid"]
        events = site.until_end(id)
        assert events[-1]["status"] == "installed"
        assert events[-1]["action"] == "startupdate"
        assert percents(events)[-1] == 100
        assert site.ask("checkupdates")["status"] == "noupdates"
        # It failed since, so it is asked for anew; and there is nothing.
        tools.play("pkg", "fail-update-refused", when=("-y",), speed=None)
        failed = site.until_end(site.start())[-1]
        assert failed["process_details"]["result"] == "failed"
        assert "status" not in failed
        tools.play("pkg", "upgrade-check-none", when=("-n",), speed=None)
        assert site.ask("checkupdates")["status"] == "checkingforupdates"
        assert site.until_end(CHECK)[-1]["status"] == "noupdates"
        assert site.ask("checkupdates")["status"] == "noupdates"
        assert {job["queue"] for job in site.history()} == {"pkg_queue"}
        calls = [call for call in tools.calls("pkg") if call.argv[1] != "query"]
        for call in calls:
            assert call.argv[1:] in (
                ("upgrade", "-n", "-r", "FreeBSD-base"),
                ("upgrade", "-y", "-r", "FreeBSD-base"),
            )
            assert call.env["ASSUME_ALWAYS_YES"] == call.env["REPO_AUTOUPDATE"] == "yes"
            assert "EVENT_PIPE" in call.env
        assert len(calls) == 4
        assert site.ran() == 0
        for action in ("listsettings", "changesettings"):
            code, detail = site.refused(action, package_set="world")
            assert (code, "pkg" in detail) == (404, True)
        assert site.conf.read_text() == CONF


def test_pkg_alone_makes_no_system_of_packages(daemon: Daemon, tools: Tools) -> None:
    tools.install("pkg")
    tools.say("pkg", "", rc=1, when=("query",))
    tools.play("freebsd-update", "fetch-none", speed=None)
    with running(daemon, tools) as site:
        site.ask("checkupdates")
        assert site.until_end(CHECK)[-1]["status"] == "noupdates"
        assert site.ran() == 1


def test_as_long_as_nobody_can_tell_what_the_system_is_made_of_nothing_is_mixed_up(
    daemon: Daemon, tools: Tools
) -> None:
    tools.install("pkg")
    tools.say("pkg", "FreeBSD-runtime\n", when=("query",))
    tools.play("pkg", "upgrade", when=("-y",), hold=(5, tools.folder / "go"))
    with running(daemon, tools) as site:
        id = site.start()
        (tools.folder / "pkg").write_text("#!/bin/sh\necho pkg: broken >&2\nexit 1\n")
        # Longer than an answer is remembered.
        wait_for(lambda: "pkg: broken" not in str(site.client.ask("rpc", "query")))
        for _ in range(3):
            assert site.client.ask("rpc", "query")["sysadm/update"] == "read/write"
            assert site.refused("listsettings")[0] == 404
        assert site.ask("stopupdate") == {"result": "success"}
        assert site.until_end(id)[-1]["process_details"]["result"] == "killed"
        daemon.reload()
        assert "sysadm/update" in site.client.ask("rpc", "query")
        code, detail = site.refused("startupdate")
        assert code == 503
        assert "pkg: broken" in detail
        assert site.ran() == 0


# Who may, and is it there


def test_without_its_tool_there_is_no_such_class(daemon: Daemon, tools: Tools) -> None:
    tool = tools.folder / "freebsd-update"
    away = tool.rename(tools.folder / "away")
    with running(daemon, tools) as site:
        assert "sysadm/update" not in site.client.ask("rpc", "query")
        for action in (*READING, *CHANGING):
            code, detail = site.refused(action, confirm="reboot")
            assert code == 404
            assert "freebsd-update" in detail
        assert tools.calls("shutdown") == []
        away.rename(tool)
        wait_for(lambda: "sysadm/update" in site.client.ask("rpc", "query"), "the class")
        assert site.ask("listsettings")


def test_who_is_limited_may_only_look(site: Site) -> None:
    site.tools.play("freebsd-update", "fetch-none", speed=None)
    for role in ("limited", "read"):
        add = {"action": "add", "name": role, "role": role}
        token = site.client.ask("rpc", "tokens", add)["token"]
        with site.daemon.stranger() as client:
            client.ask("rpc", "auth_token", {"token": token})
            for action in (*READING, *CHANGING):
                args = {"action": action, "confirm": "reboot", "package_set": "world"}
                frame = client.ask_raw("sysadm", "update", args)
                may = role == "limited" and action in READING
                if not may:
                    assert frame["args"].get("code") == 403, (role, action)
                elif action == "listbranches":
                    assert frame["args"]["code"] == 404
                elif action == "readlogs":
                    assert frame["args"]["code"] == 400
                else:
                    assert frame["name"] == "response", frame
            listed = client.ask("rpc", "query").get("sysadm/update")
            assert listed == ("read" if role == "limited" else None)
    assert site.client.ask("rpc", "query")["sysadm/update"] == "read/write"
    assert site.history() == []
    assert site.tools.calls("shutdown") == []
    assert site.conf.read_text() == CONF


def test_all_that_changes_something_is_in_the_trail(site: Site) -> None:
    go = site.tools.folder / "go"
    site.tools.play("freebsd-update", "fetch-none", speed=None)
    site.tools.play("freebsd-update", "install", when=("install",), speed=None, hold=(1, go))
    site.ask("checkupdates")
    site.until_end(CHECK)
    id = site.start()
    site.ask("stopupdate")
    site.until_end(id)
    site.ask("changesettings", package_set="world", package_url="a.example.org")
    site.ask("applyupdate", confirm="reboot")
    before = site.client.trail()
    for action in READING[1:3]:
        site.ask(action)
    trail = site.client.trail()
    assert trail == before
    tool = site.tools.folder / "freebsd-update"
    for wanted in (
        f"queue {CHECK}: {tool} --not-running-from-cron fetch",
        f"queue {id}: {tool} --not-running-from-cron fetch install",
        f"kill {id}",
        f"change {site.conf}: package_set = world, package_url = a.example.org",
        f"{site.tools.folder}/shutdown -r now",
    ):
        (entry,) = [text for text in trail if text.endswith(wanted)]
        assert "127.0.0.1" in entry
