"""sysadm/iohyve in a running daemon, by stand-ins that do what was recorded of its tools."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import socket
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.job_classes.iohyve import SCHEMES, check_url, iohyve_disks, vm_disks
from server.job_classes.remote_size import PATIENCE
from sysadmd.errors import BadRequest
from tests.kit import QUIET, Daemon, wait_for
from tests.kit.class_site import ClassSite, subscribe
from tests.kit.processes import members, runs
from tests.kit.replay import Served, Tools, recording

FETCH = "sysadm_iohyve_fetch::"
UUID = r"\{[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}"
LOCAL_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
RATE = re.compile(r"\d{1,4} [ kMG]Bps")
SIZE = 3_000_000
# The name's column on a terminal.
WIDTH = 46
# A port on which nobody listens.
REFUSED = "http://127.0.0.1:1/disc1.iso"

# Of each recording: the job's result and phase, whether it names the file, its rate, and the
# one problem that it has; {file} and {url} are what was asked for.
CASES: dict[str, tuple[str, str, bool, str | None, str | None]] = {
    "bad-directory": (
        *("failed", "start", False, None),
        "fetch: {file}: open(): No such file or directory",
    ),
    "killed-term": ("failed", "fetch", True, None, None),
    "no-length-tty": (
        *("succeeded", "done", True, "574 kBps"),
        "fetch: {url}: size of remote file is not known",
    ),
    "not-found": ("failed", "start", False, None, "fetch: {url}: Not Found"),
    "piped": ("succeeded", "done", True, "580 kBps", None),
    "refused": ("failed", "start", False, None, "fetch: {url}: Connection refused"),
    "truncated": (
        *("failed", "fetch", True, "573 kBps"),
        "fetch: {file} appears to be truncated: 999424/3000000 bytes",
    ),
    "tty": ("succeeded", "done", True, "578 kBps", None),
}
READING = ("listvms", "listisos", "listdisks", "issetup", "version")
CHANGING = ("fetchiso", "start", "stop")

# As column(1) makes it.
VM_LIST = """\
NAME      DATASTORE  LOADER     CPU  MEMORY  VNC           AUTO     STATE
alpine    default    grub       1    512M    -             No       Stopped
win-10.x  ssd        uefi       4    8G      0.0.0.0:5900  Yes [2]  Running (2796)
shared    default    bhyveload  2    2G      -             Yes [1]  Locked (other.example.org)
"""
IOHYVE_LIST = """\
Guest      VMM?  Running  rcboot?  Description
bsdguest   YES   YES      NO       Tue Nov 24 18:00:03 UTC 2026
obsdguest  NO    NO       YES      -
"""
# Source: lib/vm-info of vm-bhyve 1.5.
VM_INFO = """\
------------------------
Virtual Machine: alpine
------------------------
  state: stopped
  datastore: default
  loader: grub
  uuid: auto
  cpu: 1
  memory: 512M

  network-interface
    number: 0
    emulation: virtio-net
    virtual-switch: public
    fixed-mac-address: 58:9c:fc:0a:1b:2c
    fixed-device: -
    bytes-size: 9 (9.000B)

  virtual-disk
    number: 0
    device-type: file
    emulation: virtio-blk
    options: -
    system-path: /vm/alpine/disk0.img
    bytes-size: 21474836480 (20.000G)
    bytes-used: 1073741824 (1.000G)

  virtual-disk
    number: 1
    device-type: sparse-zvol
    emulation: virtio-blk
    options: a: b
    system-path: -

  virtual-disk
    number: 2
    device-type: iscsi
    emulation: virtio-blk
    options: -
    system-path: /dev/da0
    bytes-size: 512
    bytes-used: 512

  snapshots
    zroot/vm/alpine@number: 3
    bytes-size: 7 (7.000B)\t0B\tSun Nov 29 14:38 2026

"""
# As column(1) makes it of all that it says. Source: lib/ioh-disk of iohyve 0.7.
IOHYVE_DISKS = """\
Listing  disks  for  bsdguest...
diskN    Size
disk0    10G
disk1    1.50T
"""
# A script, and so a process above the one that fetches, which is told the URL first. Source:
# lib/ioh-iso of iohyve 0.7.
IOHYVE = """\
#!/bin/sh
here="${0%/*}"
case "$1" in
fetch)
    echo "Fetching $2..."
    "$here/fetch" "$2" -o "$here/isos"
    ;;
