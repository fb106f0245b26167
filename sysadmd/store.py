"""The state file: one SQLite database, one writer thread, many changes to a disk sync.

A change is a function that takes a Transaction. Changes that arrive together are committed
together; each stands or falls alone (savepoint). Nobody hears of a change before its commit,
and what follows it in memory is handed in with it.
The rooms above own their tables: they hand in their schema steps when the store is opened.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import math
import queue
import sqlite3
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from sysadmd import ages, journal, mishaps, schema
from sysadmd.apart import lasting
from sysadmd.backoff import backoff
from sysadmd.errors import StoreDamaged, StoreFull, StoreLost
from sysadmd.journal import Event, Transaction
from sysadmd.mishaps import COMPLAINTS, WordedConnection, find_damage, translate
from sysadmd.reading import Reading
from sysadmd.schema import Schemas
from sysadmd.whereabouts import Stamp, Whereabouts

T = TypeVar("T")
Opened = TypeVar("Opened", bound=sqlite3.Connection)

log = logging.getLogger(__name__)

# Changes in one commit. More only lengthens the wait of the first: measured flat from 256 on.
GROUP: Final = 512
# A change that is not kept for so long hangs: the disk does not answer; s.
HANGS: Final = 10.0
# How long another process may hold the file locked until that is said, s.
BUSY: Final = 5.0
# How long the last read may take at the end; what hangs longer ends with the process, s.
LAST_READ: Final = 1.0
# How often a writer that has nothing to do looks at its files: what becomes of them is to be
# known in seconds; s.
LOOK: Final = 2.0

# How long after it was wiped a secret may still stand in the WAL, s; and how often it is tried
# to empty that while somebody reads what was true before.
SCRUB_AFTER: Final = 1.0
LONGEST_SCRUB: Final = 10.0

SCHEMAS: Final[Schemas] = {"journal": journal.SCHEMA, "passage": ages.SCHEMA}


class MemoryBehind(Exception):
    """A change is on disk, and what follows it in memory has failed: a defect. Whatever its
    cause, this is no SysadmdError: who asked would take it for a refusal."""


@dataclass(slots=True)
class _Change:
    run: Callable[[Transaction], Any]
    then: Callable[[Any], object] | None
    done: asyncio.Future[Any]


class Store:
    """The open state file. Made by `open_store`; belongs to the event loop that opened it."""

    def __init__(
        self, path: Path, writer: sqlite3.Connection, epoch: str, beside: Sequence[Path]
    ) -> None:
        self.path = path
        self.epoch = epoch
        # Committed events in order, called on the event loop before the tasks that waited for
        # the commit go on; set by the composition.
        self.publish: Callable[[list[Event]], None] = lambda events: None
        # The same for what the system's log is told of them.
        self.say: Callable[[list[str]], None] = lambda lines: None
        # The files are at their paths again: called on the event loop, as for `publish`.
        self.returned: Callable[[], None] = lambda: None
        contents = (path, path.with_name(path.name + "-wal"))
        files = (*contents, path.with_name(path.name + "-shm"), *beside)
        # The writer's, as are the next five: what it and nobody else has written last; when it
        # looks at all the files again; what it has found wrong with that; why it keeps nothing
        # since its files are not as they were, which others read; which event is the newest.
        self._files = Whereabouts((path.parent, *files), contents)
        self._stamp = self._files.stamp()
        self._look_at = 0.0
        self._unsound: tuple[Stamp, StoreFull] | None = None
        self._lost: str | None = None
        self._newest = journal.newest(writer)
        # The first damage that was met: it does not pass by itself.
        self._damage: str | None = None
        # For the event loop's short reads; never sees what is not committed.
        self.reader = self._open_reader(partial(WordedConnection, self._translate), 2048)
        # The reading thread's: for what is called there by `read`.
        self.thread_reader = self.open_reader()
        self._reading = Reading(self.thread_reader, self._translate)
        # Why the last changes could not be kept; None: they were.
        self.trouble: str | None = None
        # Changes that are not kept yet, and since when nothing has come of them.
        self._waiting = 0
        self._moved = 0.0
        # The defect that ends it.
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writer = writer
        # When the WAL is to be emptied: also of what an earlier daemon had no time for.
        self._scrub_at = time.monotonic() + SCRUB_AFTER
        self._scrubs = backoff(SCRUB_AFTER, LONGEST_SCRUB)
        self._changes: queue.SimpleQueue[_Change | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = lasting(self._write_all, "store writer")

    async def write(
        self, change: Callable[[Transaction], T], then: Callable[[T], object] | None = None
    ) -> T:
        """Run `change` in the writer thread; returns its result once it is on disk.

        The change must not wait for anything. An exception of it undoes it alone and is raised
        here. then: brings the memory up to it: called with the result on the event loop, in the
        order of commits, before anybody goes on who waits for one, also if nobody does. An
        exception of it is a defect, which `watch` raises. Raises: StoreFull when the disk takes
        nothing, the file is locked, damaged, or not the one at its path; MemoryBehind.
        """
        return await self.begin_write(change, then)

    def begin_write(
        self, change: Callable[[Transaction], T], then: Callable[[T], object] | None = None
    ) -> asyncio.Future[T]:
        """As `write`, but queued at once: changes are committed in the order of these calls."""
        done: asyncio.Future[T] = self._loop.create_future()
        if not self._waiting:
            self._moved = time.monotonic()
        self._waiting += 1
        self._changes.put(_Change(change, then, done))
        return done

    @property
    def health(self) -> str | None:
        """Why not all can be kept, be it that the disk does not answer; None: all is well."""
        silence = time.monotonic() - self._moved if self._waiting else 0.0
        told = self._lost or self.trouble
        if told is None and silence > HANGS:
            return f"the state directory's disk has not answered for {silence:.0f} s"
        return told or self._damage

    def read(
        self, look: Callable[[sqlite3.Connection], T], asker: Hashable = None
    ) -> asyncio.Future[T]:
        """Run `look` in the reading thread, in one transaction; for all that is not short.

        asker: whose turn it takes; others have theirs first. An exception of it is raised here.
        """
        return self._reading.begin(look, asker)

    def open_reader(self, cache: int = 2048) -> sqlite3.Connection:
        """A further connection, which only reads; for one thread at a time.

        cache: KiB of pages that it keeps at hand. Raises: StoreLost; sqlite3.Error, which
        `read` puts into words.
        """
        return self._open_reader(sqlite3.Connection, cache)

    def _open_reader(self, kind: Callable[..., Opened], cache: int) -> Opened:
        self._files.check()
        reader = kind(
            # It never makes the file.
            f"{self.path.absolute().as_uri()}?mode=rw",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY,
        )
        _prepare(reader)
        reader.execute("PRAGMA query_only = ON")
        reader.execute(f"PRAGMA cache_size = -{cache}")
        return reader

    async def watch(self) -> None:
        """Return never. Raises: whatever defect has ended the writing, or what follows it.

        Who has heard of it must end: what comes next would be lost, a new start loses nothing.
        """
        await self._broken

    def close(self) -> None:
        """Commit what is queued, then close the file. Blocks for the last disk sync."""
        self._changes.put(None)
        self._thread.join()
        self._reading.close(LAST_READ)
        self.reader.close()

    def _write_all(self) -> None:
        group: list[_Change] = []
        try:
            while (change := self._next()) is not None:
                group = [change]
                while len(group) < GROUP and not self._changes.empty():
                    following = self._changes.get()
                    if following is None:
                        self._changes.put(None)
                        break
                    group.append(following)
                self._commit(group)
        except BaseException as error:  # noqa: BLE001 - handed to `watch`
            self._loop.call_soon_threadsafe(self._break, error, group)
        finally:
            # The last that closes works the WAL in. Into a file that was put back meanwhile, or
            # from an older WAL, that would be the end of it: all is left as it is.
            if self._files.are_untouched(self._stamp):
                self._writer.close()
            else:
                _leave_open(self._writer)

    def _next(self) -> _Change | None:
        """The next change; None: it is the end. While there is none it looks at the files, and
        what was wiped leaves them."""
        while True:
            if self._scrub_at <= time.monotonic():
                self._scrub()
            wait = min(LOOK, max(0.0, self._scrub_at - time.monotonic()))
            try:
                return self._changes.get(timeout=wait)
            except queue.Empty:
                with suppress(StoreFull):
                    self._check()

    def _scrub(self) -> None:
        """Empty the WAL, if nobody reads there; else it is tried again. Waits for nobody."""
        db, is_held = self._writer, True
        # What is wrong the next commit says.
        with suppress(StoreFull, sqlite3.Error):
            self._check()
            db.execute("PRAGMA busy_timeout = 0")
            try:
                is_held = bool(db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
            finally:
                # A full disk has taken a part of it.
                self._remember()
        db.execute(f"PRAGMA busy_timeout = {BUSY * 1000:.0f}")
        self._scrub_at = time.monotonic() + next(self._scrubs) if is_held else math.inf

    def _check(self) -> None:
        """Are the files those that are at their paths, and as we have written them?

        Raises: StoreLost, StoreDamaged; said when it begins and when it is over.
        """
        try:
            stamp = self._files.stamp()
            now = time.monotonic()
            if stamp == self._stamp and self._lost is None and now < self._look_at:
                # Before each commit; all the files only now and then.
                return
            self._files.check()
            self._look_at = now + LOOK
            self._check_contents(stamp)
        except StoreFull as error:
            if self._lost is None:
                log.error("every change is refused: %s", error)
            self._lost = str(error)
            raise
        if self._lost is not None:
            self._lost = None
            log.info("the state directory's files are there again; changes are kept again")
            self._loop.call_soon_threadsafe(self.soundly, lambda: self.returned())

    def _remember(self) -> None:
        """The files are as we have left them."""
        if self._lost is None:
            with suppress(StoreFull):
                self._stamp = self._files.stamp()

    def _check_contents(self, stamp: Stamp) -> None:
        """Another program may copy an older file over ours, or change it as SQLite would."""
        if stamp == self._stamp:
            return
        if self._unsound is None or self._unsound[0] != stamp:
            self._unsound = None
            found = find_damage(self.path) or self._find_another_time()
            if isinstance(found, StoreDamaged):
                found = StoreDamaged(f"another program has written to {found}")
            elif found is not None and not isinstance(found, StoreLost):
                raise found
            self._unsound = (stamp, found) if found is not None else None
        if self._unsound is not None:
            # One that is raised again and again collects tracebacks.
            told = self._unsound[1]
            raise type(told)(str(told))
        self._stamp = stamp
        log.warning(
            "another program has written to %s while it was in use; it is sound", self.path
        )

    def _find_another_time(self) -> StoreLost | None:
        """Has it been put back, and our newest event is not its newest any more?

        All that is in memory then belongs to a history that is gone.
        """
        try:
            with closing(sqlite3.connect(self.path)) as fresh:
                head = journal.head(fresh)
        except COMPLAINTS as error:
            raise self._translate(error) from error
        if head == self._newest.place:
            return None
        return StoreLost(
            f"{self.path} was put back to an earlier time, or replaced, while it was in use:"
            f" its newest event is {head.seq}, ours was {self._newest.place.seq}. Nothing can"
            " be kept before the daemon is stopped and started again; what happened in between"
            " is in no history"
        )

    def _translate(self, error: BaseException) -> BaseException:
        """In words; damage is said, once. In any thread."""
        told = translate(error, self.path)
        if isinstance(told, StoreDamaged) and self._damage is None:
            self._damage = str(told)
            log.error("%s", told)
        return told

    def _commit(self, group: list[_Change]) -> None:
        """One transaction for the whole group, then one call into the event loop."""
        results: list[tuple[_Change, Any, BaseException | None]] = []
        events: list[Event] = []
        said: list[str] = []
        trouble: str | None = None
        wiped = False
        db, newest = self._writer, self._newest
        # One alone needs no savepoint, which has each page copied that is changed.
        alone = len(group) == 1
        try:
            self._check()
            db.execute("BEGIN IMMEDIATE")
            for change in group:
                transaction = Transaction(db, newest=newest)
                if not alone:
                    db.execute("SAVEPOINT change")
                try:
                    results.append((change, change.run(transaction), None))
                    newest = transaction.newest or newest
                    events += transaction.events
                    said += transaction.said
                    wiped |= transaction.wiped
                except BaseException as error:
                    if not db.in_transaction:
                        # SQLite has undone all of it: a full disk ends the whole transaction.
                        raise
                    db.execute("ROLLBACK" if alone else "ROLLBACK TO change")
                    results.append((change, None, self._translate(error)))
                if not alone:
                    db.execute("RELEASE change")
            if db.in_transaction:
                db.execute("COMMIT")
            self._newest = newest
            if wiped and math.isinf(self._scrub_at):
                self._scrubs = backoff(SCRUB_AFTER, LONGEST_SCRUB)
                self._scrub_at = time.monotonic() + next(self._scrubs)
        except (*COMPLAINTS, StoreFull) as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            failure = self._translate(error)
            # That it has lost its files is told as long as it has.
            trouble = str(failure) if self._lost is None else None
            results = [(change, None, failure) for change in group]
            events, said = [], []
        self._remember()
        self._loop.call_soon_threadsafe(self._tell, results, events, said, trouble)

    def _tell(
        self,
        results: list[tuple[_Change, Any, BaseException | None]],
        events: list[Event],
        said: list[str],
        trouble: str | None,
    ) -> None:
        try:
            self.trouble = trouble
            self._waiting -= len(results)
            self._moved = time.monotonic()
            for change, result, error in results:
                self._settle(change, result, error)
            if events:
                self.publish(events)
            if said:
                self.say(said)
        except Exception as error:  # noqa: BLE001 - handed to `watch`
            self._break(error, [change for change, _, _ in results])

    def _settle(self, change: _Change, result: Any, error: BaseException | None) -> None:
        """Let follow what follows a change. If that fails, who waits is told no result, which
        may promise what is not so: he is as after a kill at this moment."""
        try:
            if error is None and change.then is not None:
                change.then(result)
        except Exception as raised:  # noqa: BLE001 - handed to `watch`
            error = MemoryBehind("a change is on disk, and what follows it has failed")
            error.__cause__ = raised
            self._break(error)
        if change.done.cancelled():
            return
        if error is None:
            change.done.set_result(result)
        else:
            change.done.set_exception(error)

    def soundly(self, call: Callable[..., object], *args: Any) -> None:
        """Call this, which follows a commit, too: an exception of it is a defect."""
        try:
            call(*args)
        except Exception as error:  # noqa: BLE001 - handed to `watch`
            self._break(error)

    def _break(self, error: BaseException, group: Sequence[_Change] = ()) -> None:
        """A defect: what comes next would be lost, so `watch` raises it."""
        error = mishaps.bearable(error)
        self.trouble = f"a defect: {error!r}"
        for change in group:
            if not change.done.done():
                change.done.set_exception(error)
        if not self._broken.done():
            self._broken.set_exception(error)


def open_store(path: Path, schemas: Schemas, beside: Sequence[Path] = ()) -> Store:
    """Open or make the state file and bring its tables up to date. Needs a running event loop.

    schemas: for each room the steps that made its tables, oldest first.
    beside: open files that are to stay at their paths, too, or nothing is kept any more.
    Raises: StoreUnusable, StoreFull; the file is then as it was.
    """
    try:
        rooms = {**SCHEMAS, **schemas}
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY)
        try:
            # Only looks: the next lines are the first that write.
            schema.check(db, path, rooms)
            _prepare(db)
            # What a change overwrites, a secret that is wiped included, stands in no file of
            # /var/tmp until then.
            db.execute("PRAGMA temp_store = MEMORY")
            schema.migrate(db, path, rooms)
            db.execute("BEGIN IMMEDIATE")
            epoch = journal.ensure_epoch(db)
            db.execute("COMMIT")
            return Store(path, db, epoch, beside)
        except BaseException:
            db.close()
            raise
    except COMPLAINTS as error:
        raise translate(error, path) from error


def _leave_open(db: sqlite3.Connection) -> None:
    """Have it never closed, not even at the interpreter's end.

    SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE would do; Python has had that since 3.12.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(db))


def _prepare(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode = WAL")
    # FULL: an acknowledged change survives a power cut, not only a kill.
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    # What is deleted is overwritten.
    db.execute("PRAGMA secure_delete = ON")
