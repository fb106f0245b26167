"""The figures of /metrics are true; the document and the alert rules name what is there."""

from __future__ import annotations

import re
import ssl
import time
from pathlib import Path

import pytest

from collectors.figures import figures, vdev_errors
from tests.kit import QUIET, ROOT, Daemon, wait_for
from tests.kit.bridge import Bridge
from tests.kit.daemon import following
from tests.kit.pools import StandIn, watching

DOCUMENT = ROOT / "docs" / "monitoring.md"
RULES = ROOT / "packaging" / "prometheus" / "sysadmd.rules.yml"
# Of a rule: names of figures, as they are asked for.
NAME = re.compile(r"\b(?:sysadmd|zfs)_[a-z_]+\b")
# What a name of a family has behind it when it is asked for.
COUNTER = "_total"
# What the names of a bridge's figures begin with.
OF_A_BRIDGE = "sysadmd_bridge_"


def read(daemon: Daemon) -> dict[str, float]:
    """Each figure, with its labels."""
    lines = daemon.fetch("/metrics")[1].splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def families(daemon: Daemon) -> dict[str, str]:
    """The names of all figures there are, with or without a value, and their types."""
    lines = daemon.fetch("/metrics")[1].splitlines()
    return dict(line.split()[2:4] for line in lines if line.startswith("# TYPE"))


def documented() -> set[str]:
    """The names of the figures of all programs that the document lists."""
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])}


def test_the_document_names_the_figures_of_a_bridge(tmp_path: Path) -> None:
    with Bridge(tmp_path / "bridge") as bridge:
        there = set(families(bridge))
    assert {name for name in documented() if name.startswith(OF_A_BRIDGE)} == there


def test_the_document_and_the_alert_rules_name_what_is_there(daemon: Daemon) -> None:
    there = families(daemon)
    assert {name for name in documented() if not name.startswith(OF_A_BRIDGE)} == set(there)
    expressions = re.findall(
        r"^ +expr: (?:>-\n)?((?:.+\n)+?) +(?:for|labels):", RULES.read_text(), re.M
    )
    assert len(expressions) == RULES.read_text().count("- alert:")
    asked = {name for expression in expressions for name in NAME.findall(expression)}
    assert len(asked) > 10
    for name in asked:
        if name.endswith(COUNTER):
            assert there.get(name.removesuffix(COUNTER)) == "counter", name
        else:
            assert there.get(name) == "gauge", name


def test_when_the_certificate_ends_is_a_figure(daemon: Daemon) -> None:
    with daemon.client() as client:
        sock = client.socket.socket
        assert isinstance(sock, ssl.SSLSocket)
        certificate = sock.getpeercert()
        assert certificate is not None
        ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    assert read(daemon)["sysadmd_certificate_expiry_seconds"] == ends


def test_ends_of_jobs_are_counted_by_queue_and_result(daemon: Daemon) -> None:
    def ends(queue: str, result: str) -> float:
        key = f'sysadmd_job_ends_total{{queue="{queue}",result="{result}"}}'
        return read(daemon)[key]

    assert ends("pkg_queue", "failed") == 0
    with daemon.client() as client:
        client.ask("events", "subscribe", "dispatcher")
        for program, queue in (
            ("true", "no_queue"),
            ("false", "pkg_queue"),
            ("true", "no_queue"),
        ):
            job = {"id": program, "commands": [[program]], "queue": queue}
            client.ask("rpc", "dispatcher", {"action": "submit", "job": job})
            client.until(lambda frame: frame["args"]["state"] == "finished")
            # Each once, however often it is asked.
            ends(queue, "lost")
        client.ask("rpc", "dispatcher", {"action": "run", "empty": []})
    assert ends("no_queue", "succeeded") == 3
    assert ends("pkg_queue", "failed") == 1
    assert ends("pkg_queue", "succeeded") == 0
    daemon.stop()
    with daemon:
        # Of what was before a start nothing is counted.
        assert ends("no_queue", "succeeded") == 0


def test_what_ended_without_a_daemon_increases_its_figure_from_0(tmp_path: Path) -> None:
    """What begins with a 1 has not increased, for who reads it."""
    key = 'sysadmd_job_ends_total{queue="no_queue",result="failed"}'
    go_on = tmp_path / "go on"
    text = f"while [ ! -e '{go_on}' ]; do sleep 0.1; done; exit 1"
    with Daemon(tmp_path / "state", QUIET) as daemon:
        with daemon.client() as client:
            job = {"id": "waits", "commands": [["sh", "-c", text]]}
            client.ask("rpc", "dispatcher", {"action": "submit", "job": job})
        log = daemon.state_dir / "jobs"
        wait_for(lambda: list(log.glob("*/0.log")), "the job")
        daemon.kill()
        go_on.touch()
        daemon.start()
        with daemon.client() as client:
            show = {"action": "show", "job_id": "waits"}
            wait_for(
                lambda: client.ask("rpc", "dispatcher", show)["job"]["state"] == "finished"
            )
        assert [read(daemon)[key], read(daemon)[key]] == [0, 1]