version|list|isolist|disks|start|stop)
    cat "$here/iohyve.$1"
    ;;
*)
    exit 1
    ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Site(ClassSite):
    """That of sysadm/iohyve."""

    NAME = "iohyve"

    def fetch(self, url: str) -> str:
        """Start a download; returns the job's id."""
        id: str = self.ask("fetchiso", url=url)["queueid"]
        return id

    def until_end(self, *ids: str) -> dict[str, list[dict[str, Any]]]:
        """`args` of these jobs' events, by job."""
        found: dict[str, list[dict[str, Any]]] = {id: [] for id in ids}
        left = set(ids)
        while left:
            args = self.client.event()["args"]
            id = args.get("process_id")
            if id in found:
                found[id].append(args)
                left -= {id} if args["state"] == "finished" else set()
        return found


@contextlib.contextmanager
def running(daemon: Daemon, tools: Tools) -> Generator[Site]:
    with daemon, daemon.client() as client:
        subscribe(client)
        yield Site(daemon, client, tools)


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    found = Tools(tmp_path / "tools")
    found.install("vm")
    found.install("fetch")
    return found


@pytest.fixture
def daemon(tmp_path: Path, tools: Tools) -> Daemon:
    """Never the machine's own tools: what is not installed is not there."""
    names = ("pkg", "freebsd-update", "shutdown", "vm", "iohyve")
    lines = [f'{name.replace("-", "_")} = "{tools.folder}/{name}"' for name in names]
    return Daemon(tmp_path / "state", "\n".join((QUIET, "[classes]", *lines, "")))


@pytest.fixture
def site(daemon: Daemon, tools: Tools) -> Iterator[Site]:
    with running(daemon, tools) as found:
        yield found


@pytest.fixture
def served() -> Iterator[Served]:
    """Of each case its file."""
    with Served({f"/{case}.iso": SIZE for case in (*CASES, "disc1")}) as found:
        yield found


def install_iohyve(tools: Tools) -> None:
    """And nothing else."""
    (tools.folder / "vm").unlink()
    script = tools.folder / "iohyve"
    script.write_text(IOHYVE)
    script.chmod(0o755)
    (tools.folder / "isos").mkdir()


def percents(events: Sequence[dict[str, Any]]) -> list[int]:
    """What is told of percent, twice each: as of the original, and in `progress`."""
    found = [int(args["percent_done"][:-1]) for args in events if "percent_done" in args]
    progress = [args["progress"]["percent"] for args in events if "percent_done" in args]
    assert found == progress
    return found


# fetchiso


def test_each_recording_gives_the_documented_events_and_fields(
    site: Site, served: Served
) -> None:
    jobs: dict[str, str] = {}
    for case in CASES:
        url = served.url(f"/{case}.iso")
        site.tools.play("fetch", case, when=(url,), speed=None)
        reply = site.ask("fetchiso", url=url)
        assert reply.pop("comment") == "Task Queued"
        assert reply.pop("command") == f"{site.tools.folder}/vm iso {url}"
        jobs[case] = reply.pop("queueid")
        assert re.fullmatch(FETCH + UUID, jobs[case])
        assert reply == {}
    told = site.until_end(*jobs.values())
    for case, (result, phase, named, rate, problem) in CASES.items():
        events = told[jobs[case]]
        for args in events:
            assert args["event_system"] == "sysadm/iohyve"
            assert (args["action"], args["size"]) == ("fetchiso", SIZE)
        seen = percents(events)
        assert seen == sorted(seen)
        end = events[-1]
        assert end["process_details"]["result"] == result, case
        assert end["progress"]["phase"] == phase, case
        file = f"{site.tools.isos}/{case}.iso"
        shown = file[:WIDTH] if case.endswith("tty") else file
        assert end.get("filename") == (shown if named else None), case
        assert end.get("download_rate") == rate, case
        if result == "succeeded":
            assert end["percent_done"] == "100%"
            assert end["progress"]["done"] == end["progress"]["total"] == 1
        else:
            assert end["progress"]["percent"] < 100
        url = served.url(f"/{case}.iso")
        expected = [] if problem is None else [problem.format(file=file, url=url)]
        assert end.get("problems", []) == expected, case
    assert {("HEAD", f"/{case}.iso") for case in CASES} == set(served.requests)


