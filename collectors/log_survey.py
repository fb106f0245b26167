"""What is there beside a log: which of the rotated files hold lines that were not read.

Each file of the folder is known by its content or it is news. What was looked at and held none
is not opened again until it changes. A file with news is opened when it is seen, so that it is
read though it is deleted meanwhile. Tells what was passed over; decides nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Final

import msgspec

from collectors import log_chunks, log_generations, log_marks, log_search
from collectors.log_file import CHUNK, LogFile
from collectors.log_folder import FileRefused, LogFolder
from collectors.log_generations import Generation
from collectors.log_kept_open import HELD, KeptOpen
from collectors.log_listing import Listing
from collectors.log_marks import EVERYTHING, KnownFile, Position, Stamp
from collectors.log_unread import Unread
from collectors.packed_log import PackedLog

# Files that are remembered as read, those that are gone among them.
REMEMBERED: Final = 512
# What packers make that are not known, and what is put beside an archive: no text.
UNREADABLE: Final = (
    *(".7z", ".Z", ".asc", ".br", ".lz", ".lz4", ".lzma", ".lzo", ".md5"),
    *(".sha256", ".sha512", ".sig", ".tar", ".tgz", ".zip"),
)
# What is late and has no line end yet is waited for; s.
HALF: Final = 1.0
# An archive whose end is missing, beside the file it is made from, is waited for as long as it
# grows, and then so long: a packer may work long on one block; s.
PACKING: Final = 60.0


@dataclass(frozen=True, slots=True)
class Item:
    """A file to be read. place: where its reading begins.

    late: more of what was finished; same: it has taken the place of the one that is read;
    number: of its generation, if it has one; log: it has the log's name.
    """

    file: LogFile
    place: Position
    late: bool = False
    same: bool = False
    number: int | None = None
    log: bool = False


@dataclass(slots=True)
class Sight:
    """What was seen. news: in the order in which it is read, without the log itself.

    where: the file of the position; None: it is not among them; alone: nor has it the log's
    name. others: all rotated ones; read: the numbers of those that were read. files: what is
    known now. listed: the folder may be listed. empty: there is an empty one, newer than the
    position, as it seems.
    """

    news: list[Item] = field(default_factory=list[Item])
    where: Generation | None = None
    alone: bool = False
    others: list[Generation] = field(default_factory=list[Generation])
    read: set[int] = field(default_factory=set[int])
    files: list[KnownFile] = field(default_factory=list[KnownFile])
    listed: bool = True
    empty: bool = False


class Survey:
    """The files beside one log. Used by one thread at a time."""

    def __init__(
        self,
        name: str,
        clock: Callable[[], float],
        lose: Callable[[str], None],
    ) -> None:
        """lose: is told what is passed over unread, and why."""
        self._clock = clock
        # Looked at, and nothing to tell.
        self._quiet: set[Stamp] = set()
        # Of these nothing is told, as long as those of which they are copies stay as they are.
        self._copies: dict[Stamp, Stamp] = {}
        self._unread = Unread(lose)
        # In these files the place is not.
        self._not_in: tuple[Position, set[Stamp]] | None = None
        self._open_files = KeptOpen(clock)
        # Not finished, as it seems: seen so since when.
        self._since: dict[Stamp, float] = {}
        self._listing = Listing(name)

    def close(self) -> None:
        """Let go of all files."""
        self._open_files.close()

    def finished(self, file: LogFile) -> None:
        """A file is read: keep it a while for what comes late."""
        if isinstance(file, PackedLog):
            file.close()
        else:
            self._open_files.finish(file)

    def find(self, at: Position, folder: LogFolder, log_name: str) -> LogFile | None:
        """What holds the position under another name than the log's: renamed, copied, packed.

        folder, log_name: where the log is, which may be a link. Raises: OSError.
        """
        listed = self._listing.similar(folder, log_name)
        stamps = {file.stamp for file in listed}
        if self._not_in == (at, stamps):
            return None
        # The one of the same inode first, then the newest.
        found = sorted(
            listed,
            key=lambda file: (file.info.st_ino != at.inode, -file.info.st_mtime_ns),
        )
        sought = True
        for generation in found:
            same = generation.info.st_ino == at.inode
            rotated = self._listing.is_rotated(generation, log_name)
            # What is not called as rotation does may be a copy of older days. Of what was not
            # read the inode tells, of others it does not.
            if not (rotated or same) or not (at.offset or (rotated and same)):
                continue
            file = self._open(folder, generation)
            if file is None:
                # It may be this one, once it can be read.
                sought = False
                continue
            if _holds_unless_it_fails(file, at):
                return file
            file.close()
        self._not_in = (at, stamps) if sought else None
        return None

    def look(
        self, at: Position, current: LogFile | None, folder: LogFolder, log_name: str
    ) -> Sight:
        """Which files hold news. current: the file of the position, if it is open."""
        files = list(at.files or ())
        others = self._listing.rotated(folder, log_name)
        # Before the first of these nothing was known of the folder.
        first = self._listing.complete and (at.files is None or at.before > 0)
        sight = Sight(files=files, others=others, listed=self._listing.complete)
        there = {file.identity for file in sight.others}
        # What has the log's name is read as such.
        with suppress(FileNotFoundError):
            info = folder.stat(log_name)
            there.add((info.st_dev, info.st_ino))
        place = log_marks.stamp_of(current)[:2] if current is not None else None
        sight.alone = place not in there
        self._open_files.expire()
        sight.news += self._gone(there, files, at)
        for generation in log_generations.in_order(sight.others):
            if generation.identity == place:
                sight.where = generation
            elif first and log_marks.read_before(
                generation.stamp, at, packed=generation.packed
            ):
                if generation.info.st_size:
                    files.append(self._remember(folder, generation))
            elif len(sight.news) < HELD:
                self._judge(sight, folder, generation, at, current)
        oldest = min(sight.read, default=sys.maxsize)
        sight.news = [
            # What is older than one that was read has come late, too.
            replace(item, late=True) if (item.number or 0) > oldest and not item.same else item
            for item in sight.news
        ]
        if late := [item for item in sight.news if item.late]:
            # One at a time: what came late may be in two files, as a packer is at work.
            self.let_go(late[1:])
            sight.news = [late[0], *(item for item in sight.news if not item.late)]
        sight.news.sort(key=lambda item: not item.same)
        stamps = {file.stamp for file in sight.others}
        self._quiet &= stamps
        self._copies = {stamp: of for stamp, of in self._copies.items() if stamp in stamps}
        stamps |= {log_marks.stamp_of(file) for file in self._open_files.finished()}
        self._since = {stamp: since for stamp, since in self._since.items() if stamp in stamps}
        self._unread.tell()
        if len(files) > REMEMBERED:
            # Those that are gone are forgotten first.
            files.sort(key=lambda known: known.stamp[:2] in there)
            del files[:-REMEMBERED]
        return sight

    def _gone(
        self, there: Collection[tuple[int, int]], files: list[KnownFile], at: Position
    ) -> list[Item]:
        """News in open files that are in the folder no longer."""
        news: list[Item] = []
        for file in self._open_files.finished():
            stamp = log_marks.stamp_of(file)
            if stamp[:2] in there:
                continue
            # What it has can't be told once it can't be read.
            with suppress(OSError):
                known = log_marks.recognised(file, [*files, log_marks.known_at(at)])
                more = None if known is None else self._more(file, known, at, stamp)
                news += [more] if more is not None else []
        # The oldest are the first to be deleted.
        news += [
            Item(file, log_marks.beginning(file, at))
            for identity, file in self._open_files.news()
            if identity not in there
        ]
        return news

    def all_read(self, folder: LogFolder, log_name: str) -> Sight:
        """At the first look: whatever is there was told before."""
        sight = Sight(others=self._listing.rotated(folder, log_name))
        sight.listed = self._listing.complete
        sight.files = [
            self._remember(folder, generation)
            for generation in sight.others
            if generation.info.st_size
        ][-REMEMBERED:]
        return sight

    # One file.

    def _judge(
        self,
        sight: Sight,
        folder: LogFolder,
        generation: Generation,
        at: Position,
        current: LogFile | None,
    ) -> None:
        """Has it something to tell? Then it is among the news."""
        stamp, files = generation.stamp, sight.files
        number = generation.number
        if not generation.info.st_size:
            sight.empty |= generation.info.st_mtime_ns > at.modified
            return
        if self._copies.get(stamp, stamp) in {file.stamp for file in sight.others} - {stamp}:
            return
        if stamp in self._quiet:
            sight.read |= {number} if number is not None else set()
            return
        if (held := self._open_files.held(generation.identity)) is not None:
            sight.news.append(Item(held, log_marks.beginning(held, at), number=number))
            return
        if any(log_marks.unchanged(known, stamp) for known in files):
            self._quiet.add(stamp)
            sight.read |= {number} if number is not None else set()
            return
        try:
            self._read(sight, folder, generation, at, current)
        except FileRefused as error:
            self._unread.refuse(generation, error, files)
        except OSError as error:
            # What is beside the log does not hold it up; it is tried again.
            self._unread.fail(generation, error, files)

    def _read(
        self,
        sight: Sight,
        folder: LogFolder,
        generation: Generation,
        at: Position,
        current: LogFile | None,
    ) -> None:
        """Judge it by what is in it. Raises: OSError."""
        if PurePath(generation.name).suffix in UNREADABLE:
            path = folder.path / generation.name
            raise FileRefused(path, "is packed in a way that is not read")
        file = folder.open(generation.name, packed=generation.packed)
        if file is None:
            return
        item: Item | None = None
        try:
            item = self._news_in(file, sight, folder, generation, at, current)
        finally:
            if item is None:
                file.close()
        if item is not None:
            sight.news.append(item)

    def _news_in(
        self,
        file: LogFile,
        sight: Sight,
        folder: LogFolder,
        generation: Generation,
        at: Position,
        current: LogFile | None,
    ) -> Item | None:
        """What there is to tell of it, from its place on. Raises: OSError."""
        stamp, number = generation.stamp, generation.number
        if not file.read(0, 1) and not file.damage:
            if at.offset:
                self._quiet.add(stamp)
            elif current is not None and not sight.news:
                # As a packer makes it of the empty one that is read.
                sight.where = sight.where or generation
            return None
        known, copied = self._known(file, generation, sight, folder)
        read = log_marks.known_at(at)
        so_far = log_marks.recognise(file, read) if current is not None else None
        # Of what is being read more may be known.
        if known is not None and (so_far is None or log_marks.amount(known) >= at.offset):
            if copied is None:
                return self._more_of(file, known, sight, generation, at)
            # Nothing of it is told before that changes.
            self._copies[stamp] = copied
            return None
        if current is not None and so_far is not None:
            if not _are_two(file, generation, current, sight):
                return _in_its_place(file, so_far, sight, generation, at)
        elif current is not None and _is_copied_out(file, current):
            # All of it stands in what is being read: it stays known when that is gone.
            sight.files.append(self._remember(folder, generation))
            return None
        if self._is_held(file, generation, sight) or self._is_being_packed(
            file, generation, sight
        ):
            return None
        folder.refuse_linked(generation.name, file, known=at.inode)
        # What can't be read is not begun.
        log_chunks.portion(file, 0)
        self._open_files.hold(file)
        return Item(file, log_marks.beginning(file, at), number=number)

    def _more_of(
        self,
        file: LogFile,
        known: KnownFile,
        sight: Sight,
        generation: Generation,
        at: Position,
    ) -> Item | None:
        """What has come to a known one; if nothing has, it is read."""
        stamp, number, files = generation.stamp, generation.number, sight.files
        item = self._more(file, known, at, stamp)
        if item is None and stamp not in self._since:
            self._quiet.add(stamp)
            sight.read |= {number} if number is not None else set()
            files[files.index(known)] = msgspec.structs.replace(known, stamp=stamp)
        return item

    def _known(
        self, file: LogFile, generation: Generation, sight: Sight, folder: LogFolder
    ) -> tuple[KnownFile | None, Stamp | None]:
        """Which of the known files it is; and the stamp of that, if it is but a copy.

        Of a copy the other is still here, and has what was read. Two generations may well hold
        the same line.
        """
        stamp, copied = generation.stamp, None
        best: KnownFile | None = None
        for known in log_marks.all_recognised(file, sight.files):
            other = self._is_there(known, stamp, sight, folder)
            if other is None:
                # Inodes are used again: of several what most was read of.
                best = known if best is None else max(best, known, key=log_marks.amount)
            elif not (_is_poor(file) and log_generations.are_two(generation, other)):
                copied = known, other.stamp
        return (best, None) if best is not None else copied or (None, None)

    def _is_there(
        self, known: KnownFile, stamp: Stamp, sight: Sight, folder: LogFolder
    ) -> Generation | None:
        """The known file, if it is here under another name and has what was read.

        If it has more, that is told of it, and if it has not, of the copy.
        """
        if known.stamp[:2] == stamp[:2]:
            return None
        for generation in sight.others:
            if generation.identity == known.stamp[:2]:
                # Its inode may be another's by now.
                file = self._open(folder, generation)
                if file is not None:
                    with closing(file):
                        offset = log_marks.recognise(file, known)
                        longer = offset is not None and (
                            offset == EVERYTHING or stamp[3] <= generation.info.st_size
                        )
                        return generation if longer else None
        return None

    def _more(self, file: LogFile, known: KnownFile, at: Position, stamp: Stamp) -> Item | None:
        """What has come to a finished file since, if it is told now."""
        offset = log_marks.recognise(file, known)
        if offset is None or offset == EVERYTHING:
            return None
        data = log_chunks.portion(file, offset)
        beyond = offset + len(data)
        if not data.strip(b"\0") and (len(data) < CHUNK or file.next_data(beyond) is None):
            return None
        half = b"\n" not in data and len(data) < CHUNK and not isinstance(file, PackedLog)
        if half and not self._stays(stamp, HALF):
            return None
        self._since.pop(stamp, None)
        place = log_marks.behind(
            log_marks.beginning(file, at), file, offset, skipping=known.skipping
        )
        return Item(file, place, late=True)

    def taken(self, item: Item) -> None:
        """The item is being read now, its file is the reader's."""
        self._open_files.take(item.file)

    def let_go(self, items: Iterable[Item]) -> None:
        """These are not read now: they are seen again."""
        for item in items:
            if not self._open_files.keeps(item.file):
                item.file.close()

    def _is_held(self, file: LogFile, generation: Generation, sight: Sight) -> bool:
        """Is it a copy of one that is to be read, as a packer makes it?"""
        head = file.read(0, log_marks.HEAD)
        # By a hole nothing is known.
        return bool(head.strip(b"\0")) and any(
            head == held.read(0, log_marks.HEAD) and not _are_two(file, generation, held, sight)
            for _, held in self._open_files.news()
        )

    def _is_being_packed(self, file: LogFile, generation: Generation, sight: Sight) -> bool:
        """Is it unfinished beside what it is made from?"""
        plain = log_generations.plain(generation.name)
        return (
            bool(file.damage)
            and any(other.name == plain for other in sight.others)
            and not self._stays(generation.stamp, PACKING)
        )

    def _stays(self, stamp: Stamp, long: float) -> bool:
        """Has it been so for so long? s."""
        return self._clock() - self._since.setdefault(stamp, self._clock()) >= long

    def _remember(self, folder: LogFolder, generation: Generation) -> KnownFile:
        """As one of which all is told."""
        file = self._open(folder, generation)
        if file is None:
            return KnownFile(generation.stamp)
        try:
            size = EVERYTHING if generation.packed else generation.info.st_size
            return log_marks.known(file, generation.stamp, size)
        except OSError:
            return KnownFile(generation.stamp)
        finally:
            file.close()

    def _open(self, folder: LogFolder, generation: Generation) -> LogFile | None:
        """None: it can't be read, which is told when its turn comes."""
        try:
            return folder.open(generation.name, packed=generation.packed)
        except OSError:
            return None


def _holds_unless_it_fails(file: LogFile, at: Position) -> bool:
    try:
        return log_marks.holds(file, at)
    except OSError:
        return False


def _in_its_place(
    file: LogFile, so_far: int, sight: Sight, generation: Generation, at: Position
) -> Item | None:
    """A copy of what is being read: that tells what comes, unless it is gone."""
    if not sight.alone:
        return None
    sight.where = sight.where or generation
    if so_far == EVERYTHING:
        return None
    place = log_marks.resumed(at, file, so_far, skipping=at.skipping)
    return Item(file, place, same=True)


def _is_copied_out(file: LogFile, current: LogFile) -> bool:
    end = log_search.copied_out(file, current)
    return end is not None and not file.read(end, 1)


def _is_poor(file: LogFile) -> bool:
    """Has it so little that the next one may well hold the same?"""
    return not log_search.has_lines(file, log_search.LINES)


def _are_two(file: LogFile, generation: Generation, like: LogFile, sight: Sight) -> bool:
    """Is the other file, that holds the same, here, too, as another generation?"""
    identity = log_marks.stamp_of(like)[:2]
    return _is_poor(file) and any(
        other.identity == identity and log_generations.are_two(generation, other)
        for other in sight.others
    )