def test_the_last_snapshot_and_replication_are_known_over_a_restart(tmp_path: Path) -> None:
    log = tmp_path / "lp" / "lpreserver.log"
    log.parent.mkdir()
    log.touch()
    name = 'sysadmd_life_preserver_last_{}_timestamp_seconds{{class="{}"}}'
    begun = time.time()
    with Daemon(tmp_path / "state", following(log)) as daemon:
        assert not any("life_preserver_last" in name for name in read(daemon))
        with log.open("a") as file:
            for text in (
                "Creating snapshot on tank1",
                "Starting replication SYNC task on tank1: /var/log/lpreserver/send.log",
                "FAILED replication task on tank1 -> 192.0.2.9: LOGFILE: /var/log/x",
            ):
                file.write(f"Tue Nov 24 18:00:02 UTC 2026: {text}\n")
        failure, success = (
            name.format("failure", "replication"),
            name.format("success", "snapshot"),
        )
        wait_for(lambda: {failure, success} <= read(daemon).keys(), "both figures")
        before = read(daemon)
        assert begun <= before[success] <= before[failure] <= time.time()
        # One that has begun has not succeeded.
        assert name.format("success", "replication") not in before
        assert daemon.stop() == 0
        with daemon:
            assert read(daemon)[failure] == before[failure]


def test_errors_of_devices_and_the_last_scrub_are_shown_as_last_read(tmp_path: Path) -> None:
    machine = StandIn(tmp_path)
    machine.put("ozfs-data-errors-no-redundancy", 1)
    with Daemon(tmp_path / "state", watching(str(machine.command))) as daemon:
        errors = 'zfs_vdev_errors{{pool="tank",type="{}",vdev="/vdev/d0"}}'
        wait_for(lambda: errors.format("checksum") in read(daemon), "a look at the pools")
        shown = read(daemon)
        counts = [shown[errors.format(kind)] for kind in ("read", "write", "checksum")]
        assert counts == [0, 0, 62]
        scrubbed = time.strptime("Tue Nov 24 19:13:09 2026", "%a %b %d %H:%M:%S %Y")
        when = shown['zfs_pool_last_scrub_timestamp_seconds{pool="tank"}']
        assert when == time.mktime(scrubbed)


POOL = {
    "health": "ONLINE", "size": "1.5T", "alloc": "512G", "free": "1T", "frag": "7%",
    "dedup": "1.25x", "capacity": "33%",
}  # fmt: skip
SCRUB = {
    "function": "scrub",
    "state": "finished",
    "ended": "Tue Nov 24 19:13:09 2026",
    "errors": 0,
}


def test_a_pool_is_shown_in_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    try:
        vdev = {"name": "da0", "state": "ONLINE", "read": "0", "write": "3", "cksum": "1.5K"}
        pool = {**POOL, "scan": SCRUB, "vdevs": [vdev]}
        assert figures(pool) == {
            "health": 0,
            "size_bytes": 1.5 * 2**40,
            "allocated_bytes": 2**39,
            "free_bytes": 2**40,
            "fragmentation_ratio": 0.07,
            "deduplication_ratio": 1.25,
            "last_scrub_timestamp_seconds": 1795547589,
        }
        assert list(vdev_errors(pool)) == [
            ("da0", "read", 0),
            ("da0", "write", 3),
            ("da0", "checksum", 1536),
        ]
        # A spare in use stands among the spares, too.
        spare = {**vdev, "read": "2", "write": "0"}
        assert list(vdev_errors({"vdevs": [vdev, spare]})) == [
            ("da0", "read", 2),
            ("da0", "write", 3),
            ("da0", "checksum", 1536),
        ]
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "scan",
    [
        None,
        {"function": "scrub", "state": "running", "percent": 3.0},
        {"function": "scrub", "state": "canceled"},
        {**SCRUB, "function": "resilver"},
        {**SCRUB, "ended": "Di 24 Nov 2026 19:13:09"},
        {**SCRUB, "ended": ""},
    ],
)
def test_of_a_scrub_that_nobody_can_date_there_is_no_figure(scan: dict[str, object]) -> None:
    assert "last_scrub_timestamp_seconds" not in figures({**POOL, "scan": scan})
