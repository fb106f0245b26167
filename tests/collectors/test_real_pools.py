"""Pools of zfs-fuse, as an admin hears of them; a host that is renamed; a zpool that hangs."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kit import Daemon, needs_root, wait_for
from tests.kit.pools import Zpool, next_state, watching


def test_a_pool_is_followed_from_its_first_day_to_its_last(
    zfs_fuse: Zpool, mirror: str, tmp_path: Path
) -> None:
    with Daemon(tmp_path / "state", watching()) as daemon, daemon.client() as client:
        wait_for(lambda: current(daemon), "the first reading")
        client.ask("events", "subscribe", "system-state")
        pool = client.event()["args"]["zpools"][mirror]
        assert pool["health"] == "ONLINE"
        assert pool["frag"] == pool["expandsz"] == "-"
        assert pool["priority"] == "0/Information"
        zfs_fuse("offline", mirror, str(tmp_path / "a"))
        state = next_state(client, lambda args: health(args, mirror) == "DEGRADED")
        assert state["priority"] == "9/Urgent"
        assert state["zpools"][mirror]["vdevs"]
        zfs_fuse("online", mirror, str(tmp_path / "a"))
        better = next_state(client, lambda args: health(args, mirror) == "ONLINE")
        assert better["zpools"][mirror]["priority"] == "0/Information"
        zfs_fuse.destroy(mirror)
        gone = next_state(client, lambda args: "vanished" in args)
        assert gone["vanished"] == [mirror]
        assert gone["priority"] == "6/Critical"


@pytest.mark.long
def test_a_pool_that_fills_up_and_one_whose_disk_rots_are_told(
    zfs_fuse: Zpool, mirror: str, tmp_path: Path
) -> None:
    settings = watching().replace("timeout = 1", "timeout = 10")
    with Daemon(tmp_path / "state", settings) as daemon, daemon.client() as client:
        wait_for(lambda: current(daemon), "the first reading")
        client.ask("events", "subscribe", "system-state")
        with contextlib.suppress(OSError), Path(f"/{mirror}/fill").open("wb") as out:
            while True:
                out.write(os.urandom(2**20))
        full = next_state(
            client,
            lambda args: args["zpools"].get(mirror, {}).get("priority") == "6/Critical",
        )
        assert int(full["zpools"][mirror]["capacity"].rstrip("%")) > 90
        with (tmp_path / "a").open("r+b") as disk:
            # Behind the labels, in the middle of the data.
            disk.seek(64 * 2**20)
            disk.write(os.urandom(2**20))
        zfs_fuse("scrub", mirror)
        rotten = next_state(client, lambda args: bool(rot(args, mirror)))
        assert rotten["priority"] == "6/Critical"
        assert rot(rotten, mirror)["name"] == str(tmp_path / "a")


def health(args: dict[str, Any], pool: str) -> str | None:
    found: str | None = args["zpools"].get(pool, {}).get("health")
    return found


def rot(args: dict[str, Any], pool: str) -> dict[str, Any]:
    """The device with checksum errors, if there is one."""
    vdevs: list[dict[str, Any]] = args["zpools"].get(pool, {}).get("vdevs", [])
    nothing: dict[str, Any] = {}
    return next((v for v in vdevs if v["cksum"] != "0"), nothing)


def current(daemon: Daemon) -> bool:
    with daemon.client() as client:
        args = {"systems": ["system-state"], "snapshot": True}
        client.ask("events", "subscribe", args)
        state = client.event()["args"]["system_state"]
        return bool(state and state["zpools"])


def test_a_pool_that_vanished_while_the_daemon_was_down_is_told_at_its_start(
    zfs_fuse: Zpool, mirror: str, tmp_path: Path
) -> None:
    daemon = Daemon(tmp_path / "state", watching())
    with daemon:
        wait_for(lambda: current(daemon), "the first reading")
        daemon.kill()
        zfs_fuse.destroy(mirror)
        daemon.start()
        with daemon.client() as client:
            client.ask("events", "subscribe", {"systems": ["system-state"], "since": "oldest"})
            assert next_state(client, lambda args: "vanished" in args)["vanished"] == [mirror]


def test_a_host_that_is_renamed_is_told_with_its_old_name(tmp_path: Path) -> None:
    needs_root("unshare", "nsenter")
    wrapper = ("unshare", "-u", "--")
    settings = watching(enabled="false", hostname="true")
    with Daemon(tmp_path / "state", settings, wrapper=wrapper) as daemon:

        def rename(name: str) -> None:
            inside = ["nsenter", "-t", str(daemon.pid), "-u", "hostname", name]
            subprocess.run(inside, check=True)

        with daemon.client() as client:
            rename("before")
            client.ask("events", "subscribe", {"systems": ["system-state"], "since": "oldest"})
            next_state(client, lambda args: args["hostname"] == "before")
            rename("after")
            state = next_state(client, lambda args: args["hostname"] == "after")
            assert state["hostnamechanged"] == "true"
            assert state["previous_hostname"] == "before"
            assert state["priority"] == "3/Warning"
        daemon.kill()
        # A new namespace has the machine's own name: it changed while nobody looked.
        daemon.start()
        with daemon.client() as client:
            client.ask("events", "subscribe", {"systems": ["system-state"], "since": "oldest"})
            state = next_state(client, lambda a: a.get("previous_hostname") == "after")
            assert state["hostname"] != "after"


@pytest.mark.long
@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("exit 3", "exit status 3"),
        ("echo no such luck >&2; exit 1", "no such luck"),
        ("trap '' TERM; sleep 60", "does not answer"),
        (r"printf '\377\376\n'", "can't be read"),
        ("head -c 20000000 /dev/zero | tr '\\0' x", "can't be read"),
    ],
)
def test_a_zpool_in_trouble_is_told_once(tmp_path: Path, script: str, error: str) -> None:
    stand_in = tmp_path / "zpool"
    stand_in.write_text(f"#!/bin/sh\n{script}\n")
    stand_in.chmod(0o755)
    settings = watching(str(stand_in))
    if "sleep" not in script:
        # It takes what time it needs.
        settings = settings.replace("timeout = 1", "timeout = 30")
    with Daemon(tmp_path / "state", settings) as daemon, daemon.client() as client:
        client.ask("events", "subscribe", {"systems": ["system-state"], "since": "oldest"})
        assert error in next_state(client, lambda args: "error" in args)["error"]
        stand_in.unlink()
        gone = next_state(client, lambda args: "not found" in args.get("error", ""))
        assert gone["zpools"] == {}
        assert client.ask("rpc", "identify")["type"] == "server"
        assert not [e for e in client.events if e["name"] == "system_state"]


def test_a_machine_without_zpool_is_said_once_and_is_no_trouble(tmp_path: Path) -> None:
    missing, before = tmp_path / "zpool", ASKED.format(str(tmp_path))
    settings = watching(str(missing), enabled='"auto"')
    with Daemon(tmp_path / "state", settings, before=before) as daemon:
        wait_for(lambda: "pools are not watched" in daemon.log.read_text(), "the log line")
        with daemon.client() as client:
            client.ask("events", "subscribe", {"systems": ["system-state"], "since": "oldest"})
            missing.write_text("#!/bin/sh\nexit 1\n")
            missing.chmod(0o755)
            # It was seen: from now on it counts.
            assert "exit status 1" in next_state(client, lambda args: "error" in args)["error"]
        assert daemon.log.read_text().count("pools are not watched") == 1


# As where a kernel has ZFS when this file is there, and zpool would load it.
ASKED = (
    "import collectors.zpool_query as q, pathlib; q.kernel_has_zfs = pathlib.Path({!r}).exists"
)


def test_what_the_kernel_does_not_have_is_not_asked_for(tmp_path: Path) -> None:
    zpool, kernel, asked = tmp_path / "zpool", tmp_path / "kernel", tmp_path / "asked"
    one_pool(zpool, f"touch {asked}")
    settings = watching(str(zpool), enabled='"auto"')
    before = ASKED.format(str(kernel))
    with (
        Daemon(tmp_path / "state", settings, before=before) as daemon,
        daemon.client() as client,
    ):
        wait_for(lambda: "kernel has no ZFS" in daemon.log.read_text(), "the log line")
        client.ask("events", "subscribe", {"systems": ["system-state"], "since": "oldest"})
        assert not asked.exists()
        kernel.touch()
        assert list(next_state(client, lambda args: True)["zpools"]) == ["tank"]
        kernel.unlink()
        # By now its pools are missed.
        gone = next_state(client, lambda args: "error" in args)
        assert "kldload zfs" in gone["error"]
        assert list(gone["zpools"]) == ["tank"]
        kernel.touch()
        assert "error" not in next_state(client, lambda args: True)
        assert daemon.log.read_text().count("pools are not watched") == 1


def test_a_zpool_that_is_enabled_is_asked_whatever_the_kernel_has(tmp_path: Path) -> None:
    zpool = tmp_path / "zpool"
    one_pool(zpool)
    before = ASKED.format(str(tmp_path / "nothing"))
    with (
        Daemon(tmp_path / "state", watching(str(zpool)), before=before) as daemon,
        daemon.client() as client,
    ):
        client.ask("events", "subscribe", "system-state")
        assert list(client.event()["args"]["zpools"]) == ["tank"]


ROW = r"{name}\t1G\t1M\t1023M\t0%\t-\t1.00x\t-\t0%\t{health}\n"


def one_pool(zpool: Path, before: str = "") -> None:
    """A stand-in that has one pool that is well, after `before`."""
    row = ROW.format(name="tank", health="ONLINE").replace("%", "%%")
    zpool.write_text(f"#!/bin/sh\n{before}\n[ $1 = status ] || printf '{row}'\n")
    zpool.chmod(0o755)


def test_the_state_is_known_when_the_daemon_is_ready(tmp_path: Path) -> None:
    zpool = tmp_path / "zpool"
    one_pool(zpool, "sleep 0.2")
    settings = watching(str(zpool), hostname="true")
    with Daemon(tmp_path / "state", settings) as daemon, daemon.client() as client:
        client.ask("events", "subscribe", "system-state")
        state = client.event()["args"]
        assert (state["hostname"], list(state["zpools"])) == (socket.gethostname(), ["tank"])
        with daemon.client() as other:
            since = {"systems": ["system-state"], "since": "oldest"}
            # That all is well is no news.
            assert other.ask("events", "subscribe", since)["cursor"].endswith(":0:0.0.0")


@pytest.mark.parametrize("late", ["the answer", "the command"])
def test_pools_that_are_first_read_later_have_appeared(tmp_path: Path, late: str) -> None:
    zpool, go = tmp_path / "zpool", tmp_path / "go"
    if late == "the answer":
        one_pool(zpool, f"until [ -e {go} ]; do sleep 0.02; done")
    settings = watching(str(zpool), enabled='"auto"', hostname="true")
    settings = settings.replace("timeout = 1", "timeout = 60")
    impatient = (
        f"{ASKED.format(str(tmp_path))}; import collectors.zpool as z; z.FIRST_ANSWER = 0.1"
    )
    with (
        Daemon(tmp_path / "state", settings, before=impatient) as daemon,
        daemon.client() as client,
    ):
        client.ask("events", "subscribe", "system-state")
        assert client.event()["args"]["zpools"] == {}
        go.touch()
        if late == "the command":
            one_pool(zpool)
        assert list(next_state(client, lambda args: True)["zpools"]) == ["tank"]


def test_colours_and_bad_bytes_make_no_news(tmp_path: Path) -> None:
    stand_in, answers = tmp_path / "zpool", tmp_path / "answers"
    answers.mkdir()
    stand_in.write_text(f'#!/bin/sh\nexec cat {answers}/"$1"\n')
    stand_in.chmod(0o755)

    def answer(what: str, text: str) -> None:
        new = answers / "new"
        new.write_bytes(text.encode("latin-1").decode("unicode_escape").encode("latin-1"))
        new.rename(answers / what)

    red = ROW.format(name="tank", health=r"\x1b[31mDEGRADED\x1b[0m")
    answer("list", red)
    end = r"\nerrors: No known data errors\n"
    head = r"  pool: tank\nconfig:\n\n\tNAME    STATE     READ WRITE CKSUM\n"
    answer(
        "status",
        head + r"\tsda     \x1b[31mFAULTED\x1b[0m      1     2     3  too many\n" + end,
    )
    with (
        Daemon(tmp_path / "state", watching(str(stand_in))) as daemon,
        daemon.client() as client,
    ):
        client.ask("events", "subscribe", {"systems": ["system-state"], "since": "oldest"})
        first = next_state(client, lambda args: "tank" in args["zpools"])
        assert health(first, "tank") == "DEGRADED"
        assert [v["name"] for v in first["zpools"]["tank"]["vdevs"]] == ["sda"]
        answer("list", red + r"b\xff\xfed\t\x1b]0;x\x07\n")
        odd = next_state(client, lambda args: True)
        assert "can't be read: b\ufffd\ufffdd" in odd["error"]
        assert odd["zpools"] == first["zpools"]
        answer("list", red)
        over = next_state(client, lambda args: True)
        assert "error" not in over
        assert over["zpools"] == first["zpools"]