def test_a_download_tells_live_how_far_it_is_and_how_fast(site: Site, served: Served) -> None:
    """By its file, for into a pipe fetch says nothing: with a size in percent, and without."""
    go = site.tools.folder / "go"
    with Served({"/endless.iso": SIZE}, lengths=False) as silent:
        urls = served.url("/disc1.iso"), silent.url("/endless.iso")
        for url in urls:
            # It goes on when all was seen that is to be seen.
            site.tools.play("fetch", "piped", when=(url,), hold=(90, go))
        known, unknown = map(site.fetch, urls)
        seen: dict[str, list[dict[str, Any]]] = {known: [], unknown: []}

        def is_seen() -> bool:
            both = [seen[id][-1] if seen[id] else {} for id in seen]
            return all("download_rate" in last for last in both) and len(seen[known]) > 3

        while not is_seen():
            args = site.client.event()["args"]
            seen[args["process_id"]].append(args)
            assert args["state"] != "finished"
        go.touch()
        ends = site.until_end(known, unknown)
    live = percents(seen[known])
    assert 0 < live[-1] < 95
    assert percents(seen[unknown]) == []
    assert "size" not in seen[unknown][0]
    for id, name in ((known, "disc1"), (unknown, "endless")):
        events = seen[id] + ends[id]
        told = percents(events)
        assert told == sorted(told)
        assert told[-1] == 100
        for args in events:
            assert args.get("filename", name).removesuffix(".iso").endswith(name)
            assert RATE.fullmatch(args.get("download_rate", "1  Bps"))
        assert {args["progress"]["phase"] for args in events if "filename" in args} == {
            "fetch",
            "done",
        }
        assert ends[id][-1]["download_rate"] == "580 kBps"


def test_a_server_that_says_nothing_delays_the_reply_by_seconds_only(site: Site) -> None:
    site.tools.play("fetch", "refused", speed=None)
    id = site.fetch(REFUSED)
    end = site.until_end(id)[id][-1]
    assert end["problems"] == [f"fetch: {REFUSED}: Connection refused"]
    assert "size" not in end
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        url = f"http://127.0.0.1:{door.getsockname()[1]}/disc1.iso"
        begun = time.monotonic()
        id = site.fetch(url)
        assert time.monotonic() - begun < PATIENCE + 5
        stack.enter_context(door.accept()[0])
        assert "size" not in site.until_end(id)[id][-1]
    # It is not even asked for one that is here.
    disc = site.tools.folder / "disc 2.iso"
    disc.write_bytes(bytes(12345))
    id = site.fetch(disc.as_uri())
    assert site.until_end(id)[id][-1]["size"] == 12345


@pytest.mark.parametrize(
    "url",
    [
        *("disc1.iso", "/etc/passwd", "-o/etc/passwd", "--help", "-", "//host/disc1.iso"),
        *("scp://host/disc1.iso", "javascript:x", "http", "http:", "http://", "http:///x.iso"),
        *("http://host", "http://host/", "http:/host/x.iso", "http:x.iso", "file:x.iso"),
        *("file://", "file:///", "http://[::1/x.iso", " http://host/x.iso"),
        *("http://host/x.iso ", "http://host/a b.iso", "http://host/a\tb", "http://host/a\nb"),
        *("http://host/a\x00b", "http://host/a\x7fb", "http://host/\u00e4.iso"),
        *("http://user@host/x.iso", "http://user:secret@host/x.iso", "ftp://:@host/x.iso"),
        *("http://host/" + "x" * 2048, "ht\ntp://host/x.iso", "-http://host/x.iso"),
        *(5, ["http://host/x.iso"], {"url": "http://host/x.iso"}, True),
    ],
)
def test_what_is_no_url_to_fetch_is_refused(shared: Site, url: object) -> None:
    code, detail = shared.refused("fetchiso", url=url)
    assert code == 400
    assert "args.url" in detail
    assert "secret" not in detail
    assert shared.history() == []
    assert shared.tools.calls("vm") == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """For those who change nothing."""
    folder = tmp_path_factory.mktemp("shared")
    tools = Tools(folder / "tools")
    tools.install("vm")
    tools.install("fetch")
    config = f'{QUIET}[classes]\nvm = "{tools.folder}/vm"\n'
    with running(Daemon(folder / "state", config), tools) as found:
        yield found


def test_without_a_url_the_reply_is_the_original_one(shared: Site) -> None:
    for args in ({}, {"url": ""}, {"url": None}):
        assert shared.ask("fetchiso", **args) == {"error": "Missing required key 'url'"}
    assert shared.history() == []


