"""What a job brought in its environment is nowhere any more once nothing needs it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from tests.kit import wait_for
from tests.kit.driver import Driver
from tests.kit.state_file import state_file

SECRET = "hunter2-SECRET-4711"


def where(state_dir: Path, text: str = SECRET) -> list[str]:
    """The files that have it, but for logs."""
    found: list[str] = []
    for file in state_dir.rglob("*"):
        # What is through goes meanwhile.
        with contextlib.suppress(FileNotFoundError):
            is_kept = file.is_file() and file.suffix != ".log"
            if is_kept and text.encode() in file.read_bytes():
                found.append(file.name)
    return found


def gone(room: Driver) -> bool:
    return not where(room.state_dir)


def env_of(room: Driver, uid: int) -> str:
    with state_file(room.state_dir) as db:
        (env,) = db.execute("SELECT env FROM jobs WHERE uid = ?", (uid,)).fetchone()
    return str(env)


def test_values_are_gone_when_the_last_command_has_begun(room: Driver) -> None:
    env, cwd = {"PASSWORD": SECRET}, str(room.state_dir)
    wait = 'sh -c "until test -e go; do sleep 0.05; done"'
    last = 'sh -c "echo $PASSWORD; exec sleep 60"'
    uid = room.submit(wait, last, env=env, cwd=cwd)
    wait_for(lambda: room.job(uid).state == "running")
    room.kill()
    room.start()
    (room.state_dir / "go").touch()
    wait_for(lambda: room.output(uid, 1) == f"{SECRET}\n".encode(), "its output")
    wait_for(lambda: gone(room), "an end of the secret, while it runs")
    assert env_of(room, uid) == '{"PASSWORD":null}'


def test_values_are_gone_after_every_end(room: Driver) -> None:
    long = {f"N{number}": SECRET * 50 for number in range(60)}
    uids = [
        room.submit(command, env=env)
        for command in ("true", "false", "/nowhere", f"echo {'x' * 3000}")
        for env in ({"A": SECRET}, long)
        for _ in range(10)
    ]
    for uid in uids:
        room.finished(uid)
    waiting = room.submit("sleep 60", "true", env={"A": SECRET}, timeout=0.5)
    assert room.finished(waiting).result == "timed-out"
    wait_for(lambda: gone(room), "an end of all values")
    assert env_of(room, uids[0]) == '{"A":null}'


def test_who_reads_what_was_true_before_only_delays_it(room: Driver) -> None:
    uid = room.submit("true", env={"A": SECRET})
    reader = sqlite3.connect(room.state_dir / "state.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM jobs").fetchone()
    room.finished(uid)
    # Others are written meanwhile.
    for _ in range(5):
        room.finished(room.submit("true"))
    assert where(room.state_dir)
    reader.close()
    wait_for(lambda: gone(room), "an end of the secret")


def test_an_older_state_file_is_rid_of_them(room: Driver) -> None:
    uid = room.submit("true", env={"A": "x"})
    room.finished(uid)
    room.kill()
    text = f'{{"A":"{SECRET}","B\\"":"{SECRET}"}}'
    with sqlite3.connect(room.state_dir / "state.db", isolation_level=None) as db:
        db.execute("UPDATE jobs SET env = ? WHERE uid = ?", (text, uid))
        # As it was before.
        db.execute("DROP TABLE secrets")
        db.execute("ALTER TABLE commands DROP COLUMN reason")
        db.execute("DROP INDEX jobs_of_classes")
        db.execute("DROP TABLE lent")
        for column in ("setting", "channel", "log_field", "report", "account"):
            db.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
        db.execute("UPDATE schema SET version = 3 WHERE room = 'dispatcher'")
        db.execute(
            "INSERT INTO jobs (id, state, created, env) VALUES ('waits', 0, 0, ?)", (text,)
        )
        (waits,) = db.execute("SELECT max(uid) FROM jobs").fetchone()
        command = '["sh","-c","echo $A"]'
        db.execute(
            "INSERT INTO commands (job, n, argv, text, state) VALUES (?, 0, ?, 'x', 0)",
            (waits, command),
        )
    assert where(room.state_dir)
    room.start()
    assert room.finished(waits).result == "succeeded"
    assert room.output(waits) == f"{SECRET}\n".encode()
    wait_for(lambda: gone(room), "an end of the secret")
    assert env_of(room, uid) == env_of(room, waits) == '{"A":null,"B\\"":null}'


def test_a_copy_put_back_starts_nothing_without_the_values(room: Driver) -> None:
    env, cwd = {"A": SECRET}, str(room.state_dir)
    go = "echo begun; until test -e go; do sleep 0.05; done"
    runs = room.submit(["sh", "-c", f"{go}; exit 0"], env=env, cwd=cwd)
    further = room.submit(["sh", "-c", f"{go}; exit 0"], ["touch", "begun"], env=env, cwd=cwd)
    wait_for(lambda: room.output(runs) == room.output(further) == b"begun\n", "both")
    room.kill()
    with state_file(room.state_dir) as db:
        db.execute("DELETE FROM secrets")
        # As one that waited: an environment, and nothing of it begun.
        waits = db.execute(
            "INSERT INTO jobs (id, state, created, env) VALUES ('w', 0, 0, '{\"A\":null}')"
        ).lastrowid
        assert waits is not None
        command = '["touch","begun"]'
        row = (waits, 0, command, "x", 0)
        db.execute("INSERT INTO commands (job, n, argv, text, state) VALUES (?,?,?,?,?)", row)
    room.start()
    lost = room.finished(waits)
    assert (lost.result, lost.started is None) == ("lost", False)
    assert lost.commands[0].state == "skipped"
    (room.state_dir / "go").touch()
    # What has begun with it goes on; what has not, does not.
    assert room.finished(runs).result == "succeeded"
    ended = room.finished(further)
    assert ended.result == "lost"
    assert [one.state for one in ended.commands] == ["finished", "skipped"]
    assert not (room.state_dir / "begun").exists()
    assert room.finished(room.submit("true", env=env)).result == "succeeded"
