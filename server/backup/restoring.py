"""Puts a backup back, in place of the state that is there, which is kept beside.

The new state is made in a directory beside the old one, whole and on disk; what takes its place
then is renames alone (`placing`). Until then nothing of the old one is touched.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from dispatcher import foreign, keepers, logs
from dispatcher.identity import boot_clock
from dispatcher.processes import boot_mark
from dispatcher.steps import Now
from server.backup import contents, placing
from server.backup.contents import KEYS, TOKEN, Backup
from server.backup.making import ROOMS
from server.login import audit, keys, tokens
from server.statedir import StateDir
from sysadmd import journal, schema
from sysadmd.errors import CannotStart
from sysadmd.events import SYSTEMS
from sysadmd.journal import Transaction
from sysadmd.machine import reason
from sysadmd.mishaps import COMPLAINTS, translate
from sysadmd.text import printable

# Always there, that those of the old state make room: books and pipes of its jobs.
_ROOMS: Final = ("jobs", "keeper", "pipes")
# How long the keeper of a daemon that has just ended may take to go; s.
GOING: Final = 3.0
# Of jobs, tokens and keys so many are named.
NAMED: Final = 20


@dataclass(slots=True)
class _Told:
    """What there is to say. last: the last event. lost: ids of jobs; tokens, keys: names."""

    last: str = ""
    lost: list[str] = field(default_factory=list[str])
    tokens: list[str] = field(default_factory=list[str])
    keys: list[str] = field(default_factory=list[str])


def restore(state_dir: Path, source: Path, account: str) -> list[str]:
    """Put a backup back; what was lost, and what to do now, in lines.

    account: who does it, for the trail. Raises: BackupUnusable, CannotStart, StoreUnusable,
    StoreFull.
    """
    backup = Backup(source)
    os.umask(0o077)
    state = StateDir(state_dir)
    with state.in_words():
        _check_place(state_dir)
        told = _Told()
        with _beside(state_dir) as new:
            _copy(backup, new)
            _renew(backup, new, told, account, last=max(_uids(state_dir), default=0))
            contents.all_to_disk(new)
            placing.commit(state_dir)
        try:
            aside = placing.settle(state_dir)
        except OSError as error:
            # It is decided, and whoever goes on with it can't say this any more.
            raise CannotStart(
                "\n".join(_lines(backup, state, None, told))
                + "\nbut not all of it could be put in its place, nor can the daemon start:"
                f" {reason(error)}. Then start the daemon, which goes on with it"
            ) from error
    return _lines(backup, state, aside, told)


def _check_place(state_dir: Path) -> None:
    """Raises: CannotStart, OSError."""
    room = state_dir / "keeper"
    until = time.monotonic() + GOING
    while living := keepers.living(room):
        if time.monotonic() > until:
            raise CannotStart(
                f"jobs of {state_dir} may still run: who looks after them lives (processes"
                f" {', '.join(map(str, sorted(living)))}). Wait for their end, or start the"
                " daemon and kill them (sysadmctl jobs, sysadmctl kill); then restore"
            )
        time.sleep(0.05)
    home = state_dir.stat().st_dev
    for name in (placing.DATABASE, KEYS, TOKEN, *_ROOMS):
        for old in placing.moved(name):
            with suppress(FileNotFoundError):
                if (state_dir / old).lstat().st_dev != home:
                    raise CannotStart(
                        f"{state_dir / old} is on a file system of its own, from which it can't"
                        " be moved; unmount it, or restore into another --state-dir"
                    )


def _uids(state_dir: Path) -> list[int]:
    """The jobs of what is there, and was before, by their logs: the state may be damaged."""
    places = (state_dir, *state_dir.glob(placing.ASIDE + "*"))
    return [uid for each in places if (each / "jobs").is_dir() for uid in logs.uids(each)]


@contextmanager
def _beside(state_dir: Path) -> Generator[Path]:
    """Where the new state is made; removed if it does not come to its end."""
    new = state_dir / placing.RESTORING
    new.mkdir(mode=0o700)
    try:
        yield new
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _copy(backup: Backup, new: Path) -> None:
    """Raises: BackupUnusable, OSError."""
    for name in _ROOMS:
        (new / name).mkdir(mode=0o700)
    for name, digest in backup.files():
        target = new / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            contents.pour(backup.read(name, digest), target)
        except FileExistsError as error:
            raise backup.damaged(f"{contents.LIST} (it has {name} twice)") from error
    if not (new / placing.DATABASE).exists():
        raise backup.damaged(f"{contents.LIST} (it lacks {placing.DATABASE})")


def _renew(backup: Backup, new: Path, told: _Told, account: str, *, last: int) -> None:
    """Make the copy what goes on from here: another journal, in which nothing runs.

    Raises: BackupUnusable, StoreUnusable, StoreFull.
    """
    path, saved = new / placing.DATABASE, backup.path / placing.DATABASE
    now = Now(time.time(), boot_clock(), boot_mark())
    try:
        db = sqlite3.connect(path, isolation_level=None)
        try:
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok" or not schema.versions(db):
                raise backup.damaged(f"{placing.DATABASE} ({verdict})")
            schema.check(db, saved, ROOMS)
            schema.migrate(db, path, ROOMS)
            # As it was it is in the backup.
            path.with_name(path.name + schema.BEFORE).unlink(missing_ok=True)
            db.execute("BEGIN IMMEDIATE")
            told.last = _last_event(db)
            change = Transaction(db)
            told.lost = foreign.lose_active(change, now, last)
            told.tokens = [token.name for token in tokens.listed(db) if token.name]
            told.keys = [f"{key.name} of {key.account}" for key in keys.listed(db)]
            journal.renew_epoch(db)
            made = backup.manifest
            audit.write(
                change, account, "local", f"restore of a backup of {made.host}, {made.time}"
            )
            db.execute("COMMIT")
        finally:
            db.close()
    except COMPLAINTS as error:
        raise translate(error, path) from error


def _last_event(db: sqlite3.Connection) -> str:
    """What it told, in a line."""
    seq = journal.head(db).seq
    found = db.execute("SELECT system, body FROM events WHERE seq = ?", (seq,)).fetchone()
    if found is None:
        return ""
    system, body = SYSTEMS[int(found[0])], bytes(found[1])
    said: dict[str, Any] = {}
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        said = msgspec.json.decode(body, type=dict[str, Any])
    what = str(said.get("message", ""))
    if job := db.execute("SELECT id FROM jobs WHERE uid = ?", (said.get("job"),)).fetchone():
        what = f"{job[0]} {said.get('state')}"
    return f"{system} {printable(what)}".rstrip()


def _lines(backup: Backup, state: StateDir, aside: Path | None, told: _Told) -> list[str]:
    made = backup.manifest
    host, saved_at = printable(made.host), printable(made.time)
    lines = [f"{state.path} is as it was on {host} at {saved_at}"]
    if told.last:
        at, cursor = printable(made.last_event or ""), printable(made.cursor)
        lines.append(f"the last event that it has: {at} {told.last} ({cursor})")
    lines.append(
        "what happened since is lost. Cursors from before are refused: programs begin again"
        " with a snapshot, people with `sysadmctl tail --since oldest`"
    )
    if told.lost:
        lines.append(
            "jobs that ran or waited then end as lost, and are not run again:"
            f" {_some(told.lost)}"
        )
    lines.append(
        "lines of watched logs since then are told again; tokens and keys that were revoked"
        " since then are valid again, those made since then are not"
    )
    if told.tokens:
        lines.append(
            f"the named tokens are: {_some(told.tokens)}; `sysadmd token revoke` ends one"
        )
    if told.keys:
        lines.append(
            f"the keys that log in are: {_some(told.keys)}; `sysadmctl key revoke` ends one"
        )
    if not state.token_file.exists():
        lines.append(
            "there is no admin token and no certificate, so the next start makes new ones:"
            " who has pinned the key logs in again"
        )
    if aside is not None:
        lines.append(f"what was there before is in {aside}; delete it when all is well")
    owner = backup.path.stat().st_uid
    if owner not in (os.geteuid(), 0):
        lines.append(f"the backup belongs to uid {owner}, who could have changed it")
    return lines


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(printable, names[:NAMED])) + more
