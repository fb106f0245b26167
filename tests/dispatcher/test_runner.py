"""Jobs through the door of the room, with real processes: what becomes of them."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import socket
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dispatcher import crew, output_files, records
from sysadmd.journal import Transaction
from tests.kit import wait_for
from tests.kit.driver import Driver
from tests.kit.processes import starters
from tests.kit.state_file import state_file


def story(daemon: Driver, uid: int) -> list[tuple[str, int | None]]:
    """The states that a job was told in, without progress."""
    return [
        (body["state"], body.get("command"))
        for _, body in daemon.events()
        if body["job"] == uid and "to" not in body
    ]


def test_commands_run_in_order_until_one_fails(daemon: Driver) -> None:
    uid = daemon.submit("echo one", "sh -c 'echo two; echo three >&2; exit 3'", "echo never")
    # The quotes of a shell are none here, so the second one is given as a vector.
    assert daemon.finished(uid).result == "failed"
    uid = daemon.submit("echo one", ["sh", "-c", "echo two; echo three >&2; exit 3"], "echo no")
    job = daemon.finished(uid)
    assert job.result == "failed"
    assert [command.state for command in job.commands] == ["finished", "finished", "skipped"]
    assert [command.return_code for command in job.commands] == [0, 3, None]
    assert [command.log_size for command in job.commands] == [4, 10, None]
    assert daemon.output(uid, 0) == b"one\n"
    assert daemon.output(uid, 1) == b"two\nthree\n"
    assert story(daemon, uid) == [
        ("pending", None),
        ("running", 0),
        ("running", 1),
        ("finished", None),
    ]
    assert job.created <= (job.started or 0) <= (job.finished or 0)


def test_a_job_without_commands_succeeds_at_once(room: Driver) -> None:
    uid = room.submit("", " \t")
    job = room.job(uid)
    assert (job.state, job.result, job.started, job.commands) == (
        "finished",
        "succeeded",
        None,
        (),
    )
    assert story(room, uid) == [("pending", None), ("finished", None)]


def test_what_can_not_start_says_so_in_its_log(room: Driver, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no program\n")
    text.chmod(0o755)
    for command, more, code, said in (
        ("no-such-program", {}, 127, "no-such-program: command not found"),
        ("/no/such", {}, 127, "/no/such: No such file or directory"),
        ([""], {}, 127, "command not found"),
        ("/etc/passwd", {}, 126, "/etc/passwd: Permission denied"),
        (str(text), {}, 126, f"{text}: Exec format error"),
        ("true", {"cwd": "/no/such"}, 126, "/no/such: No such file or directory"),
    ):
        uid = room.submit(command, "echo never", **more)
        job = room.finished(uid)
        assert job.result == "failed"
        assert job.commands[0].return_code == code
        assert said in room.output(uid).decode()
        assert job.commands[0].log_size == len(room.output(uid))


def test_a_signal_is_a_negative_code(room: Driver) -> None:
    uid = room.submit(["sh", "-c", "kill -9 $$"])
    assert room.finished(uid).commands[0].return_code == -9


STARTING = """
import json, os, resource, signal, sys
pipes = sys.argv[1]
def which(file):
    found = os.stat(file)
    return [found.st_dev, found.st_ino]
def is_open(file):
    try:
        os.fstat(file)
    except OSError:
        return False
    return True
