"""`sysadmd backup`, `restore` and `verify` on the state of a real daemon, with real jobs."""

from __future__ import annotations

import json
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from sysadmd.keys import PrivateKey, as_text
from tests.kit import DEADLINE, QUIET, Daemon, needs_root, wait_for
from tests.kit.backups import ended, events_of, output, refused, run, show, submit, works
from tests.kit.ctl import Ctl
from tests.kit.disks import small_disk
from tests.kit.golden import GOLDEN, WORDS, lay
from tests.kit.processes import holders
from tests.kit.state_file import state_file


@pytest.fixture
def saved(daemon: Daemon, tmp_path: Path) -> Path:
    """A backup with a finished job; the daemon runs."""
    with daemon.client() as client:
        run(client, "done", "echo told")
    works("backup", daemon.state_dir, tmp_path / "saved")
    return tmp_path / "saved"


def test_under_load_a_backup_is_the_state_of_one_moment(daemon: Daemon, tmp_path: Path) -> None:
    saved, stop, sent = tmp_path / "saved", threading.Event(), 0

    def load() -> None:
        nonlocal sent
        with daemon.client() as client:
            while not stop.is_set():
                submit(client, f"job{sent}", f"echo told {sent}", "sh -c 'exit 3'")
                sent += 1

    thread = threading.Thread(target=load)
    thread.start()
    try:
        wait_for(lambda: sent > 20, "some jobs")
        works("backup", daemon.state_dir, saved, "--with-keys")
        then = sent
        wait_for(lambda: sent > then + 5, "more of them")
    finally:
        stop.set()
        thread.join()
    copied, there = events_of(saved), events_of(daemon.state_dir)
    assert 0 < len(copied) < len(there)
    assert there[: len(copied)] == copied
    manifest = json.loads((saved / "backup.json").read_text())
    assert manifest["events"] == len(copied)
    with daemon.client() as client, state_file(saved) as db:
        finished = [id for (id,) in db.execute("SELECT id FROM jobs WHERE state = 2")]
        active = [id for (id,) in db.execute("SELECT id FROM jobs WHERE state < 2")]
        assert finished
        # As the next daemon has them; those that ran are lost.
        fresh = Daemon(tmp_path / "fresh", QUIET)
        said = works("restore", fresh.state_dir, saved)
        assert not active or ("end as lost" in said and active[0] in said)
        with fresh, fresh.client() as restored:
            for id in finished:
                assert show(restored, id) == show(client, id)
                assert output(restored, id) == output(client, id) == f"told {id[3:]}\n"
            assert {show(restored, id)["result"] for id in active} <= {"lost"}
        again = events_of(fresh.state_dir)
    assert again[: len(copied)] == copied
    assert len(again) == len(copied) + len(active)
    assert works("verify", fresh.state_dir).startswith(f"whole: {len(again)} events")


def test_what_ran_or_waited_is_lost_and_does_not_run_again(
    daemon: Daemon, tmp_path: Path
) -> None:
    saved, ledger = tmp_path / "saved", tmp_path / "ledger"
    sign = f'sh -c "echo $A >>{ledger}; until test -e {tmp_path}/go; do sleep 0.05; done"'
    with daemon.client() as client:
        for id in ("runs", "waits"):
            env = {"A": f"{id}-hunter2"}
            submit(client, id, sign, f"touch {ledger}", queue="pkg_queue", env=env)
        wait_for(ledger.exists, "the start")
        said = works("backup", daemon.state_dir, saved)
    assert "end as lost when this is restored: 2" in said
    assert all(b"hunter2" not in file.read_bytes() for file in saved.rglob("*.db"))
    (tmp_path / "go").touch()
    with daemon.client() as client:
        wait_for(lambda: show(client, "waits")["state"] == "finished", "its end")
    with ended(daemon) as state_dir:
        said = works("restore", state_dir, saved)
    assert "not run again: runs, waits" in said
    with daemon, daemon.client() as client:
        client.ask("events", "subscribe", {"systems": ["dispatcher"], "since": "oldest"})
        told = client.until(
            lambda event: (
                event["args"].get("process_id") == "waits"
                and event["args"]["state"] == "finished"
            )
        )
        assert [event["args"]["process_details"]["result"] for event in told[-2:]] == [
            "lost"
        ] * 2
        assert [one["state"] for one in show(client, "runs")["commands"]] == [
            "finished",
            "skipped",
        ]
        assert [one["state"] for one in show(client, "waits")["commands"]] == ["skipped"] * 2
        # Its number is that of none of the jobs that came after the backup.
        run(client, "next", "echo next")
        assert output(client, "next") == "next\n"
        assert any("restore of a backup" in text for text in client.trail())
    assert ledger.read_text() == "runs-hunter2\nwaits-hunter2\n"