PIECES = (
    *("http", "https", "ftp", "file", "HTTP", "scp", ":", "//", "/", "@", "host", "x.iso"),
    *(" ", "\n", "\t", "\x00", "\x7f", "\u00e4", "\u2028", "-o", "[", "]", "%0a", "?", "#"),
)


@given(
    st.one_of(
        st.text(),
        st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
        st.builds("{}://{}/{}".format, st.sampled_from(SCHEMES), st.text(), st.text()),
    )
)
@example("\x1fhttp://host/x.iso")
@example("file:x.iso")
def test_whatever_passes_for_a_url_is_harmless(url: str) -> None:
    try:
        assert check_url(url) == url
    except BadRequest as error:
        assert str(error).startswith("args.url")
        return
    scheme, colon, rest = url.partition(":")
    assert colon
    assert scheme.lower() in SCHEMES
    assert rest.startswith("/")
    assert rest.startswith("//") or scheme.lower() == "file"
    assert all("!" <= char <= "~" for char in url)
    assert "@" not in rest[2:].partition("/")[0]
    assert len(url) <= 2048


def test_where_only_iohyve_is_that_fetches_and_a_kill_reaches_all(
    daemon: Daemon, tools: Tools, served: Served
) -> None:
    install_iohyve(tools)
    url, held = served.url("/disc1.iso"), served.url("/tty.iso")
    go = tools.folder / "go"
    tools.play("fetch", "piped", when=(url,), speed=None)
    tools.play("fetch", "piped", when=(held,), speed=None, hold=(30, go))
    with running(daemon, tools) as site:
        reply = site.ask("fetchiso", url=url)
        assert reply["command"] == f"{tools.folder}/iohyve fetch {url}"
        id = reply["queueid"]
        end = site.until_end(id)[id][-1]
        assert end["process_details"]["result"] == "succeeded"
        assert end["filename"] == f"{tools.folder}/isos/disc1.iso"
        assert (end["percent_done"], end["download_rate"]) == ("100%", "580 kBps")
        assert (tools.folder / "isos" / "disc1.iso").stat().st_size == SIZE
        id = site.fetch(held)
        part = tools.folder / "isos" / "tty.iso"
        wait_for(lambda: part.exists() and part.stat().st_size, "a part of the file")
        begun = members(daemon.state_dir)
        assert {process.pid for process in begun} >= {tools.calls("fetch")[-1].pid}
        assert len(begun) == 2
        kill = {"action": "kill", "job_id": id}
        assert site.client.ask("rpc", "dispatcher", kill) == {"killed": {"jobs": [id]}}
        end = site.until_end(id)[id][-1]
        assert end["process_details"]["result"] == "killed"
        assert end["progress"]["percent"] < 100
        assert end["filename"] == str(part)
        # That is the end of the leader's; the kill goes on with the others.
        wait_for(lambda: not any(runs(process) for process in begun), "the end of all")


def test_what_iohyve_does_not_fetch_is_a_problem_though_it_exits_well(
    daemon: Daemon, tools: Tools
) -> None:
    install_iohyve(tools)
    text = "cannot fetch ISO: ISO with that name already exists"
    (tools.folder / "iohyve").write_text(f"#!/bin/sh\necho '{text}'\n")
    with running(daemon, tools) as site:
        id = site.fetch(REFUSED)
        assert site.until_end(id)[id][-1]["problems"] == [text]


def test_a_download_goes_on_when_the_daemon_is_killed(site: Site, served: Served) -> None:
    go = site.tools.folder / "go"
    site.tools.play("fetch", "piped", speed=2.0, hold=(90, go))
    id = site.fetch(served.url("/disc1.iso"))
    frames = site.client.until(lambda event: "percent_done" in event["args"])
    site.daemon.kill()
    site.daemon.start()
    with site.daemon.client() as client:
        subscribe(client, frames[-1]["cursor"])
        go.touch()
        frames += client.until(lambda event: event["args"].get("state") == "finished")
    for before, after in itertools.pairwise(frames):
        assert after["prev"] == before["cursor"]
    events = [frame["args"] for frame in frames]
    seen = percents(events)
    assert seen == sorted(seen)
    assert 0 < seen[0] < 95
    end = events[-1]
    assert end["process_id"] == id
    assert end["process_details"]["result"] == "succeeded"
    assert end["filename"] == f"{site.tools.isos}/disc1.iso"
    assert (end["percent_done"], end["download_rate"]) == ("100%", "580 kBps")
    assert end["progress"]["done"] == end["progress"]["total"] == 1
    assert "problems" not in end
    assert len(site.tools.calls("fetch")) == 1


