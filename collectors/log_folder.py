"""The folder that a log is in: who may place files there makes us read no others.

A file is read if it is regular, stands in the folder itself, belongs to root, to the daemon's
account or to one that the settings name, and can be written by nobody else. The folder is
opened, then the file by its name there, and that is judged: what is judged is what is read.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from collectors.log_file import LogFile
from collectors.packed_log import PackedLog

# What is no file must neither hold us up nor become our terminal.
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# To go into a folder it need not be readable: FreeBSD's and POSIX's way, Linux's, any.
_ENTER: Final = getattr(os, "O_SEARCH", getattr(os, "O_PATH", os.O_RDONLY))
# What open(2) says of a link: on Linux, on FreeBSD.
_IS_LINK: Final = (errno.ELOOP, errno.EMLINK)
# One for each of several ways to keep logs elsewhere; a circle of them ends soon.
LINKS: Final = 8
_KEY: Final = "collectors.life_preserver.writers"


class FileRefused(OSError):
    """A file is not read. `filename`: its path; `strerror`: the reason, and the remedy."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(errno.EPERM, reason, os.fspath(path))


@dataclass(frozen=True, slots=True)
class LogFolder:
    """A folder, which may itself be a link. writers: accounts, and groups as `@wheel`."""

    path: Path
    writers: Collection[str] = ()

    def open(self, name: str, *, packed: bool = False) -> LogFile | None:
        """None: there is no such file. packed: it is compressed as its name says.

        Raises: FileRefused, OSError.
        """
        path = self.path / name
        try:
            with self._opened() as folder:
                file = os.open(name, _FLAGS, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in _IS_LINK:
                raise
            raise FileRefused(path, "is a link, which is not followed") from error
        try:
            self._judge(path, os.fstat(file))
        except BaseException:
            os.close(file)
            raise
        return PackedLog(file, name) if packed else LogFile(file)

    def open_new(self, name: str, *, packed: bool = False, known: int = 0) -> LogFile | None:
        """As `open`, but a file with a second name is refused, too: it may be another's.

        known: the inode of one that is not.
        """
        file = self.open(name, packed=packed)
        if file is not None:
            try:
                self.refuse_linked(name, file, known=known)
            except BaseException:
                file.close()
                raise
        return file

    def refuse_linked(self, name: str, file: LogFile, *, known: int = 0) -> None:
        """Raises: FileRefused, if the file of this name has a second one. known: as above."""
        info = file.info
        if info.st_nlink > 1 and info.st_ino != known:
            raise FileRefused(
                self.path / name,
                "has a second name (a hard link), so it may be another's: put a copy there",
            )

    def is_there(self) -> bool:
        """Is there such a folder? Raises: OSError."""
        try:
            with self._opened():
                return True
        except FileNotFoundError:
            return False

    def is_link(self, name: str) -> bool | None:
        """None: there is nothing of this name. Raises: OSError."""
        try:
            return stat.S_ISLNK(self.stat(name).st_mode)
        except FileNotFoundError:
            return None

    def leads(self, name: str, *, out: bool, links: int = LINKS) -> tuple[LogFolder, str]:
        """Folder and name that this one leads to, if it is a link; else itself.

        out: it may lead out of the folder, if who made it may say what is read. links: that
        are followed at most. Raises: FileRefused; OSError.
        """
        try:
            with self._opened() as folder:
                to = os.readlink(name, dir_fd=folder)
                info = os.stat(name, dir_fd=folder, follow_symlinks=False)
                place = os.fstat(folder)
        except OSError as error:
            # EINVAL: it is no link.
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
            return self, name
        path = self.path / name
        if not links:
            raise FileRefused(path, "leads through too many links")
        if "/" not in to:
            return self.leads(to, out=True, links=links - 1) if out else (self, to)
        if not out:
            raise FileRefused(
                path, "is a link out of its folder: let the settings name the file it leads to"
            )
        for made in (info, place):
            if reason := self._mistrust(made, is_link=made is info):
                raise FileRefused(path, f"is a link, and it or its folder {reason}")
        target = path.parent / to
        return LogFolder(target.parent, self.writers).leads(
            target.name, out=True, links=links - 1
        )

    def stat(self, name: str) -> os.stat_result:
        """Of what has this name, be it a link. Raises: FileNotFoundError, OSError."""
        with self._opened() as folder:
            return os.stat(name, dir_fd=folder, follow_symlinks=False)

    def files(self, wanted: Callable[[str], bool]) -> dict[str, os.stat_result]:
        """The regular files of such names. Raises: OSError."""
        found: dict[str, os.stat_result] = {}
        try:
            with self._opened(os.O_RDONLY) as folder, os.scandir(folder) as entries:
                for entry in entries:
                    if not wanted(entry.name):
                        continue
                    try:
                        info = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        # Rotated on in this moment.
                        continue
                    if stat.S_ISREG(info.st_mode):
                        found[entry.name] = info
        except FileNotFoundError:
            return {}
        return found

    @contextmanager
    def _opened(self, how: int = _ENTER) -> Generator[int]:
        folder = os.open(self.path, how | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield folder
        finally:
            os.close(folder)

    def _judge(self, path: Path, info: os.stat_result) -> None:
        """Raises: FileRefused."""
        if not stat.S_ISREG(info.st_mode):
            raise FileRefused(path, "is not a regular file; move it away")
        if reason := self._mistrust(info):
            raise FileRefused(path, reason)

    def _mistrust(self, info: os.stat_result, *, is_link: bool = False) -> str:
        """Who else may say what is in it, and the remedy; empty: nobody. The mode of a link
        says nothing."""
        if info.st_uid not in (0, os.geteuid()):
            owner = _account(info.st_uid)
            if owner not in self.writers:
                return f"belongs to {owner}: give it to root, or name {owner} in {_KEY}"
        if info.st_mode & stat.S_IWOTH and not is_link:
            return "can be written by everybody: change that (chmod o-w)"
        # Many systems give each account a group of its own, and that the right to write.
        own = os.geteuid() != 0 and info.st_gid == os.getegid()
        if info.st_mode & stat.S_IWGRP and not own and not is_link:
            group = _group(info.st_gid)
            if group not in self.writers:
                return (
                    f"can be written by the group {group[1:]}: change that (chmod g-w),"
                    f" or name {group} in {_KEY}"
                )
        return ""


def _account(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return f"@{grp.getgrgid(number).gr_name}"
    except KeyError:
        return f"@{number}"