def test_cursors_of_before_are_refused(daemon: Daemon, saved: Path, tmp_path: Path) -> None:
    since: dict[str, Any] = {"systems": ["dispatcher"], "since": "now"}
    with daemon.client() as client:
        run(client, "later", "true")
        cursor = client.ask("events", "subscribe", since)["cursor"]
    old = json.loads((saved / "backup.json").read_text())["cursor"]
    with Ctl(tmp_path, "--state-dir", str(daemon.state_dir)).started(
        "tail", "--since", "oldest"
    ) as tail:
        assert tail.stdout is not None
        tail.stdout.readline()
        with ended(daemon) as state_dir:
            works("restore", state_dir, saved)
        with daemon, daemon.client() as client:
            for number in range(5):
                run(client, f"new{number}", "true")
            for each in (cursor, old):
                reply = client.ask_raw("events", "subscribe", {**since, "since": each})
                assert reply["args"]["code"] == 400
            fresh = client.ask("events", "subscribe", since)["cursor"]
            with daemon.client() as other:
                other.ask("events", "subscribe", {**since, "since": fresh})
            # Who followed is told why that is over, and what to do.
            _, errors = tail.communicate(timeout=DEADLINE)
    assert tail.returncode == 1
    assert "a backup was restored" in errors
    assert "--since oldest" in errors


def test_no_number_is_given_again_though_the_backup_has_no_job(
    daemon: Daemon, tmp_path: Path
) -> None:
    """By its number the processes of a job are known: what it left may run yet."""
    works("backup", daemon.state_dir, tmp_path / "saved")
    with daemon.client() as client:
        run(client, "before", "true")
    with ended(daemon) as state_dir:
        for _ in range(2):
            works("restore", state_dir, tmp_path / "saved")
    with daemon, daemon.client() as client:
        run(client, "after", "true")
    assert [path.name for path in (daemon.state_dir / "jobs").iterdir()] == ["2"]


def test_what_was_there_is_kept_beside(daemon: Daemon, saved: Path) -> None:
    with daemon.client() as client:
        run(client, "later", "echo later")
    before = events_of(daemon.state_dir)
    with ended(daemon) as state_dir:
        token = (state_dir / "admin.token").read_text()
        (state_dir / "state.db.before").write_text("of an upgrade")
        said = works("restore", state_dir, saved)
    (aside,) = state_dir.glob("before-restore-*")
    assert f"is in {aside};" in said
    assert events_of(aside) == before
    assert [file.read_text() for file in aside.glob("jobs/2/*.log")] == ["later\n"]
    assert (aside / "state.db.before").exists()
    assert not (state_dir / "state.db.before").exists()
    # Without keys in the backup those stay.
    assert (state_dir / "admin.token").read_text() == token
    assert not (aside / "tls").exists()
    with daemon, daemon.client() as client:
        assert output(client, "done") == "told\n"
        reply = client.ask_raw("rpc", "dispatcher", {"action": "show", "job_id": "later"})
        assert reply["args"]["code"] == 404


def test_keys_come_only_if_they_are_asked_for(
    daemon: Daemon, saved: Path, tmp_path: Path
) -> None:
    assert not (saved / "admin.token").exists()
    assert not (saved / "tls").exists()
    keys = tmp_path / "keys"
    works("backup", daemon.state_dir, keys, "--with-keys")
    fresh = Daemon(tmp_path / "fresh", QUIET)
    assert "the next start makes new ones" in works("restore", fresh.state_dir, saved)
    assert fresh.start().token != daemon.token
    with ended(fresh) as state_dir:
        works("restore", state_dir, keys)
    with fresh:
        assert fresh.token == daemon.token
        for name in ("key.pem", "certificate.pem"):
            file = f"tls/{name}"
            assert (fresh.state_dir / file).read_text() == (daemon.state_dir / file).read_text()
    for path in [keys, *keys.rglob("*"), *fresh.state_dir.rglob("*")]:
        assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0, path


