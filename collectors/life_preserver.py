"""Life Preserver: its log, line by line, as events; and how far a replication is.

The position in the log is committed with the events of the lines before it, so each line gives
at most one event, exactly once, whenever the daemon dies.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from collectors import lp_events, lp_lines, system_state
from collectors.directory_watch import DirectoryWatch
from collectors.log_chunks import Chunk
from collectors.log_file import CHUNK, LogFile
from collectors.log_folder import FileRefused, LogFolder
from collectors.log_marks import KnownFile, Position
from collectors.log_tail import LogTail
from collectors.lp_events import LifePreserverTold
from collectors.lp_lines import Message
from collectors.lp_progress import Progress
from collectors.status import Status
from collectors.system_state import SystemState
from sysadmd import journal
from sysadmd.apart import apart
from sysadmd.events import format_priority
from sysadmd.journal import Transaction
from sysadmd.settings import CollectorSettings
from sysadmd.store import Store

log = logging.getLogger(__name__)

# The log is looked at so often whatever the watch says: it may have died unseen, and a folder
# that is moved away or covered by a mount has not changed; s.
IDLE: Final = 2.0
# While a rotation is waited out:
SETTLING: Final = 0.25
# Hints come in swarms where something writes all the time, to the log or beside it: no look
# sooner than this after the last; s.
LEAST_PAUSE: Final = 0.025
# Progress is told at most so often; s.
PROGRESS: Final = 1.0
# A look waits so long for what a send log says; what comes later is for a later look. The log
# itself waits for no other file; s.
AT_ONCE: Final = 0.1
# Read, and committed, at a time; bytes.
PORTION: Final = 512 * 1024
# A log on a disk that does not answer for this long is trouble; s.
PATIENCE: Final = 10.0
# Of a send log only the end is read: progress that is passed is of no interest.
SEND_LOG: Final = 64 * 1024
# Of its beginning, by which one that was begun again is known; bytes.
SEND_HEAD: Final = 64
# A send log that was not written for so long before its replication began is that of the one
# before; s.
STALE: Final = 10.0

# The reading of when what went well or ill was last read of, for metrics.
OUTCOMES: Final = "life preserver outcomes"

_encode: Final = msgspec.json.Encoder().encode
T = TypeVar("T")


class Stored(msgspec.Struct, frozen=True):
    """What is kept of a log: the position, and the replication that was under way there.

    The files of the position have a row of their own, that is written when they change.
    """

    position: Position
    send_log: str | None = None
    dataset: str = ""


@dataclass(frozen=True, slots=True)
class Portion:
    """What some lines of the log say, and the position behind them.

    lost: what was passed over unread, and why; empty: nothing.
    """

    messages: list[Message]
    position: Position
    lost: str


class LifePreserverCollector:
    """Follows the log that the settings name."""

    name = "life_preserver"

    def __init__(
        self,
        store: Store,
        state: SystemState,
        settings: Callable[[], CollectorSettings],
        status: Status,
    ) -> None:
        self._store = store
        self._state = state
        self._settings = settings
        self._status = status
        # The trouble that the log has been told of.
        self._said: str | None = None
        # The files that are known, as they were stored last.
        self._kept: tuple[KnownFile, ...] | None = None
        # The look at a send log that is under way, and of which replication.
        self._side: tuple[object, asyncio.Future[str | None]] | None = None

    async def begin(self) -> None:
        """Keep the place from which on the log is told, if it was never looked at before.

        What is written once the daemon is ready is news, however late `run` comes to look.
        """
        settings = self._settings().life_preserver
        path = Path(settings.log)
        if not settings.enabled or _load(self._store, path) is not None:
            return

        def pass_over() -> Chunk | None:
            with closing(LogTail(path, None, time.monotonic, settings.writers)) as tail:
                return tail.read()

        chunk = await apart(pass_over, self.name)
        if chunk is not None:
            await self._commit(path, chunk.position, [], Replication(path.parent))

    async def run(self) -> None:
        """Follow the log until cancelled; a changed setting is taken at the next look."""
        while True:
            settings = self._settings().life_preserver
            self._status.enable(bool(settings.enabled))
            if settings.enabled:
                await self._follow(Path(settings.log), settings.writers)
            else:
                await self._state.trouble(self.name, None)
                await asyncio.sleep(IDLE)

    async def _follow(self, path: Path, writers: Collection[str]) -> None:
        """Follow one file until the settings are others."""
        loop = asyncio.get_running_loop()
        hint = asyncio.Event()
        stored = _load(self._store, path)
        self._kept = None
        tail = LogTail(path, stored.position if stored else None, loop.time, writers)
        watch = DirectoryWatch(path.parent, lambda: _wake(loop, hint), path.name)
        replication = Replication(path.parent, writers)
        self._side = None
        if stored is not None:
            replication.begin(stored.send_log, stored.dataset)
        before = self._settings().life_preserver
        try:
            while self._settings().life_preserver == before:
                begun = loop.time()
                hint.clear()
                await self._patiently(path, watch.check)
                try:
                    await self._catch_up(path, tail, replication)
                    await self._tell_progress(replication)
                    if await self._patiently(path, tail.is_homeless):
                        raise FileNotFoundError(errno.ENOENT, "its folder is gone")
                except OSError as error:
                    await self._failed(path, error.strerror or str(error))
                else:
                    self._said = None
                    self._status.good()
                    await self._state.trouble(self.name, None)
                pause = min(SETTLING if tail.unsettled else IDLE, watch.poll)
                await _wait(hint, min(pause, PROGRESS) if replication.file else pause)
                await asyncio.sleep(begun + LEAST_PAUSE - loop.time())
        finally:
            # It waits for a reading that hangs.
            apart(tail.close, self.name)
            watch.close()

    async def _patiently(self, path: Path, work: Callable[[], T]) -> T:
        """The result of `work`, whose files may not answer: then that is told meanwhile."""
        answer = apart(work, self.name)
        while not answer.done():
            await asyncio.wait({answer}, timeout=PATIENCE)
            if not answer.done():
                await self._failed(path, "does not answer")
        return answer.result()

    async def _catch_up(self, path: Path, tail: LogTail, replication: Replication) -> None:
        """Read to the end."""
        while (portion := await self._patiently(path, lambda: _read(tail))) is not None:
            if portion.lost:
                text = f"{path.parent}: {portion.lost}"
                # Each loss is another, though it be told in the same words.
                await self._state.trouble(self.name, text, kind=text)
            for message in portion.messages:
                replication.note(message)
            await self._commit(path, portion.position, portion.messages, replication)

    async def _commit(
        self, path: Path, position: Position, messages: list[Message], replication: Replication
    ) -> None:
        name, files = os.fspath(path), position.files
        place = msgspec.structs.replace(position, files=None)
        row = _encode(Stored(place, replication.file, replication.dataset))
        known = _encode(files) if files is not None and files != self._kept else None
        bodies = [_body(message) for message in messages]
        outcomes = {(m.kind, m.outcome) for m in messages if m.outcome is not None}

        def change(change: Transaction) -> None:
            change.db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", (name, row))
            if known is not None:
                change.db.execute(
                    "INSERT OR REPLACE INTO log_files VALUES (?, ?)", (name, known)
                )
            now = time.time()
            journal.append_many(change, "life-preserver", bodies, now)
            if outcomes:
                _keep_outcomes(change, outcomes, now)

        await self._store.write(change)
        self._kept = files

    async def _tell_progress(self, replication: Replication) -> None:
        """News of the send log, as soon as it gives some: one that hangs holds up nobody."""
        if self._side is None:
            now = time.monotonic()
            if replication.file is None or now < replication.next_look:
                return
            self._side = replication.run, apart(lambda: replication.look(now), "send log")
            await asyncio.wait({self._side[1]}, timeout=AT_ONCE)
        run, answer = self._side
        if not answer.done():
            return
        self._side = None
        text = answer.result()
        if run is not replication.run:
            # It was of the one before, and may have left something of that.
            replication.read_anew()
            return
        if text is None:
            return
        body = _body(Message(text, "replication", 0))
        await self._store.write(
            lambda change: journal.append(change, "life-preserver", body, time.time())
        )

    async def _failed(self, path: Path, reason: str) -> None:
        self._status.failed()
        text = f"{path}: {reason}"
        if text != self._said:
            self._said = text
            log.warning("the Life Preserver log can't be read: %s; trying again", text)
        await self._state.trouble(self.name, text)


class Replication:
    """The replication that is under way, and its send log."""

    def __init__(self, folder: Path, writers: Collection[str] = ()) -> None:
        """folder: of the log; writers: whose files there are read, as LogFolder has it."""
        self._folder = LogFolder(folder, writers)
        self.begin(None, "")

    def begin(self, file: str | None, dataset: str) -> None:
        """A replication begins that writes to this file; None: none is under way."""
        self.file = file
        self._said = False
        self.dataset = dataset
        # Which replication this is.
        self.run = object()
        self._begun = time.time()
        self.read_anew()

    def read_anew(self) -> None:
        """Nothing of the send log has been read."""
        self._head = b""
        self._offset = 0
        self._progress = Progress()
        self._told = ""
        # Progress is told no sooner.
        self.next_look = 0.0

    def note(self, message: Message) -> None:
        """A line of the log may begin or end a replication."""
        if message.follow is not None:
            self.begin(message.follow, message.dataset or "")
        elif message.ends_replication:
            self.begin(None, "")

    def look(self, now: float) -> str | None:
        """New progress to be told."""
        if self.file is None:
            return None
        # Life Preserver has it beside its log: whatever the line names, it is no way to others.
        for line in self._new_lines(Path(self.file).name):
            self._progress = self._progress.read(line)
        text = self._progress.message(self.dataset)
        if text is None or text == self._told:
            return None
        self._told = text
        self.next_look = now + PROGRESS
        return text

    def _new_lines(self, name: str) -> list[str]:
        """Whole lines that are new; it is cut and begun again for each dataset."""
        try:
            file = self._folder.open_new(name)
            if file is None:
                return []
            with closing(file):
                return self._news(file)
        except FileRefused as error:
            if not self._said:
                self._said = True
                log.warning(
                    "no progress is told: the send log %s %s", error.filename, error.strerror
                )
        except (OSError, ValueError) as error:
            # ValueError: it is not even a name.
            log.debug("the send log %r can't be read: %s", name, error)
        return []

    def _news(self, file: LogFile) -> list[str]:
        info, head = file.info, file.read(0, SEND_HEAD)
        if info.st_mtime < self._begun - STALE:
            return []
        if info.st_size < self._offset or not head.startswith(self._head):
            self._offset, self._progress = 0, Progress()
        self._head = head
        start = max(self._offset, info.st_size - SEND_LOG)
        data = file.read(start, SEND_LOG)
        end = data.rfind(b"\n") + 1
        self._offset = start + end
        return data[:end].decode("utf-8", "replace").splitlines()


def last_outcomes(store: Store) -> Iterator[tuple[str, str, float]]:
    """`snapshot` or `replication`, `success` or `failure`, and when the last one was read of,
    s since 1970."""
    known: dict[str, dict[str, float]] = system_state.read(store.reader, OUTCOMES) or {}
    for kind, times in known.items():
        for outcome, at in times.items():
            yield kind, outcome, at


def _keep_outcomes(
    change: Transaction, outcomes: Iterable[tuple[str, str]], now: float
) -> None:
    known: dict[str, dict[str, float]] = system_state.read(change.db, OUTCOMES) or {}
    for kind, outcome in outcomes:
        known.setdefault(kind, {})[outcome] = now
    system_state.write(change.db, OUTCOMES, known)


def _read(tail: LogTail) -> Portion | None:
    """The next lines as messages; None: there are none now. Raises: OSError."""
    size, lost = 0, ""
    messages: list[Message] = []
    position: Position | None = None
    while size < PORTION:
        try:
            chunk = tail.read()
        except OSError:
            # What was read before it counts first; the error comes again.
            if position is None:
                raise
            break
        if chunk is None:
            break
        position = chunk.position
        size += CHUNK
        messages += _messages(chunk)
        if chunk.lost:
            # It is told before the lines behind it.
            lost = chunk.lost
            break
    return Portion(messages, position, lost) if position is not None else None


def _messages(chunk: Chunk) -> list[Message]:
    last = len(chunk.lines) - 1
    return [
        message
        for number, line in enumerate(chunk.lines)
        for message in lp_lines.messages(line, cut=chunk.cut and number == last)
    ]


def _body(message: Message) -> bytes:
    priority = format_priority(message.priority)
    return lp_events.encode(
        LifePreserverTold(message.text, priority, message.kind, message.date)
    )


def _load(store: Store, path: Path) -> Stored | None:
    row = store.reader.execute(
        "SELECT positions.value, log_files.value FROM positions"
        " LEFT JOIN log_files USING (path) WHERE path = ?",
        (os.fspath(path),),
    ).fetchone()
    if row is None:
        return None
    stored = msgspec.json.decode(row[0], type=Stored)
    if row[1] is None:
        return stored
    files = msgspec.json.decode(row[1], type=tuple[KnownFile, ...])
    position = msgspec.structs.replace(stored.position, files=files)
    return msgspec.structs.replace(stored, position=position)


def _wake(loop: asyncio.AbstractEventLoop, hint: asyncio.Event) -> None:
    if hint.is_set():
        # The look that is due is still to come, and sees this change, too.
        return
    try:
        loop.call_soon_threadsafe(hint.set)
    except RuntimeError:
        # The loop is closed: the daemon has stopped, the watcher's thread not yet.
        return


async def _wait(hint: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await hint.wait()
    except TimeoutError:
        return