def test_the_original_client_is_told_in_its_own_words(site: Site, served: Served) -> None:
    go, url = site.tools.folder / "go", served.url("/disc1.iso")
    at = recording("fetch", "tty").before(" 64% of")
    site.tools.play("fetch", "tty", speed=None, hold=(at, go))
    with site.daemon.stranger() as client:
        client.documented = False
        identify = {"namespace": "rpc", "name": "identify", "id": "sysadm_client_identify"}
        client.socket.send(json.dumps(identify))
        client.receive()
        client.ask("rpc", "auth_token", {"token": site.daemon.token})
        client.ask("events", "subscribe", ["dispatcher"])
        reply = client.ask("sysadm", "iohyve", {"action": "fetchiso", "url": url})["fetchiso"]
        frames = client.until(lambda event: "percent_done" in event["args"])
        go.touch()
        frames += client.until(lambda event: event["args"]["state"] == "finished")
        missing = client.ask("sysadm", "iohyve", {"action": "fetchiso"})
        assert missing == {"fetchiso": {"error": "Missing required key 'url'"}}
    text = f"{site.tools.folder}/vm iso {url}"
    # A notice as of any job, then what the class tells of its start.
    notice = frames.pop(1)
    assert notice["args"] == {"process_id": reply["queueid"], "state": "running"}
    for frame in frames:
        assert set(frame) == {"namespace", "name", "id", "args"}
        assert (frame["namespace"], frame["name"], frame["id"]) == ("events", "dispatcher", "")
        args = frame["args"]
        assert args["event_system"] == "sysadm/iohyve"
        assert "process_id" not in args
        details = args["process_details"]
        assert (details["process_id"], details["state"]) == (reply["queueid"], args["state"])
        assert not details.keys() & {"commands", "result"}
    pending, start, *middle, end = (frame["args"] for frame in frames)
    states = [args["state"] for args in (pending, start, *middle, end)]
    assert states == ["pending", "running", *["running"] * len(middle), "finished"]
    details = {"state": "pending", "process_id": reply["queueid"], "cmd_list": [text]}
    assert pending["process_details"] == details
    assert start["process_details"]["current_cmd"] == text
    live = next(args for args in middle if "percent_done" in args)
    file = f"{site.tools.isos}/disc1.iso"[:WIDTH]
    told = {key: live[key] for key in ("filename", "percent_done", "download_rate")}
    assert told == {"filename": file, "percent_done": "44%", "download_rate": "576 kBps"}
    told = {key: end[key] for key in ("filename", "percent_done", "download_rate")}
    assert told == {"filename": file, "percent_done": "100%", "download_rate": "578 kBps"}
    for key in ("time_started", "time_finished"):
        assert LOCAL_TIME.fullmatch(end["process_details"][key])
    assert end["process_details"][f"return_codes/{text}"] == "0"


# Questions, machines on and off


def test_machines_and_images_are_listed_by_vm(site: Site) -> None:
    site.tools.say("vm", VM_LIST, when=("list",))
    found = site.ask("listvms")
    assert list(found) == ["alpine", "win-10.x", "shared"]
    assert found["win-10.x"] == {
        **{"datastore": "ssd", "loader": "uefi", "cpu": "4", "memory": "8G"},
        **{"vnc": "0.0.0.0:5900", "state": "Running (2796)", "description": ""},
        **{"rcboot": "YES", "running": "YES", "vmm": "YES"},
    }
    alpine, shared = found["alpine"], found["shared"]
    assert (alpine["state"], alpine["running"], alpine["rcboot"]) == ("Stopped", "NO", "NO")
    assert shared["state"] == "Locked (other.example.org)"
    assert (shared["running"], shared["rcboot"]) == ("NO", "YES")
    site.tools.say("vm", VM_LIST.splitlines()[0] + "\n", when=("list",))
    assert site.ask("listvms") == {}
    site.tools.say("vm", "", when=("list",))
    assert site.ask("listvms") == {}
    assert site.ask("listisos") == []
    for name in ("disc1.iso", "FreeBSD-15.0-RELEASE-amd64-disc1.iso"):
        (site.tools.isos / name).touch()
    isos = ["FreeBSD-15.0-RELEASE-amd64-disc1.iso", "disc1.iso"]
    assert site.ask("listisos") == isos
    text = "vm-bhyve: Bhyve virtual machine management v1.6-devel (rev. 106001)"
    site.tools.say("vm", text + "\nmore\n", when=("version",))
    assert site.ask("version") == {"version": text}
    site.tools.say("vm", "vm: ERROR: $vm_enable is not enabled in /etc/rc.conf!\n", rc=1)
    for action in ("listvms", "listisos", "version"):
        code, detail = site.refused(action)
        assert (code, "not enabled" in detail) == (503, True)


