"""Migrations: nothing is lost by a step, and what was there is kept beside."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sysadmd import copies
from sysadmd.errors import StoreFull, StoreUnusable
from sysadmd.schema import Hiding, Step, versions
from sysadmd.store import open_store

FAMILY = """
CREATE TABLE parents (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE children (
    parent INTEGER NOT NULL REFERENCES parents ON DELETE CASCADE, n INTEGER NOT NULL
);
CREATE TABLE secrets (value TEXT);
INSERT INTO parents VALUES (1, 'a'), (2, 'b');
INSERT INTO children VALUES (1, 0), (1, 1), (2, 0);
INSERT INTO secrets VALUES ('hunter2');
"""
# As SQLite's manual has a table changed: made anew, filled, put in the old one's place.
REBUILD = """
CREATE TABLE new (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
INSERT INTO new SELECT id, name FROM parents;
DROP TABLE parents;
ALTER TABLE new RENAME TO parents;
"""


def migrated(path: Path, *steps: Step) -> None:
    async def body() -> None:
        open_store(path, {"family": steps}).close()

    asyncio.run(body())


@contextmanager
def opened(path: Path) -> Generator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as db:
        yield db


def children(path: Path) -> int:
    with opened(path) as db:
        return int(db.execute("SELECT count(*) FROM children").fetchone()[0])


def test_a_table_that_is_made_anew_keeps_what_belongs_to_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    migrated(path, FAMILY)
    migrated(path, FAMILY, REBUILD)
    assert children(path) == 3
    with opened(path) as db:
        assert versions(db)["family"] == 2
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("DELETE FROM parents WHERE id = 1")
        assert db.execute("SELECT count(*) FROM children").fetchone() == (1,)


def test_a_step_may_be_a_function(tmp_path: Path) -> None:
    def capitals(db: sqlite3.Connection) -> None:
        for id, name in db.execute("SELECT id, name FROM parents").fetchall():
            db.execute("UPDATE parents SET name = ? WHERE id = ?", (name.upper(), id))

    path = tmp_path / "s.db"
    migrated(path, FAMILY)
    migrated(path, FAMILY, capitals)
    with opened(path) as db:
        assert db.execute("SELECT name FROM parents").fetchall() == [("A",), ("B",)]


def test_a_step_that_would_orphan_rows_is_undone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    migrated(path, FAMILY)
    with pytest.raises(StoreUnusable, match="children would belong to none of parents"):
        migrated(path, FAMILY, REBUILD.replace("FROM parents;", "FROM parents WHERE id = 1;"))
    assert children(path) == 3
    with opened(path) as db:
        assert versions(db)["family"] == 1
        assert db.execute("SELECT count(*) FROM parents").fetchone() == (2,)


def test_a_step_that_loses_a_key_loses_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    migrated(path, FAMILY)
    bare = "CREATE TABLE new AS SELECT * FROM parents; DROP TABLE parents;"
    migrated(path, FAMILY, f"{bare} ALTER TABLE new RENAME TO parents;")
    assert children(path) == 3


def test_what_was_there_is_kept_beside_but_for_secrets(tmp_path: Path) -> None:
    path, before = tmp_path / "s.db", tmp_path / "s.db.before"
    family = Hiding(FAMILY, "DELETE FROM secrets")
    migrated(path, family)
    assert not before.exists()
    migrated(path, family, REBUILD)
    with opened(before) as db:
        assert versions(db)["family"] == 1
        assert db.execute("SELECT count(*) FROM children").fetchone() == (3,)
        assert db.execute("SELECT * FROM secrets").fetchall() == []
    assert b"hunter2" not in before.read_bytes()
    assert stat.S_IMODE(before.stat().st_mode) == 0o600
    with opened(path) as db:
        assert db.execute("SELECT * FROM secrets").fetchall() == [("hunter2",)]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s.db", "s.db.before"]


def test_without_room_for_the_copy_nothing_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "s.db"
    migrated(path, FAMILY)
    with monkeypatch.context() as patched:
        patched.setattr(copies, "to_disk", full)
        with pytest.raises(StoreFull, match="free some space"):
            migrated(path, FAMILY, REBUILD)
    assert [file.name for file in tmp_path.iterdir()] == ["s.db"]
    migrated(path, FAMILY, REBUILD)
    assert children(path) == 3


def test_where_no_copy_can_be_put_is_said(tmp_path: Path) -> None:
    path, before = tmp_path / "s.db", tmp_path / "s.db.before"
    migrated(path, FAMILY)
    before.mkdir()
    with pytest.raises(StoreFull, match=f"can't be copied to {before} before"):
        migrated(path, FAMILY, REBUILD)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s.db", "s.db.before"]


def test_what_a_start_that_was_killed_has_left_of_a_copy_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    migrated(path, FAMILY)
    (tmp_path / "s.db.before.new").write_bytes(b"half of it")
    migrated(path, FAMILY, REBUILD)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s.db", "s.db.before"]
