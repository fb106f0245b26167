"""Reads a log file to its end, each line once: across rotation, truncation and restarts.

Every file of the log is known by its content, up to where it was read (`log_marks`). The reader
moves among those that hold news: what came late to finished ones, rotated ones that were not
read, the oldest first, then the log itself (`log_survey`). Where the place cannot be found
again, that is told, and reading goes on with what was not read. Reads files; stores nothing,
knows no message.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from collectors import log_chunks, log_generations, log_marks, log_search
from collectors.log_chunks import Chunk
from collectors.log_file import LogFile
from collectors.log_folder import FileRefused, LogFolder
from collectors.log_marks import KnownFile, Position
from collectors.log_search import LINES, LINES_BESIDE
from collectors.log_survey import Item, Sight, Survey
from collectors.packed_log import PackedLog

log = logging.getLogger(__name__)

# A renamed file is finished only when nothing has come for this long: who opened it before may
# still be writing. And a place is lost only when it has not been found for this long: who
# rotates or rewrites may be at it; s.
ROTATION_GRACE: Final = 1.0
# After so many rotations in which a number was missing, numbers say nothing: they may be days.
DOUBTS: Final = 3
# Looks at a rotated file that can't be read, before others are read in its stead.
TRIES: Final = 5


class LogTail:
    """One log file by its name. Used by one thread at a time."""

    def __init__(
        self,
        path: Path,
        position: Position | None,
        clock: Callable[[], float],
        writers: Collection[str] = (),
    ) -> None:
        """position: None: never read before; what stands in the file now is passed over.

        writers: whose files are read, as LogFolder has it.
        """
        self.path = path
        self._folder = LogFolder(path.parent, writers)
        self._clock = clock
        self._first = position is None
        self._position = position or Position(files=())
        # A link that leads out of the folder is followed if it was there from the first.
        self._linked = self._position.linked
        self._survey = Survey(path.name, clock, self._lose)
        self._file: LogFile | None = None
        # The file is more of one that was finished; those to be read after it.
        self._late = False
        self._queue: list[Item] = []
        self._quiet_since: float | None = None
        # What is still to be told of what was passed over.
        self._lost: list[str] = []
        # So often in a row a file could not be read.
        self._failures = 0
        # When its folder was first missed.
        self._gone_since: float | None = None

    def close(self) -> None:
        """Let go of all files."""
        self._survey.let_go(self._queue)
        self._queue.clear()
        self._survey.close()
        self._take(None)

    @property
    def unsettled(self) -> bool:
        """A rotation is being waited out: look again soon."""
        return self._quiet_since is not None

    def is_homeless(self) -> bool:
        """Was there a log, whose folder is gone for long? Raises: OSError."""
        if not self._position.inode or self._folder.is_there():
            self._gone_since = None
            return False
        now = self._clock()
        if self._gone_since is None:
            self._gone_since = now
        return now - self._gone_since >= ROTATION_GRACE

    def read(self) -> Chunk | None:
        """The next whole lines; None: there are none now. Raises: OSError.

        A change of place is a chunk of no lines: it has to be kept, too, or a restart would
        judge anew.
        """
        kept = self._position
        try:
            chunk = self._next()
        except FileRefused:
            raise
        except OSError:
            # What failed once may fail for ever, as where a file system is gone and back: all
            # is opened anew at the next look.
            self.close()
            raise
        if chunk is None and (self._lost or self._position != kept):
            chunk = Chunk([], self._position)
        if chunk is not None and self._lost:
            chunk, self._lost = replace(chunk, lost="; ".join(self._lost)), []
        return chunk

    # Reading.

    def _next(self) -> Chunk | None:
        if self._linked is None:
            self._linked = self._folder.is_link(self.path.name)
        if self._first:
            return self._pass_over()
        if self._file is None:
            kept = self._position
            chunk = self._find()
            if self._file is None or self._position != kept:
                return chunk
        file = self._file
        try:
            fits = log_marks.fits(file, self._position)
            chunk = log_chunks.next_lines(file, self._position) if fits else None
        except OSError as error:
            return self._given_up(file, error)
        if not fits:
            return self._changed(file)
        if chunk is None:
            return self._at_end(file)
        self._failures = 0
        self._quiet_since = None
        self._position = chunk.position
        return chunk

    def _given_up(self, file: LogFile, error: OSError) -> Chunk:
        """It can't be read on. Others wait for a rotated one a while only. Raises: OSError."""
        self._failures += 1
        if self._failures < TRIES or self._is_log(file):
            raise error
        self._failures = 0
        at = self._position
        self._take(None)
        self._put_back()
        known = (log_marks.known_at(at),) if at.offset else ()
        self._position = log_marks.nowhere(at, (*(at.files or ()), *known))
        return Chunk([], self._position)

    def _pass_over(self) -> Chunk:
        """The very first look: begin behind what is there."""
        folder, name = self._leads()
        current = folder.open_new(name)
        sight = self._survey.all_read(folder, name)
        lowest = log_generations.lowest(sight.others)
        position = Position(linked=self._linked, lowest=lowest, files=tuple(sight.files))
        if not sight.listed:
            position = msgspec.structs.replace(position, before=time.time_ns())
        if current is not None:
            self._take(current)
            size = current.size
            tail = current.read(max(0, size - 1), 1)
            skipping = bool(size) and tail != b"\n"
            position = log_marks.behind(position, current, size, skipping=skipping)
        self._position = position
        self._first = False
        return Chunk([], self._position)

    # Which file.

    def _at_end(self, file: LogFile) -> Chunk | None:
        """All of it is read: go on with what else there is to read."""
        is_log = self._is_log(file)
        if is_log:
            self._quiet_since = None
        if not self._queue:
            folder, name = self._leads()
            sight = self._survey.look(self._position, file, folder, name)
            self._note(sight)
            if sight.news and sight.news[0].same:
                # What there is behind it is looked for from there.
                self._survey.let_go(sight.news[1:])
                self._queue = sight.news[:1]
            else:
                self._queue = sight.news if is_log else self._after(file, sight)
        if not self._queue:
            return None
        # To the newest of the rotated ones may be written still.
        item = self._queue[0]
        if item.log and not (item.same or self._late or self._settled()):
            return None
        return self._go_on(file, over=not is_log)

    def _is_log(self, file: LogFile) -> bool | None:
        """Is it the one that the log's name leads to? None: none is."""
        folder, name = self._leads()
        try:
            return os.path.samestat(folder.stat(name), file.info)
        except FileNotFoundError:
            return None

    def _after(self, file: LogFile, sight: Sight) -> list[Item]:
        """What is read after a file that has the log's name no more; empty: wait."""
        news = any(not item.late for item in sight.news)
        try:
            home = self._home(sight)
        except OSError:
            if not sight.news:
                raise
            # What else there is does not wait for it.
            home = None
        if home is not None and home.same:
            self._survey.let_go(sight.news)
            return [home]
        if not (items := [*sight.news, *([home] if home is not None else [])]):
            return items
        if self._late or self._position.missed >= DOUBTS:
            lacks = False
        else:
            # Of several files that came after one that is not to be seen, the first may be
            # gone as it is.
            where, deleted = sight.where, file.info.st_nlink == 0
            after = news or (deleted and sight.empty)
            lacks = (after and where is None) or log_generations.lacks_one(
                sight.others,
                where.number if where is not None else None,
                self._position.lowest,
                seen=where is not None,
                deleted=deleted,
            )
        settled = self._settled()
        # Nobody is writing to the older ones.
        if not settled and (lacks or not (news or self._late)):
            self._survey.let_go(items)
            return []
        if lacks:
            self._lose_place("a rotated file after it is gone")
            at = self._position
            self._position = msgspec.structs.replace(at, missed=at.missed + 1)
        return items

    def _home(self, sight: Sight) -> Item | None:
        """The log itself, and where to begin in it; None: it is not there. Raises: OSError."""
        folder, name = self._leads()
        file = folder.open(name)
        if file is None:
            return None
        try:
            return self._place_in(file, folder, name, sight)
        except BaseException:
            file.close()
            raise

    def _with_home(self, sight: Sight) -> Item | None:
        """Queue the news, and the log, which is returned, behind them. Raises: OSError."""
        try:
            home = self._home(sight)
        except OSError:
            self._survey.let_go(sight.news)
            raise
        self._queue = [*sight.news, *([home] if home is not None else [])]
        return home

    def _place_in(self, file: LogFile, folder: LogFolder, name: str, sight: Sight) -> Item:
        at = self._position
        others = {other.identity for other in sight.others}
        if (place := log_search.place_known(file, at, others)) is not None:
            return Item(file, place, log=True)
        moved = self._became(file)
        if moved is not None:
            return Item(file, moved, same=True, log=True)
        folder.refuse_linked(name, file, known=at.inode)
        return Item(file, log_marks.beginning(file, at), log=True)

    def _became(self, file: LogFile) -> Position | None:
        """The place in what the file of the position became: a copy of it, perhaps edited.

        None: it is another. The next log may well begin with the same lines.
        """
        old, at = self._file, self._position
        if old is not None and not log_search.has_lines(file, _least(old)):
            return None
        place = log_search.found(at, file) or log_search.left(at, file)
        if place is None and old is not None and not os.path.samestat(file.info, old.info):
            # An older state of that.
            return log_search.begun_as(at, file, old)
        return place

    def _go_on(self, file: LogFile, *, over: bool) -> Chunk:
        """Leave this one for the next of the queue."""
        at, item = self._position, self._queue.pop(0)
        self._survey.taken(item)
        if item.same:
            if not item.log:
                self._file = None
                self._survey.finished(file)
            # Else it is no more than the log was before, which may be cut.
            self._take(item.file)
            files = tuple(k for k in at.files or () if not log_marks.is_same(k, item.file))
            self._position = log_marks.carried(item.place, at, files)
            return Chunk([], self._position)
        if not (item.place.offset or item.late or item.log):
            item = replace(item, place=self._became(item.file) or item.place)
        rest = log_chunks.rest(file, at) if over else None
        offset = at.offset + len(rest or b"")
        stamp = log_marks.stamp_of(file)
        if not isinstance(file, PackedLog):
            # What comes to it makes it another.
            stamp = (*stamp[:3], offset)
        known = log_marks.known(file, stamp, offset, skipping=at.skipping)
        # It may be the log again.
        known = msgspec.structs.replace(known, marks=at.marks)
        if file.damage:
            self._lose(file.damage)
        others = [
            msgspec.structs.replace(other, marks=()) if other.marks else other
            for other in at.files or ()
            if not log_marks.is_same(other, file)
        ]
        # Of one that holds nothing but damage or zeros the stamp tells that it was dealt with.
        files = (*others, known) if offset or file.damage or file.size else tuple(others)
        if over:
            self._file = None
            self._survey.finished(file)
        # Whatever shows up beside a log that goes on is older.
        self._begin(replace(item, late=item.late or not over), files)
        return Chunk([] if rest is None else [rest], self._position)

    def _begin(self, item: Item, files: tuple[KnownFile, ...]) -> None:
        """Read this one from its place on."""
        self._take(item.file)
        self._late = item.late
        files = tuple(other for other in files if not log_marks.is_same(other, item.file))
        self._position = log_marks.carried(item.place, self._position, files)

    def _find(self) -> Chunk | None:
        """Open the file that the position is in, else what was written after it."""
        at = self._position
        folder, name = self._leads()
        file = self._found_again(at, folder, name) if at.inode else None
        if file is not None and at.offset:
            return self._go_to(file)
        sight = self._survey.look(at, None, folder, name)
        self._note(sight)
        at = self._position
        news = [item for item in sight.news if not item.late]
        if file is not None and (not news or self._is_as_it_was(file)):
            # Nothing was read of it, but it is the same: what there is came after it.
            self._survey.let_go(sight.news)
            return self._go_to(file)
        if file is not None:
            file.close()
        home = self._with_home(sight)
        if at.inode == 0:
            complete = True
        elif news:
            complete = not at.offset and news[0].file.info.st_ino == at.inode
            complete &= not log_generations.lacks_one(sight.others, news[0].number, at.lowest)
        else:
            complete = home is not None and home.same
        if not self._queue or not (complete or self._settled()):
            self._put_back()
            return None
        if not complete:
            self._abandon("the file is gone, or was rewritten")
        return self._begin_next()

    def _is_as_it_was(self, file: LogFile) -> bool:
        """Was this empty file, which is the one of the position by its inode, never another?"""
        info = file.info
        return not info.st_size and info.st_mtime_ns == self._position.modified

    def _begin_next(self) -> Chunk:
        item = self._queue.pop(0)
        self._survey.taken(item)
        if not item.place.offset:
            # Of what was cut, behind what is known of it.
            place = log_search.found(self._position, item.file)
            item = replace(item, place=place or item.place)
        self._begin(item, self._position.files or ())
        return Chunk([], self._position)

    def _found_again(self, at: Position, folder: LogFolder, name: str) -> LogFile | None:
        """The file of the position by whatever name; None: it is gone."""
        file = folder.open(name)
        if file is not None:
            # One line may as well begin another log.
            same = file.info.st_ino == at.inode
            if (same or log_search.has_lines(file, LINES)) and log_marks.holds(file, at):
                return file
            file.close()
        return self._survey.find(at, folder, name)

    def _changed(self, file: LogFile) -> Chunk | None:
        """The file was cut, or rewritten: what was not read of it may be in a copy."""
        at = self._position
        if (place := log_search.found(at, file)) is not None:
            return self._put(place)
        folder, name = self._leads()
        copy = self._survey.find(at, folder, name)
        if copy is not None:
            return self._go_to(copy)
        if (place := log_search.left(at, file)) is not None:
            return self._put(place)
        if not self._settled():
            return None
        self._abandon("it was cut or rewritten, and there is no copy of it as it was")
        sight = self._survey.look(self._position, None, folder, name)
        self._note(sight)
        self._put_back()
        self._with_home(sight)
        return self._begin_next() if self._queue else None

    def _put(self, place: Position) -> Chunk:
        """Go on there in the same file."""
        self._position = place
        self._quiet_since = None
        return Chunk([], place)

    def _go_to(self, file: LogFile) -> Chunk:
        """It holds the position."""
        info = file.info
        self._take(file)
        self._position = msgspec.structs.replace(
            self._position, inode=info.st_ino, device=info.st_dev
        )
        return Chunk([], self._position)

    # Small things.

    def _settled(self) -> bool:
        """Has it been as it is for long enough?"""
        now = self._clock()
        if self._quiet_since is None:
            self._quiet_since = now
        return now - self._quiet_since >= ROTATION_GRACE

    def _note(self, sight: Sight) -> None:
        """Keep what was learned of the other files."""
        at = self._position
        seen = log_generations.lowest(sight.others)
        known = [number for number in (seen, at.lowest) if number is not None]
        lowest = min(known, default=None)
        self._position = msgspec.structs.replace(
            at,
            files=tuple(sight.files),
            done=(),
            lowest=lowest,
            missed=0 if seen is not None and seen == lowest else at.missed,
            before=0 if sight.listed else at.before,
        )

    def _put_back(self) -> None:
        self._survey.let_go(self._queue)
        self._queue = []

    def _take(self, file: LogFile | None) -> None:
        if self._file is not None and self._file is not file:
            self._file.close()
        self._file = file
        self._late = False
        self._quiet_since = None

    def _leads(self) -> tuple[LogFolder, str]:
        """Where the log is, if its name is a link."""
        return self._folder.leads(self.path.name, out=bool(self._linked))

    def _abandon(self, why: str) -> None:
        """The place is not found: if its file comes back, it is known."""
        at = self._position
        self._lose_place(why)
        if at.offset:
            files = (*(at.files or ()), log_marks.known_at(at))
            self._position = msgspec.structs.replace(at, files=files)

    def _lose_place(self, why: str) -> None:
        moment = time.gmtime(self._position.modified / 10**9)
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", moment)
        self._lose(f"place lost, lines since {since} may be missing ({why})")

    def _lose(self, what: str) -> None:
        log.warning("in %s: %s", self.path.parent, what)
        self._lost.append(what)


def _least(old: LogFile) -> int:
    """How many lines have to be the same, if a file is to be what became of the old one."""
    return LINES_BESIDE if old.info.st_nlink else LINES