def test_machines_and_images_are_listed_by_iohyve(daemon: Daemon, tools: Tools) -> None:
    install_iohyve(tools)
    said = {
        "list": IOHYVE_LIST,
        "isolist": "Listing ISO's...\ndisc1.iso\nfbsd10.iso\n",
        "version": "iohyve v0.7.9 2018/06/20 Bear Facts Edition\n",
        "start": "Starting bsdguest... (Takes 15 seconds for FreeBSD guests)\n",
    }
    for action, text in said.items():
        (tools.folder / f"iohyve.{action}").write_text(text)
    with running(daemon, tools) as site:
        assert site.ask("listvms") == {
            "bsdguest": {
                **{"vmm": "YES", "running": "YES", "rcboot": "NO"},
                "description": "Tue Nov 24 18:00:03 UTC 2026",
            },
            "obsdguest": {"vmm": "NO", "running": "NO", "rcboot": "YES", "description": "-"},
        }
        assert site.ask("listisos") == ["disc1.iso", "fbsd10.iso"]
        # As newer ones have it.
        newer = "NAME        SIZE\ndisc1.iso   700M\nfbsd10.iso  1.2G\n"
        (tools.folder / "iohyve.isolist").write_text(newer)
        assert site.ask("listisos") == ["disc1.iso", "fbsd10.iso"]
        (tools.folder / "iohyve.isolist").write_text("NAME  SIZE\n")
        assert site.ask("listisos") == []
        assert site.ask("version") == {"version": said["version"].strip()}
        assert site.ask("start", name="bsdguest") == {"name": "bsdguest"}
        assert "iohyve.stop" in site.ask("stop", name="bsdguest")["error"]


def test_disks_are_listed_by_vm(site: Site) -> None:
    site.tools.say("vm", VM_INFO, when=("info",))
    assert site.ask("listdisks", name="alpine") == {
        "disk0": "20.000G",
        "disk1": "-",
        "disk2": "512",
    }
    assert site.tools.calls("vm")[-1].argv == ("vm", "info", "alpine")
    site.tools.say("vm", VM_INFO.partition("  virtual-disk")[0], when=("info",))
    assert site.ask("listdisks", name="alpine") == {}
    said = "vm: ERROR: unable to locate virtual machine 'no'\n"
    site.tools.say("vm", said, rc=1, when=("info",))
    assert site.ask("listdisks", name="no") == {"error": said.strip()}
    calls = len(site.tools.calls("vm"))
    for args in ({}, {"name": "-a"}, {"name": ["a"]}, {"name": "a b"}):
        assert site.refused("listdisks", **args)[0] == 400
    assert len(site.tools.calls("vm")) == calls


def test_disks_are_listed_by_iohyve(daemon: Daemon, tools: Tools) -> None:
    install_iohyve(tools)
    with running(daemon, tools) as site:
        (tools.folder / "iohyve.disks").write_text(IOHYVE_DISKS)
        assert site.ask("listdisks", name="bsdguest") == {"disk0": "10G", "disk1": "1.50T"}
        (tools.folder / "iohyve.disks").write_text("Listing disks for x...\ndiskN  Size\n")
        assert site.ask("listdisks", name="bsdguest") == {}
        (tools.folder / "iohyve.disks").write_text("Not a valid guest name\n")
        assert site.ask("listdisks", name="no") == {"error": "Not a valid guest name"}
        # It has no word for that: what its set-up makes is looked for.
        (tools.folder / "iohyve.list").write_text(IOHYVE_LIST)
        assert site.ask("issetup") == {"setup": str(Path("/iohyve/ISO").is_dir()).lower()}


