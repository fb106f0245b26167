"""The two answers of `zpool`, by a stand-in that says what it is told."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from collectors.zpool_output import COLUMNS
from tests.kit import Client, Daemon, wait_for
from tests.kit.pools import next_state, watching

SCRIPT = """#!/bin/sh
cd {directory} || exit 9
[ "$1" = events ] && exec sleep 600
echo "$*" >> calls
[ -e "$1.sh" ] && . "./$1.sh"
[ -e "$1" ] && exec cat "$1"
exit 0
"""
DASHES = "\t".join("-" * (1 + len(COLUMNS))) + "\n"
STATUS = """  pool: {name}
 state: ONLINE
config:

\tNAME        STATE     READ WRITE CKSUM
\t{name:<10}  ONLINE       0     0     0
\t  sda       {sda}     0     0
\t  sdb       ONLINE       0     0     0

errors: {errors}
"""
WELL = "ONLINE       0"
FAULTED = "FAULTED      7"


def row(name: str, health: str = "ONLINE") -> str:
    return "\t".join((name, "1G", "1M", "1023M", "0%", "-", "1.00x", "-", "0%", health)) + "\n"


def status(name: str, sda: str = WELL, errors: str = "No known data errors") -> str:
    return STATUS.format(name=name, sda=sda, errors=errors)


class Said:
    """A `zpool` that says this."""

    def __init__(self, directory: Path) -> None:
        """directory: for all that is its own."""
        self.directory = directory
        directory.mkdir()
        self.command = directory / "zpool"
        self.put("zpool", SCRIPT.format(directory=directory))

    def put(self, name: str, text: str | None) -> None:
        """`list`, `status`: what is printed; `list.sh`: what is done before; None: nothing."""
        if text is None:
            (self.directory / name).unlink(missing_ok=True)
            return
        new = self.directory / "new"
        new.write_text(text)
        new.chmod(0o755)
        new.rename(self.directory / name)

    def calls(self, word: str) -> int:
        """How often it was asked so."""
        try:
            lines = (self.directory / "calls").read_text().splitlines()
        except FileNotFoundError:
            return 0
        return sum(line.split()[0] == word for line in lines)

    def looks(self, count: int) -> None:
        """Until it has been looked at so many more times, and the last one has ended."""
        enough = self.calls("list") + count + 1
        wait_for(lambda: self.calls("list") >= enough, f"{count} looks")


@pytest.fixture
def zpool(tmp_path: Path) -> Said:
    return Said(tmp_path / "said")


@contextlib.contextmanager
def watched(zpool: Said, state: Path) -> Generator[tuple[Daemon, Client]]:
    """A daemon that asks it, and a client that hears all that it tells."""
    settings = watching(str(zpool.command)).replace("timeout = 1", "timeout = 30")
    with Daemon(state, settings) as daemon, daemon.client() as client:
        client.ask("events", "subscribe", {"systems": ["system-state"], "since": "oldest"})
        yield daemon, client


def anything(client: Client) -> dict[str, Any]:
    """The next event."""
    return next_state(client, lambda args: True)


def test_a_status_that_fails_keeps_no_pool_that_is_gone(zpool: Said, tmp_path: Path) -> None:
    zpool.put("list", row("a") + row("b"))
    zpool.put("status", status("a", FAULTED))
    with watched(zpool, tmp_path / "state") as (_, client):
        devices = anything(client)["zpools"]["a"]["vdevs"]
        zpool.put("status.sh", "echo no ioctl >&2; exit 1")
        failing = anything(client)
        assert failing["error"].endswith("zpool status: no ioctl")
        assert failing["zpools"]["a"]["vdevs"] == devices
        zpool.put("list", row("a", "DEGRADED"))
        gone = anything(client)
        assert (gone["vanished"], list(gone["zpools"])) == (["b"], ["a"])
        assert gone["zpools"]["a"]["health"] == "DEGRADED"
        assert gone["zpools"]["a"]["vdevs"] == devices
        zpool.put("status.sh", None)
        assert "error" not in anything(client)


def test_a_list_that_fails_keeps_no_news_of_devices_back(zpool: Said, tmp_path: Path) -> None:
    zpool.put("list", row("a"))
    zpool.put("status", status("a"))
    with watched(zpool, tmp_path / "state") as (_, client):
        zpool.looks(1)
        zpool.put("list.sh", "exit 7")
        failing = anything(client)
        assert failing["error"].endswith("zpool list: exit status 7")
        zpool.put("status", status("a", FAULTED))
        sick = anything(client)
        assert "error" in sick
        assert [vdev["name"] for vdev in sick["zpools"]["a"]["vdevs"]] == ["sda"]


def test_a_failure_is_told_once_however_it_is_worded(zpool: Said, tmp_path: Path) -> None:
    zpool.put("list", row("a"))
    zpool.put(
        "list.sh",
        "n=$(wc -l < calls); case $((n % 2)) in 0) echo gone since $n s >&2;; esac;"
        " exit $((n % 200 + 20))",
    )
    with watched(zpool, tmp_path / "state") as (daemon, client):
        zpool.looks(5)
        # Two kinds, in turn.
        errors = [anything(client)["error"] for _ in range(2)]
        assert any("gone since" in error for error in errors)
        assert any("exit status" in error for error in errors)
        zpool.put("list.sh", None)
        assert "error" not in anything(client)
        assert daemon.log.read_text().count("pools can't be read") == 2


@pytest.mark.parametrize("said", ["other", status("b"), status("a")[:120]])
def test_a_status_that_does_not_speak_of_a_pool_is_trouble_and_keeps_what_is_known(
    zpool: Said, tmp_path: Path, said: str
) -> None:
    zpool.put("list", row("a"))
    zpool.put("status", status("a", FAULTED, "2 data errors, use '-v' for a list"))
    with watched(zpool, tmp_path / "state") as (_, client):
        sick = anything(client)["zpools"]["a"]
        zpool.put("status", said)
        blind = anything(client)
        assert "zpool status gave" in blind["error"]
        assert blind["zpools"]["a"]["vdevs"] == sick["vdevs"]
        assert blind["zpools"]["a"]["data_errors"] == 2
        zpool.put("status", status("a"))
        well = anything(client)
        assert "error" not in well
        assert "vdevs" not in well["zpools"]["a"]


def test_a_list_of_nothing_that_complains_is_no_empty_one(zpool: Said, tmp_path: Path) -> None:
    zpool.put("list", row("a"))
    zpool.put("status", status("a", FAULTED))
    with watched(zpool, tmp_path / "state") as (_, client):
        anything(client)
        zpool.put("list", "")
        zpool.put("list.sh", "echo 'cannot open: pool I/O is suspended' >&2")
        silent = anything(client)
        assert "pool I/O is suspended" in silent["error"]
        assert set(silent["zpools"]) == {"a"}
        assert "vanished" not in silent
        zpool.put("list.sh", None)
        assert anything(client)["vanished"] == ["a"]


@pytest.mark.parametrize("text", ["", "\x7fELF", "\0garbage", "#!/nowhere/sh\n"])
def test_a_zpool_that_can_not_be_run_is_trouble(zpool: Said, tmp_path: Path, text: str) -> None:
    zpool.put("list", row("a"))
    zpool.put("status", status("a", FAULTED))
    with watched(zpool, tmp_path / "state") as (daemon, client):
        anything(client)
        zpool.put("zpool", text)
        next_state(client, lambda args: "zpool can't be run: " in args.get("error", ""))
        zpool.put("zpool", SCRIPT.format(directory=zpool.directory))
        assert "error" not in anything(client)
        assert "Traceback" not in daemon.log.read_text()


def test_lines_of_noise_are_one_trouble(zpool: Said, tmp_path: Path) -> None:
    zpool.put("list", row("a"))
    zpool.put("list.sh", "head -c 300 /dev/urandom | tr -d '[:alpha:]'; echo")
    zpool.put("status", status("a"))
    with watched(zpool, tmp_path / "state") as (daemon, client):
        zpool.looks(5)
        assert "can't be read" in anything(client)["error"]
        assert daemon.log.read_text().count("pools can't be read") == 1


def test_rows_of_dashes_are_pools_that_do_not_answer(zpool: Said, tmp_path: Path) -> None:
    zpool.put("list", row("a") + row("b"))
    zpool.put("status", status("a"))
    with watched(zpool, tmp_path / "state") as (_, client):
        zpool.looks(1)
        zpool.put("list", DASHES + DASHES)
        silent = anything(client)
        assert "nothing but dashes" in silent["error"]
        assert "vanished" not in silent
        assert set(silent["zpools"]) == {"a", "b"}
        zpool.put("list", row("b"))
        assert anything(client)["vanished"] == ["a"]


def test_a_row_of_dashes_beside_pools_is_told_if_it_stays(zpool: Said, tmp_path: Path) -> None:
    zpool.put("list", row("a") + row("b"))
    zpool.put("status", status("a"))
    with watched(zpool, tmp_path / "state") as (_, client):
        zpool.looks(1)
        # Once: a pool that went away while it was listed.
        once = f'[ -e seen ] || {{ touch seen; printf "{row("b")}{DASHES}"; exit 0; }}'
        zpool.put("list.sh", once.replace("%", "%%"))
        zpool.put("list", row("b"))
        gone = anything(client)
        assert (gone["vanished"], "error" in gone) == (["a"], False)
        zpool.put("list", row("b") + DASHES)
        stays = anything(client)
        assert "nothing but dashes" in stays["error"]
        assert list(stays["zpools"]) == ["b"]


def test_devices_in_a_table_of_another_shape_are_told_or_it_is_said(
    zpool: Said, tmp_path: Path
) -> None:
    zpool.put("list", row("a"))
    zpool.put("status", status("a"))
    with watched(zpool, tmp_path / "state") as (_, client):
        zpool.looks(1)
        wider = status("a", FAULTED).replace("CKSUM", "CKSUM  SLOW")
        zpool.put("status", wider.replace("     0\n", "     0     -\n"))
        sick = anything(client)
        assert "error" not in sick
        assert [vdev["name"] for vdev in sick["zpools"]["a"]["vdevs"]] == ["sda"]
        zpool.put("status", status("a").replace("CKSUM", "CHECK"))
        other = anything(client)
        assert other["error"].endswith("zpool status gave devices that can't be read, of a")
        # Nothing is said of the device: that is not its recovery.
        assert other["zpools"] == sick["zpools"]
        zpool.put("status", "nothing that is known\n")
        assert "status gave what can't be read" in anything(client)["error"]
        zpool.put("status", status("a"))
        well = anything(client)
        assert "error" not in well
        assert "vdevs" not in well["zpools"]["a"]


def test_damaged_files_are_told_until_they_are_none(zpool: Said, tmp_path: Path) -> None:
    zpool.put("list", row("a"))
    zpool.put("status", status("a", errors="2 data errors, use '-v' for a list"))
    with watched(zpool, tmp_path / "state") as (_, client):
        damaged = anything(client)
        assert damaged["zpools"]["a"]["data_errors"] == 2
        assert damaged["zpools"]["a"]["priority"] == damaged["priority"] == "6/Critical"
        text = "Permanent errors have been detected in the following files:"
        zpool.put("status", status("a", errors=text))
        assert anything(client)["zpools"]["a"]["data_errors"] == text
        # Another pool of that name.
        zpool.put("status", status("a"))
        other = anything(client)["zpools"]["a"]
        assert "data_errors" not in other
        assert other["priority"] == "0/Information"


def test_what_a_zpool_lacks_is_learnt_anew_of_another_one(zpool: Said, tmp_path: Path) -> None:
    zpool.put("status", status("a"))
    zpool.put("list", row("a"))
    lacking = row("a").replace("\t0%\t-\t", "\t", 1).replace("%", "%%")
    zpool.put(
        "list.sh",
        "for name in frag expandsz; do case $4 in *$name*)"
        " echo \"invalid property '$name'\" >&2; exit 2;; esac; done;"
        f' printf "{lacking}"; exit 0',
    )
    with watched(zpool, tmp_path / "state") as (daemon, client):
        wait_for(lambda: shown(daemon, "a", "frag") == "-", "the first reading")
        calls = zpool.calls("list")
        zpool.looks(2)
        # It is not asked for what it lacks at each look.
        assert zpool.calls("list") <= calls + 4
        # It prints what the first one lacks, if it is asked for it.
        zpool.put("zpool", SCRIPT.format(directory=zpool.directory).replace(".sh", ".other"))
        wait_for(lambda: shown(daemon, "a", "frag") == "0%", "the column of the new one")
        assert not client.events


def shown(daemon: Daemon, name: str, column: str) -> str | None:
    """A pool's column, as a new client is shown it."""
    with daemon.client() as client:
        client.ask("events", "subscribe", {"systems": ["system-state"], "snapshot": True})
        state: dict[str, Any] | None = client.event()["args"]["system_state"]
        value: str | None = state["zpools"].get(name, {}).get(column) if state else None
        return value