print(json.dumps({
    "env": dict(os.environ),
    "cwd": os.getcwd(),
    "umask": os.umask(0),
    "files": list(filter(is_open, range(256))),
    "standard": list(map(which, range(3))),
    "pipes": {name: which(f"{pipes}/{name}") for name in os.listdir(pipes)},
    "leads": [os.getpgrp() == os.getpid(), os.getsid(0) == os.getpid()],
    "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "ignored": [n for n in signal.valid_signals() if signal.getsignal(n) == signal.SIG_IGN],
    "limit": resource.getrlimit(resource.RLIMIT_NOFILE),
}))
"""


def test_a_command_starts_as_promised(daemon: Driver, tmp_path: Path) -> None:
    argv = [sys.executable, "-S", "-c", STARTING, str(tmp_path / "pipes")]
    uid = daemon.submit(argv, env={"A": "ä"}, cwd="/tmp")
    job = daemon.finished(uid)
    assert job.result == "succeeded", daemon.output(uid)
    found: dict[str, Any] = json.loads(daemon.output(uid))
    home = found["env"].pop("HOME")
    assert Path(home).is_dir()
    # Python itself adds this one.
    found["env"].pop("LC_CTYPE", None)
    assert found["env"] == {
        "PATH": "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin",
        "LANG": "C.UTF-8",
        "A": "ä",
    }
    assert job.env == ("A",)
    assert found["cwd"] == "/tmp"
    assert found["umask"] == 0o022
    assert found["files"] == [0, 1, 2]
    null, pipe = Path(os.devnull).stat(), found["pipes"][f"{uid}.0.pipe"]
    assert found["standard"] == [[null.st_dev, null.st_ino], pipe, pipe]
    # FreeBSD has no POSIX_SPAWN_SETSID.
    assert found["leads"] == [True, sys.platform.startswith("linux")]
    assert found["blocked"] == []
    # By Python itself; what it was given is in the next test.
    assert set(found["ignored"]) <= {signal.SIGPIPE, signal.SIGXFSZ}
    assert tuple(found["limit"]) == resource.getrlimit(resource.RLIMIT_NOFILE)


@pytest.mark.parametrize("name", ["PIPE", "XFSZ", "TERM", "HUP", "INT"])
def test_what_python_or_the_keeper_takes_ends_a_command(room: Driver, name: str) -> None:
    job = room.finished(room.submit(["sh", "-c", f"kill -{name} $$"]))
    assert job.commands[0].return_code == -getattr(signal, f"SIG{name}")


def test_a_waiting_job_is_killed_without_a_start(daemon: Driver) -> None:
    script = "echo up; exec sleep 60"
    first = daemon.submit(["sh", "-c", script], id="first", queue="pkg_queue")
    # Before its command has begun it could be kept from that.
    wait_for(lambda: daemon.output(first))
    second = daemon.submit("echo never", id="second", queue="pkg_queue")
    assert daemon.ask({"kill": ["second", "unknown"]}) == {"killed": ["second"]}
    job = daemon.job(second)
    assert (job.state, job.result, job.started) == ("finished", "killed", None)
    assert job.commands[0].state == "skipped"
    assert daemon.ask({"kill": ["first"]}) == {"killed": ["first"]}
    assert daemon.finished(first).result == "killed"
    assert daemon.finished(first).commands[0].return_code == -15
    assert daemon.ask({"kill": ["first"]}) == {"killed": []}
    third = daemon.submit("echo x", queue="pkg_queue")
    assert daemon.finished(third).result == "succeeded"


def test_a_timeout_ends_the_whole_job(daemon: Driver) -> None:
    before = time.monotonic()
    uid = daemon.submit("echo one", "sleep 60", "echo never", timeout=2)
    job = daemon.finished(uid)
    assert time.monotonic() - before < 20
    assert job.result == "timed-out"
    assert [command.return_code for command in job.commands] == [0, -15, None]


def test_a_queue_never_runs_more_than_it_may_and_keeps_the_order(room: Driver) -> None:
    orders: list[dict[str, Any]] = [
        {"commands": [["sh", "-c", f"echo {n} >>order; sleep 0.05; echo {n} >>order"]]}
        for n in range(8)
    ]
    for order in orders:
        order.update(queue="pkg_queue", cwd=str(room.state_dir))
    uids = [uid for uid, _ in room.ask({"submit": orders})["jobs"]]
    for uid in uids:
        assert room.finished(uid).result == "succeeded"
    lines = (room.state_dir / "order").read_text().split()
    assert lines == [str(n) for n in range(8) for _ in range(2)]


def test_jobs_without_a_queue_run_at_once_up_to_the_limit(tmp_path: Path) -> None:
    with Driver(tmp_path, default_parallel=3, kill_grace=0) as daemon:
        uids = [daemon.submit("sleep 60", id=f"j{n}") for n in range(5)]
        wait_for(lambda: all(daemon.job(uid).state == "running" for uid in uids[:3]))
        assert [daemon.job(uid).state for uid in uids[3:]] == ["pending", "pending"]
        daemon.ask({"kill": ["j0"]})
        wait_for(lambda: daemon.job(uids[3]).state == "running")
        assert daemon.job(uids[4]).state == "pending"


def test_the_same_id_and_commands_give_the_same_job_while_it_is_active(room: Driver) -> None:
    first = room.submit("sleep 60", "echo x", id="a")
    assert room.submit(["sleep", "60"], "echo  x", id="a") == first
    reply = room.ask(
        {"submit": [{"id": "b", "commands": ["true"]}, {"id": "a", "commands": ["sleep 61"]}]}
    )
    assert reply["error"] == "conflict"
    assert "id 'a' is in use by an active job with other commands" in reply["text"]
    # All or nothing: the first of the two is not there either.
    with state_file(room.state_dir) as db:
        assert records.newest(db, "b") is None
    room.ask({"kill": ["a"]})
    room.finished(first)
    assert room.submit("sleep 0", id="a") != first


def test_a_key_means_the_same_job_even_when_it_has_finished(room: Driver) -> None:
    first = room.submit("echo x", key="k")
    room.finished(first)
    assert room.submit("echo x", key="k") == first
    reply = room.ask({"submit": [{"commands": ["echo y"], "key": "k"}]})
    assert reply["error"] == "conflict"
    assert room.output(first) == b"x\n"
    reply = room.ask({"submit": [{"commands": ["sleep 9"], "id": "i", "key": "l"}]})
    reply = room.ask({"submit": [{"commands": ["sleep 9"], "id": "i", "key": "m"}]})
    assert reply["error"] == "conflict"


def test_an_unknown_queue_is_refused_with_the_known_ones(room: Driver) -> None:
    reply = room.ask({"submit": [{"commands": ["true"], "queue": "nope"}]})
    assert reply["error"] == "bad-request"
    assert reply["text"].endswith("allowed: iocage_queue, no_queue, pkg_queue")
    reply = room.ask({"pause": "nope"})
    assert reply["error"] == "not-found"


def test_progress_is_told_in_ranges_that_join_and_cut_no_character(room: Driver) -> None:
    # One byte at a time, so that many looks fall inside a character.
    script = (
        "import os, time\n"
        "for byte in ('äöü€😀' * 30).encode():\n"
        "    os.write(1, bytes([byte])); time.sleep(0.002)\n"
    )
    uid = room.submit([sys.executable, "-S", "-c", script])
    job = room.finished(uid)
    data = room.output(uid)
    assert job.commands[0].log_size == len(data) == 30 * 13
    at = 0
    ranges = [body for _, body in room.events() if body["job"] == uid and "to" in body]
    assert ranges
    for body in ranges:
        assert body["from"] == at
        at = body["to"]
        data[body["from"] : at].decode()
    assert at <= len(data)


def test_progress_that_is_plainly_not_text_is_told_as_it_is(room: Driver) -> None:
    script = "import os, time\nos.write(1, b'\\xff\\x80\\x80\\x80\\x80'); time.sleep(60)"
    uid = room.submit([sys.executable, "-S", "-c", script], id="a")
    wait_for(lambda: any(body.get("to") == 5 for _, body in room.events()))
    room.ask({"kill": ["a"]})
    assert room.finished(uid).commands[0].log_size == 5


def test_progress_comes_at_most_once_in_its_interval(tmp_path: Path) -> None:
    with Driver(tmp_path, progress_interval=0.4) as daemon:
        uid = daemon.submit(["sh", "-c", "for i in $(seq 60); do echo $i; sleep 0.02; done"])
        daemon.finished(uid)
        with state_file(tmp_path) as db:
            times = [
                at
                for at, body in db.execute("SELECT time, body FROM events ORDER BY seq")
                if json.loads(body)["state"] == "running"
            ]
    assert len(times) >= 2
    assert all(later - earlier >= 390 for earlier, later in itertools.pairwise(times))


def test_a_background_child_does_not_hold_its_job(daemon: Driver) -> None:
    script = "(while [ ! -e go ]; do sleep 0.05; done; echo late; echo >late) & echo soon"
    uid = daemon.submit(["sh", "-c", script], cwd=str(daemon.state_dir))
    job = daemon.finished(uid)
    assert (job.result, job.commands[0].log_size) == ("succeeded", 5)
    (daemon.state_dir / "go").touch()
    # The child was not killed; what it writes is not counted any more.
    wait_for((daemon.state_dir / "late").exists)
    # It is moved into the log a moment later.
    wait_for(lambda: daemon.output(uid) == b"soon\nlate\n")
    assert daemon.job(uid) == job


def test_retention_takes_finished_jobs_of_which_no_event_is_left(room: Driver) -> None:
    uids = [room.submit("true") for _ in range(4)]
    for uid in uids:
        room.finished(uid)
    room.stop()
    with sqlite3.connect(room.state_dir / "state.db", isolation_level=None) as db:
        ends = [
            db.execute("SELECT last_seq FROM jobs WHERE uid = ?", (uid,)).fetchone()[0]
            for uid in uids
        ]
        change = Transaction(db)
        assert records.prune_finished(change, 2, min(ends) - 1, 0) == []
        gone = records.prune_finished(change, 2, max(ends), 0)
        assert len(gone) == 2
        kept = [job.uid for job in records.finished_jobs(db)]
        assert sorted(kept + gone) == sorted(uids)
        # Newest first, and in pages.
        assert [job.uid for job in records.finished_jobs(db, kept[0])] == kept[1:]
        assert list(records.finished_jobs(db, kept[1])) == []
        # Old ones go as well, but none before its last event.
        assert records.prune_finished(change, 4, min(ends), max(ends)) == []
        assert sorted(records.prune_finished(change, 4, max(ends), max(ends))) == sorted(kept)
    db.close()
    # Nobody deleted their logs: the next start does.
    room.start()
    wait_for(lambda: not list((room.state_dir / "jobs").iterdir()))


def test_who_is_killed_as_he_is_about_to_start_leaves_his_place_to_the_next(
    tmp_path: Path,
) -> None:
    """Whenever the kill is committed, and whatever the daemon does just then."""
    with Driver(tmp_path, queues={"q": 1}) as daemon:
        for number in range(120):
            daemon.ask({"pause": "q"})
            first, second = (daemon.submit("true", queue="q") for _ in range(2))
            id = daemon.job(first).id
            with socket.socket(socket.AF_UNIX) as door:
                door.connect(str(daemon.door))
                door.sendall(b'{"resume": "q"}\n')
                until = time.monotonic() + number * 2e-5
                while time.monotonic() < until:
                    pass
                daemon.ask({"kill": [id]})
                assert door.recv(65536) == b"{}\n"
            assert daemon.finished(first).result in ("killed", "succeeded")
            assert daemon.finished(second).result == "succeeded"


def test_starters_that_are_needed_no_more_leave_nothing(tmp_path: Path) -> None:
    def spares() -> set[str]:
        found = (tmp_path / output_files.PIPES).glob("spare.*")
        return {path.name for path in found if path.is_dir()}

    with Driver(tmp_path, default_parallel=3 * crew.IDLE) as daemon:
        uids = [daemon.submit("sleep 0.5") for _ in range(3 * crew.IDLE)]
        for uid in uids:
            daemon.finished(uid)
        wait_for(lambda: len(starters(tmp_path)) == crew.IDLE, "the end of the others")
        wait_for(lambda: spares() == {f"spare.{pid}" for pid in starters(tmp_path)})


def test_a_state_directory_may_have_a_long_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 60) / ("y" * 60)
    long.mkdir(parents=True)
    # As when all of it lies below a long TMPDIR.
    monkeypatch.setenv("TMPDIR", str(long))
    with Driver(long, door=tmp_path / "door") as daemon:
        assert daemon.finished(daemon.submit("true")).result == "succeeded"