def test_tokens_and_keys_that_are_valid_again_are_named(daemon: Daemon, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    works("token", daemon.state_dir, "add", "laptop", "--role", "read")
    key = PrivateKey.new().public
    named = {"pub_key": as_text(key.pem), "user": "root"}
    with daemon.client() as client:
        client.ask("rpc", "settings", {"action": "register_ssl_cert", **named})
    works("backup", daemon.state_dir, saved)
    works("token", daemon.state_dir, "revoke", "laptop")
    with daemon.client() as client:
        client.ask("rpc", "settings", {"action": "revoke_ssl_cert", **named})
    with ended(daemon) as state_dir:
        said = works("restore", state_dir, saved)
        assert "the named tokens are: laptop;" in said
        assert f"the keys that log in are: {key.fingerprint} '' of root;" in said


def test_a_state_in_use_is_not_restored(daemon: Daemon, saved: Path, tmp_path: Path) -> None:
    assert f"pid {daemon.pid}" in refused("restore", daemon.state_dir, saved)
    with daemon.client() as client:
        submit(client, "runs", f'sh -c "until test -e {tmp_path}/go; do sleep 0.05; done"')
        wait_for(lambda: show(client, "runs")["state"] == "running", "its start")
        run(client, "later", "true")
    daemon.stop()
    error = refused("restore", daemon.state_dir, saved)
    assert "may still run" in error
    assert str(holders(daemon.state_dir)[0]) in error
    assert not [*daemon.state_dir.glob("restor*")]
    with daemon, daemon.client() as client:
        (tmp_path / "go").touch()
        wait_for(lambda: show(client, "runs")["result"] == "succeeded", "its end")


def test_a_backup_of_a_daemon_that_was_killed_has_all(daemon: Daemon, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    with daemon.client() as client:
        run(client, "done", "true")
    daemon.kill()
    files = {file: file.read_bytes() for file in daemon.state_dir.glob("state.db*")}
    assert any(file.name.endswith("-wal") for file in files)
    works("backup", daemon.state_dir, saved)
    assert works("verify", daemon.state_dir).startswith("whole: ")
    assert works("verify", daemon.state_dir, saved).startswith("whole: ")
    for file, content in files.items():
        if not file.name.endswith("-shm"):
            assert file.read_bytes() == content
    assert events_of(saved) == events_of(daemon.state_dir)


def test_logs_that_are_gone_are_counted_and_all_others_saved(
    daemon: Daemon, tmp_path: Path
) -> None:
    with daemon.client() as client:
        for id in ("gone", "kept"):
            run(client, id, f"echo {id}", "true")
    (daemon.state_dir / "jobs/1/0.log").unlink()
    # Only what a job has put in a log's place.
    (daemon.state_dir / "jobs/2/1.log").unlink()
    (daemon.state_dir / "jobs/2/1.log").symlink_to("/etc/passwd")
    said = works("backup", daemon.state_dir, tmp_path / "saved")
    assert said.endswith("somebody else has taken them: 1\n")
    logs = {str(log.relative_to(tmp_path)) for log in tmp_path.glob("saved/jobs/*/*")}
    assert logs == {"saved/jobs/1/1.log", "saved/jobs/2/0.log"}


def test_where_a_backup_can_not_be_is_said(daemon: Daemon, tmp_path: Path) -> None:
    file, link, full = tmp_path / "file", tmp_path / "link", tmp_path / "full"
    file.touch()
    full.mkdir()
    (full / "something").touch()
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o755)
    link.symlink_to(empty)
    state = daemon.state_dir
    for where, words in {
        file: "is no directory",
        link: "or a link",
        full: "is not empty",
        file / "below": "Not a directory",
        tmp_path / "not" / "there": "there is no directory",
        state: "is in the state directory",
        state / "saved": "is in the state directory",
    }.items():
        assert words in refused("backup", state, where), where
    assert [*full.iterdir()] == [full / "something"]
    assert not [*empty.iterdir()]
    assert "there is no state" in refused("backup", tmp_path / "none", tmp_path / "saved")
    nothing = tmp_path / "nothing"
    nothing.mkdir(mode=0o700)
    (nothing / "state.db").touch()
    assert "there is nothing in" in refused("backup", nothing, tmp_path / "saved")
    assert "there is nothing in" in refused("verify", nothing)
    assert not (tmp_path / "saved").exists()
    works("backup", state, empty)
    assert stat.S_IMODE(empty.stat().st_mode) == 0o700


def test_without_room_nothing_of_it_is_left(daemon: Daemon, tmp_path: Path) -> None:
    with daemon.client() as client:
        run(client, "long", f"head -c {3 << 20} /dev/zero")
    with small_disk(tmp_path / "small", 1) as small:
        error = refused("backup", daemon.state_dir, small / "saved")
        assert "nothing of it is left" in error
        assert "free some space" in error
        assert not [*small.iterdir()]
        works("backup", daemon.state_dir, tmp_path / "saved")
        with ended(daemon):
            error = refused("restore", small / "state", tmp_path / "saved")
        assert "free some space" in error
        assert [file.name for file in (small / "state").iterdir()] == ["lock"]


def test_a_newer_backup_is_not_restored(saved: Path, tmp_path: Path) -> None:
    text = (saved / "backup.json").read_text()
    (saved / "backup.json").write_text('{"format": 2, "what": "else"}')
    assert "a newer sysadmd" in refused("restore", tmp_path / "fresh", saved)
    assert not (tmp_path / "fresh").exists()
    (saved / "backup.json").write_text(text)
    works("verify", tmp_path / "fresh", saved)


def test_a_newer_state_is_neither_saved_nor_checked(daemon: Daemon, tmp_path: Path) -> None:
    with ended(daemon) as state_dir:
        with state_file(state_dir) as db:
            db.execute("UPDATE schema SET version = 99 WHERE room = 'audit'")
        for words in (("backup", tmp_path / "saved"), ("verify",)):
            error = refused(words[0], state_dir, *words[1:])
            assert "was written by a newer sysadmd" in error
        assert not (tmp_path / "saved").exists()
        with state_file(state_dir) as db:
            db.execute("UPDATE schema SET version = 1 WHERE room = 'audit'")


def test_verify_names_the_first_event_that_is_not_as_it_was_told(
    daemon: Daemon, tmp_path: Path
) -> None:
    with daemon.client() as client:
        run(client, "done", "true")
    assert works("verify", daemon.state_dir).startswith("whole: 3 events, from 20")
    with ended(daemon) as state_dir:
        with state_file(state_dir) as db:
            db.execute("UPDATE events SET body = CAST(replace(body, 'running', 'no') AS BLOB)")
        error = refused("verify", state_dir)
        assert "the history is broken at event 2" in error
        assert "can be restored" in error
        # It is saved as it is: it may be all there is.
        works("backup", state_dir, tmp_path / "saved")
        assert "broken at event 2" in refused("verify", state_dir, tmp_path / "saved")


def test_a_state_on_a_file_system_that_can_only_be_read_is_checked(tmp_path: Path) -> None:
    needs_root("mount")
    with small_disk(tmp_path / "disk", 16) as disk, Daemon(disk / "state", QUIET) as daemon:
        with daemon.client() as client:
            run(client, "done", "true")
        with ended(daemon) as state_dir:
            remount = ["mount", "-o", "remount,ro", str(disk)]
            subprocess.run(remount, check=True)
            assert works("verify", state_dir).startswith("whole: 3 events")
            works("backup", state_dir, tmp_path / "saved")
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


@pytest.mark.parametrize("name", sorted(path.parent.name for path in GOLDEN.glob("*/*.json")))
def test_of_every_older_version_a_backup_is_brought_up_to_date(
    tmp_path: Path, name: str
) -> None:
    older, saved = tmp_path / "older", tmp_path / "saved"
    lay(name, older)
    before = (older / "state.db").read_bytes()
    works("backup", older, saved)
    # A look changes nothing.
    assert (older / "state.db").read_bytes() == before
    assert all(
        word.encode() not in (saved / "state.db").read_bytes() for word in WORDS.values()
    )
    works("verify", older, saved)
    fresh = Daemon(tmp_path / "fresh", QUIET)
    assert "not run again: " in works("restore", fresh.state_dir, saved)
    assert works("verify", fresh.state_dir).startswith("whole: ")
    assert not (fresh.state_dir / "state.db.before").exists()
    with fresh, fresh.client() as client:
        assert output(client, "succeeded") == "größe: 日本語 ☃\n"
        assert {show(client, id)["result"] for id in ("running", "waiting")} == {"lost"}
        assert not client.ask("rpc", "dispatcher", {"action": "list"}).get("waiting")
