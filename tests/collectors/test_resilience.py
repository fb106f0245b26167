"""Collectors in trouble: a watcher that dies, a log that can't be read, one that raises."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from collectors.life_preserver import IDLE, SETTLING, Replication
from collectors.log_tail import ROTATION_GRACE
from tests.kit import Client, Daemon, needed, wait_for
from tests.kit.daemon import following
from tests.kit.pools import Zpool, next_state

LINE = "Thu Nov 26 18:00:02 UTC 2026: Creating snapshot on tank/{}\n"
ALL = {"systems": ["life-preserver", "system-state"], "since": "now"}


def heard(client: Client, dataset: str) -> list[dict[str, Any]]:
    return client.until(lambda f: f["args"].get("message", "").endswith(f"tank/{dataset}"))


def test_what_is_written_once_the_daemon_is_ready_is_news(tmp_path: Path) -> None:
    log = tmp_path / "lpreserver.log"
    log.write_text(LINE.format("old"))
    # The collector comes late: at its first look the line stands there already.
    late = (
        "import time, pathlib, collectors.life_preserver as lp; watch = lp.DirectoryWatch; "
        f"check = watch.check; log = pathlib.Path({str(log)!r}); "
        "written = lambda: 'new' in log.read_text() or time.sleep(0.01); "
        "watch.check = lambda self: (list(iter(written, True)), check(self))[1]"
    )
    with Daemon(tmp_path / "state", following(log), before=late) as daemon:
        with log.open("a") as file:
            file.write(LINE.format("new"))
        with daemon.client() as client:
            client.ask("events", "subscribe", ALL | {"since": "oldest"})
            told = [f for f in heard(client, "new") if f["name"] == "life_preserver"]
            assert len(told) == 1


def test_what_is_written_once_another_log_is_named_is_news(tmp_path: Path) -> None:
    logs = [tmp_path / name for name in ("a.log", "b.log", "c.log")]
    with Daemon(tmp_path / "state", following(logs[0])) as daemon, daemon.client() as client:
        client.ask("events", "subscribe", ALL)
        for log in logs[1:]:
            log.write_text(LINE.format("old"))
            daemon.config.write_text(following(log))
            daemon.reload()
            with log.open("a") as file:
                file.write(LINE.format("new"))
            told = [f for f in heard(client, "new") if f["name"] == "life_preserver"]
            assert len(told) == 1


def test_progress_is_that_of_the_replication_that_runs(tmp_path: Path) -> None:
    send = tmp_path / "send.log"
    estimate = "{} total estimated size is {}\n12:00:00   {}   tank/usr@a\n"
    send.write_text(estimate.format("first", "280M", "280M"))
    os.utime(send, (0, 0))
    replication = Replication(tmp_path)
    replication.begin(str(send), "tank/usr")
    # That of yesterday's.
    assert replication.look(10.0) is None
    send.write_text(estimate.format("second", "100M", "10M"))
    assert replication.look(20.0) == "Replicating tank: 10M/100M (10%)"
    # Cut, and longer again before anybody looks.
    send.write_text(estimate.format("third", "2G", "1G") + "12:00:01   1.5G   tank/usr@a\n")
    assert replication.look(30.0) == "Replicating tank: 1.5G/2G (75%)"


def test_zeros_before_a_line_are_no_part_of_it(tmp_path: Path) -> None:
    log = tmp_path / "lpreserver.log"
    log.touch()
    with Daemon(tmp_path / "state", following(log)) as daemon, daemon.client() as client:
        client.ask("events", "subscribe", ALL)
        with log.open("a") as file:
            file.write(LINE.format("a") + "\0" * 4000 + LINE.format("b"))
        heard(client, "b")


def test_what_is_whole_in_damaged_lines_is_told_and_in_order(tmp_path: Path) -> None:
    log = tmp_path / "lpreserver.log"
    with Daemon(tmp_path / "state", following(log)) as daemon, daemon.client() as client:
        client.ask("events", "subscribe", ALL)
        failure = LINE.replace("Creating", "ERROR: Failed creating")
        log.write_bytes(
            b"\xef\xbb\xbf"
            + LINE.format("a").encode()
            # No room for its rest; then the machine went down.
            + b"Thu Nov 26 18:00:02 UTC 2026: Creating snaps"
            + failure.format("b").encode()
            + LINE.format("c").rstrip().encode()
            + b"\0" * 5000
            + failure.format("d").encode()
        )
        told = [frame["args"] for frame in heard(client, "d")]
        assert [args["message"].rpartition("/")[2] for args in told] == list("abcd")
        assert [args["priority"][0] for args in told] == list("1717")


def test_a_folder_in_the_place_of_one_that_was_renamed_is_read_within_seconds(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "log"
    log = folder / "lpreserver.log"
    folder.mkdir()
    log.touch()
    with Daemon(tmp_path / "state", following(log)) as daemon, daemon.client() as client:
        client.ask("events", "subscribe", ALL)
        with log.open("a") as file:
            file.write(LINE.format("a"))
        heard(client, "a")
        folder.rename(tmp_path / "old")
        folder.mkdir()
        begun = time.monotonic()
        log.write_text(LINE.format("b"))
        heard(client, "b")
        # Two looks at most: one that waits for the rest of a rotation, if there is one.
        assert time.monotonic() - begun < 2 * IDLE + ROTATION_GRACE
        # From then on at once.
        for dataset in "cde":
            begun = time.monotonic()
            with log.open("a") as file:
                file.write(LINE.format(dataset))
            heard(client, dataset)
            assert time.monotonic() - begun < IDLE / 2


def test_a_folder_that_is_gone_is_trouble_until_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log = folder / "lpreserver.log"
    folder.mkdir()
    log.touch()
    with Daemon(tmp_path / "state", following(log)) as daemon, daemon.client() as client:
        client.ask("events", "subscribe", ALL)
        with log.open("a") as file:
            file.write(LINE.format("a"))
        heard(client, "a")
        folder.rename(tmp_path / "old")
        trouble = next_state(client, lambda args: "error" in args)
        assert trouble["error"].endswith("lpreserver.log: its folder is gone")
        (tmp_path / "old").rename(folder)
        assert "error" not in next_state(client, lambda args: True)
        with log.open("a") as file:
            file.write(LINE.format("b"))
        heard(client, "b")


def test_without_the_systems_notification_lines_are_found_by_looking(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        needed("unshare")
    log = tmp_path / "lpreserver.log"
    log.touch()
    none_left = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'
    wrapper = ("unshare", "-U", "-r", "--", "sh", "-c", none_left, "sh")
    with Daemon(tmp_path / "state", following(log), wrapper=wrapper) as daemon:
        with daemon.client() as client:
            client.ask("events", "subscribe", ALL)
            for dataset in ("a", "b"):
                with log.open("a") as file:
                    file.write(LINE.format(dataset))
                heard(client, dataset)
        assert daemon.log.read_text().count("can't be watched") == 1


def test_a_log_that_can_not_be_read_is_trouble_until_it_can(tmp_path: Path) -> None:
    log = tmp_path / "log" / "lpreserver.log"
    log.parent.mkdir()
    log.write_text(LINE.format("old"))
    with Daemon(tmp_path / "state", following(log)) as daemon, daemon.client() as client:
        client.ask("events", "subscribe", ALL)
        for dataset in ("a", "b"):
            log.unlink()
            log.mkdir()
            trouble = next_state(client, lambda args: "error" in args)
            assert trouble["error"].startswith("life_preserver: ")
            assert trouble["priority"] == "6/Critical"
            # Long enough for the lines before it to be told again, if they were.
            time.sleep(ROTATION_GRACE + SETTLING)
            log.rmdir()
            log.write_text(LINE.format(dataset))
            # One event tells the trouble, one its end, whatever the number of looks; the
            # line may come before or after the end.
            both = [client.event(), client.event()]
            (line,) = (f["args"] for f in both if f["name"] == "life_preserver")
            assert line["message"].endswith(f"tank/{dataset}")
            (over,) = (f["args"] for f in both if f["name"] == "system_state")
            assert "error" not in over


def test_a_send_log_that_does_not_answer_holds_up_no_line(tmp_path: Path) -> None:
    log = tmp_path / "lpreserver.log"
    log.touch()
    hangs = (
        "import threading, collectors.life_preserver as lp; look = lp.Replication.look; "
        "lp.Replication.look = lambda self, now: ("
        "threading.Event().wait() if self.dataset == 'tank/hangs' else look(self, now))"
    )
    start = f"Starting replication SYNC task on tank/{{}}: {tmp_path / 'lastrep-send-log'}"
    begin = LINE.replace("Creating snapshot on tank/{}", start)
    with (
        Daemon(tmp_path / "state", following(log), before=hangs) as daemon,
        daemon.client() as client,
    ):
        client.ask("events", "subscribe", ALL)
        with log.open("a") as file:
            file.write(begin.format("hangs"))
        client.until(lambda frame: "tank/hangs" in frame["args"].get("message", ""))
        # Looks come and go, and nothing is wrong with the log.
        for dataset in ("a", "b", "c"):
            begun = time.monotonic()
            with log.open("a") as file:
                file.write(LINE.format(dataset))
            assert not [f for f in heard(client, dataset) if f["name"] == "system_state"]
            assert time.monotonic() - begun < IDLE
        # One look hangs, however many replications come after it.
        with log.open("a") as file:
            file.write(begin.format("next") + LINE.format("d"))
        heard(client, "d")


@pytest.mark.long
def test_a_log_whose_disk_does_not_answer_holds_up_nobody(
    zfs_fuse: Zpool, mirror: str, tmp_path: Path
) -> None:
    # Not there yet: what is there may be answered for by the kernel alone.
    log = Path("/", mirror, "lpreserver.log")
    with Daemon(tmp_path / "state", following(log)) as daemon:
        disk = zfs_fuse.server()
        with daemon.client() as client:
            client.ask("events", "subscribe", ALL)
            try:
                disk.suspend()
                trouble = next_state(client, lambda args: "error" in args)
                assert "does not answer" in trouble["error"]
                job = {"action": "run", "meanwhile": "true"}
                assert client.ask("rpc", "dispatcher", job)["started"] == ["meanwhile"]
                # Not even the very first start, which would like to know the log's end.
                Daemon(tmp_path / "first", following(log)).start().stop()
                begun = time.monotonic()
                assert daemon.stop() == 0
                assert time.monotonic() - begun < 20
            finally:
                disk.resume()
        daemon.start()
        with daemon.client() as client:
            client.ask("events", "subscribe", {**ALL, "since": "oldest"})
            assert "error" in next_state(client, lambda args: True)
            assert "error" not in next_state(client, lambda args: True)
            with log.open("a") as file:
                file.write(LINE.format("after"))
            heard(client, "after")


def test_a_collector_that_raises_is_told_started_again_and_alone(tmp_path: Path) -> None:
    log = tmp_path / "lpreserver.log"
    log.touch()
    settings = following(log).replace("enabled = false", "interval = 0.2", 1)
    with Daemon(tmp_path / "state", settings) as daemon:
        daemon.stop()
        db = sqlite3.connect(daemon.state_dir / "state.db")
        (kept,) = db.execute("SELECT value FROM positions").fetchone()
        db.execute("UPDATE positions SET value = '{'")
        db.commit()
        daemon.start()
        with daemon.client() as client:
            client.ask("events", "subscribe", {**ALL, "since": "oldest"})
            trouble = next_state(client, lambda args: "error" in args)
            assert trouble["error"].startswith("life_preserver: DecodeError")
            job = {"action": "run", "meanwhile": "true"}
            assert client.ask("rpc", "dispatcher", job)["started"] == ["meanwhile"]
            # Each time it is started it fails, and is told of once.
            again = "life_preserver failed; it is started again in 2 s"
            wait_for(lambda: again in daemon.log.read_text(), "the second start")
            db.execute("UPDATE positions SET value = ?", (kept,))
            db.commit()
            db.close()
            assert "error" not in next_state(client, lambda args: True)
            with log.open("a") as file:
                file.write(LINE.format("after"))
            heard(client, "after")


def test_a_collector_whose_disk_fails_is_told_in_a_sentence(tmp_path: Path) -> None:
    fails = (
        "from collectors.life_preserver import LifePreserverCollector as collector; "
        "from sysadmd.errors import StoreFull; "
        "collector.run = lambda self: (_ for _ in ()).throw(StoreFull('no room'))"
    )
    settings = following(tmp_path / "lpreserver.log")
    with Daemon(tmp_path / "state", settings, before=fails) as daemon:
        said = "life_preserver failed; it is started again in 1 s: no room"
        wait_for(lambda: said in daemon.log.read_text(), "the failure")
        assert "Traceback" not in daemon.log.read_text()