def test_whether_vm_is_set_up_is_told(site: Site) -> None:
    site.tools.say("vm", VM_LIST, when=("list",))
    assert site.ask("issetup") == {"setup": "true"}
    for said in (
        "$vm_enable is not enabled in /etc/rc.conf!",
        "$vm_dir has not been configured or is not a valid directory",
    ):
        site.tools.say("vm", f"vm: ERROR: {said}\n", rc=1, when=("list",))
        assert site.ask("issetup") == {"setup": "false"}
    said = "vm: ERROR: virtual machines can only be managed by root"
    site.tools.say("vm", said + "\n", rc=1, when=("list",))
    assert site.refused("issetup") == (503, said)


@given(st.text() | st.lists(st.sampled_from(VM_INFO.splitlines())).map("\n".join))
@example(VM_INFO)
@example(IOHYVE_DISKS)
def test_any_text_has_disks_or_none(text: str) -> None:
    assert all(key.startswith("disk") for key in vm_disks(text))
    found = iohyve_disks(text)
    assert found is None or all(found.values())


def test_a_machine_is_turned_on_and_off_by_its_name(site: Site) -> None:
    site.tools.say("vm", "Starting win-10.x\n", when=("start",))
    assert site.ask("start", name="win-10.x") == {"name": "win-10.x"}
    site.tools.say("vm", "", when=("stop",))
    assert site.ask("stop", name="win-10.x") == {"name": "win-10.x"}
    site.tools.say("vm", "vm: ERROR: no does not seem to be one\n", rc=1, when=("no",))
    for action in ("start", "stop"):
        assert site.ask(action, name="no") == {"error": "vm: ERROR: no does not seem to be one"}
    calls = [call.argv for call in site.tools.calls("vm")]
    assert calls == [
        ("vm", "start", "win-10.x"),
        ("vm", "stop", "win-10.x"),
        ("vm", "start", "no"),
        ("vm", "stop", "no"),
    ]
    bad: list[object] = [
        "",
        "-f",
        "a b",
        "../x",
        "a/b",
        ".a",
        "a\n",
        "a;b",
        "\u00e4",
        "x" * 230,
    ]
    bad += [1, ["a"], None]
    for action in ("start", "stop"):
        for name in bad:
            assert site.refused(action, name=name)[0] == 400, name
        assert site.refused(action)[0] == 400
    assert len(site.tools.calls("vm")) == len(calls)
    trail = site.client.trail()
    for text in ("start", "stop"):
        for name in ("win-10.x", "no"):
            wanted = f"{text} virtual machine {name}"
            assert sum(entry.endswith(wanted) for entry in trail) == 1
    assert sum(" virtual machine " in entry for entry in trail) == 4


# Who may, and is it there


def test_without_its_tools_there_is_no_such_class(daemon: Daemon, tools: Tools) -> None:
    (tools.folder / "vm").unlink()
    with running(daemon, tools) as site:
        assert "sysadm/iohyve" not in site.client.ask("rpc", "query")
        for action in (*READING, *CHANGING):
            code, detail = site.refused(action, name="a", url=REFUSED)
            assert (code, "vm-bhyve" in detail) == (404, True)
        assert site.history() == []


def test_who_is_limited_may_only_look(site: Site) -> None:
    site.tools.say("vm", VM_LIST)
    for role in ("limited", "read"):
        add = {"action": "add", "name": role, "role": role}
        token = site.client.ask("rpc", "tokens", add)["token"]
        with site.daemon.stranger() as client:
            client.ask("rpc", "auth_token", {"token": token})
            for action in (*READING, *CHANGING):
                args = {"action": action, "name": "alpine", "url": REFUSED}
                frame = client.ask_raw("sysadm", "iohyve", args)
                if role == "limited" and action in READING:
                    assert frame["name"] == "response", frame
                else:
                    assert frame["args"]["code"] == 403
            listed = client.ask("rpc", "query").get("sysadm/iohyve")
            assert listed == ("read" if role == "limited" else None)
    assert site.client.ask("rpc", "query")["sysadm/iohyve"] == "read/write"
    asked = {call.argv[1] for call in site.tools.calls("vm")}
    assert asked == {"list", "iso", "info", "version"}
    assert site.history() == []
    site.tools.play("fetch", "refused", speed=None)
    site.until_end(site.fetch(REFUSED))
    assert any(text.endswith(f"vm iso {REFUSED}") for text in site.client.trail())
