"""The watch of a directory: replaced where it died, at rest in a storm, and never loud."""

from __future__ import annotations

import logging
import math
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from watchdog.observers.api import EventEmitter
from watchdog.utils import BaseThread

from collectors import directory_watch as module
from collectors.directory_watch import POLL, STORM, DirectoryWatch
from tests.kit import DEADLINE, needs_linux, needs_root, wait_for

# Makes, renames and deletes files there until it is killed.
CHURN = """
import os, sys
n = 0
while True:
    n += 1
    name = os.path.join(sys.argv[1], f"neighbour{n % 97}")
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    os.rename(name, name + ".new")
    os.unlink(name + ".new")
"""


@contextmanager
def watching(
    directory: Path, name: str = ""
) -> Generator[tuple[DirectoryWatch, threading.Event]]:
    told = threading.Event()
    watch = DirectoryWatch(directory, told.set, name)
    try:
        yield watch, told
    finally:
        watch.close()


def assert_sees(watch: DirectoryWatch, told: threading.Event, directory: Path) -> None:
    assert watch.check()
    told.clear()
    (directory / "file").write_text(str(time.monotonic()))
    assert told.wait(DEADLINE)


def test_a_watcher_that_died_is_replaced_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = threading.Event()
    watch = DirectoryWatch(tmp_path, told.set)
    assert watch.check()
    for _ in range(2):
        for thread in threading.enumerate():
            if isinstance(thread, EventEmitter):
                thread.stop()
                thread.join()
        told.clear()
        assert watch.check()
        (tmp_path / "file").write_text(str(time.monotonic()))
        assert told.wait(DEADLINE)
    watch.close()
    said = [r for r in caplog.records if r.name == "collectors.directory_watch"]
    assert [record.levelname for record in said] == ["WARNING"]
    assert "is watched anew" in said[0].getMessage()


def test_a_directory_that_was_deleted_is_watched_again(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    told = threading.Event()
    watch = DirectoryWatch(directory, told.set)
    assert not watch.check()
    for _ in range(2):
        directory.mkdir()
        assert watch.check()
        told.clear()
        (directory / "file").write_text("x")
        assert told.wait(DEADLINE)
        shutil.rmtree(directory)
        assert not watch.check()


def test_a_directory_that_was_renamed_is_left_for_the_one_in_its_place(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    directory.mkdir()
    with watching(directory) as (watch, told):
        assert_sees(watch, told, directory)
        directory.rename(tmp_path / "old")
        assert not watch.check()
        directory.mkdir()
        assert_sees(watch, told, directory)


def test_a_directory_that_is_a_link_is_watched_where_it_leads_to(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link = tmp_path / "log"
    with watching(link) as (watch, told):
        for name in ("one", "two"):
            link.unlink(missing_ok=True)
            link.symlink_to(tmp_path / name)
            assert_sees(watch, told, tmp_path / name)


@pytest.mark.parametrize("over", [False, True])
def test_a_file_system_in_the_place_of_another_is_watched(tmp_path: Path, over: bool) -> None:
    needs_linux("umount -l")
    needs_root("mount", "umount")
    directory = tmp_path / "log"
    directory.mkdir()
    mount = ("mount", "-t", "tmpfs", "none", str(directory))
    unmount = ("umount", "-l", str(directory))
    subprocess.run(mount, check=True)
    mounts = 1
    try:
        with watching(directory) as (watch, told):
            assert_sees(watch, told, directory)
            for _ in range(2):
                # Its root has the same inode as that of the one before, and if that is gone,
                # the same device.
                if not over:
                    subprocess.run(unmount, check=True)
                    mounts -= 1
                subprocess.run(mount, check=True)
                mounts += 1
                assert_sees(watch, told, directory)
    finally:
        for _ in range(mounts):
            subprocess.run(unmount, check=True)


def test_a_storm_of_neighbours_is_not_watched_until_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REST", 0.5)
    with watching(tmp_path, "lpreserver.log") as (watch, told):
        assert_sees(watch, told, tmp_path)
        assert watch.poll == math.inf
        storm = subprocess.Popen([sys.executable, "-c", CHURN, str(tmp_path)])
        try:
            wait_for(lambda: not watch.check(), "the storm to be noticed")
            assert watch.poll == POLL
            assert not [t for t in threading.enumerate() if isinstance(t, EventEmitter)]
        finally:
            storm.kill()
            storm.wait()
        wait_for(watch.check, "the watch to be set anew")
        assert watch.poll == math.inf
        assert_sees(watch, told, tmp_path)


def test_what_is_written_to_the_log_itself_is_no_storm(tmp_path: Path) -> None:
    log = tmp_path / "lpreserver.log"
    with watching(tmp_path, log.name) as (watch, told):
        assert_sees(watch, told, tmp_path)
        for number in range(STORM * 2):
            with log.open("a") as file:
                file.write(f"{number}\n")
            assert watch.check()
        # All of it has been seen when this is.
        (tmp_path / "last").touch()
        assert_sees(watch, told, tmp_path)
        assert watch.poll == math.inf


def test_a_watch_that_stops_or_breaks_is_no_line_of_the_services_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(BaseThread):
        def run(self) -> None:
            raise FileNotFoundError(2, "No such file or directory", str(tmp_path))

    others: list[str] = []

    def former(told: threading.ExceptHookArgs) -> None:
        others.append(told.exc_type.__name__)

    def fail() -> None:
        raise LookupError

    monkeypatch.setattr(threading, "excepthook", former)
    caplog.set_level(logging.DEBUG, module.__name__)
    for _ in range(3):
        with watching(tmp_path) as (watch, told):
            assert_sees(watch, told, tmp_path)
    logging.getLogger("watchdog.observers.inotify").error("called when inactive")
    # Those of others are told as before, once.
    for thread in (Broken(), threading.Thread(target=fail)):
        thread.start()
        thread.join()
    assert others == ["LookupError"]
    assert not logging.getLogger("watchdog").propagate
    ours = [record for record in caplog.records if record.name == module.__name__]
    texts = [record.getMessage() for record in ours]
    assert all(record.levelno == logging.DEBUG for record in ours), texts
    (broken,) = (text for text in texts if "FileNotFoundError" in text)
    assert "\n" not in broken
    assert "watchdog: called when inactive" in texts
