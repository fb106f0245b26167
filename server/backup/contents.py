"""What a backup consists of, and reading one without trusting it. Writes no state.

backup.json     the manifest, written last: without it there is no backup
SHA256SUMS      every other file and its hash, as sha256sum(1) writes and checks it
state.db        one file: no WAL, no values of jobs' environments
jobs/UID/…      the logs of the jobs that are finished in it
tls/, admin.token    with --with-keys
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from dispatcher import job_files
from server.backup.placing import DATABASE
from sysadmd.copies import to_disk
from sysadmd.errors import BackupUnusable

FORMAT: Final = 1
MANIFEST: Final = "backup.json"
LIST: Final = "SHA256SUMS"
TOKEN: Final = "admin.token"  # noqa: S105 - a file's name
KEYS: Final = "tls"
# Read and written at once: memory does not grow with what is saved.
PORTION: Final = 1024 * 1024
# A manifest has less than a KiB, a line of the list at most what the names below allow: who
# finds more reads no further.
MANIFEST_SIZE: Final = 64 * 1024
LINE: Final = 512
# The only names there are: nothing is read or made anywhere else.
_NAME: Final = (
    rf"{re.escape(DATABASE)}|{re.escape(TOKEN)}|{KEYS}/[A-Za-z0-9_-][A-Za-z0-9._-]{{0,99}}"
    r"|jobs/[0-9]{1,18}/[0-9]{1,18}(?:\.log|\.more/[0-9]{1,18})"
)
_IS_NAME: Final = re.compile(_NAME, re.ASCII)
_LINE: Final = re.compile(rf"([0-9a-f]{{64}})  ({_NAME})\n", re.ASCII)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself. Times: RFC 3339. cursor, last_event: of its last event; ""
    and null: there is none. list: the SHA-256 of SHA256SUMS. size: bytes of all its files.
    seal: the SHA-256 of the manifest itself, as it is without this."""

    format: int = FORMAT
    version: str
    host: str
    time: str
    epoch: str
    cursor: str
    last_event: str | None
    events: int
    finished_jobs: int
    active_jobs: int
    with_keys: bool
    files: int
    size: int
    list: str
    seal: str = ""


class _Form(msgspec.Struct, frozen=True):
    format: int


def is_name(name: str) -> bool:
    """May a file of a backup be called so?"""
    return _IS_NAME.fullmatch(name) is not None


def sealed(manifest: Manifest) -> bytes:
    """The manifest as a file, which tells by its seal that none of its bytes is another one."""

    def text(seal: str) -> bytes:
        made = msgspec.structs.replace(manifest, seal=seal)
        return msgspec.json.format(msgspec.json.encode(made)) + b"\n"

    return text(hashlib.sha256(text("")).hexdigest())


def line(name: str, digest: str) -> bytes:
    """Of the list."""
    return f"{digest}  {name}\n".encode()


def portions(file: int, size: int | None = None) -> Iterator[bytes]:
    """What an open file holds, at most `size` bytes of it. Raises: OSError."""
    left = os.fstat(file).st_size if size is None else size
    while left > 0 and (data := os.read(file, min(left, PORTION))):
        left -= len(data)
        yield data


def pour(data: Iterable[bytes], target: Path) -> None:
    """Make a file of this, ours to read alone. Raises: OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(target, flags, 0o600), "wb") as out:
        for portion in data:
            out.write(portion)


def all_to_disk(top: Path) -> None:
    """Return once this directory, and all that is in it, would outlast a power cut.

    One after the other behind all writes: thousands of files take a fifth of the time that
    they take each by itself. Raises: OSError.
    """
    for directory, _, files in os.walk(top):
        for name in files:
            to_disk(Path(directory, name))
        to_disk(Path(directory))


@contextmanager
def looked_at(path: Path, *, alone: bool = False) -> Generator[sqlite3.Connection]:
    """A state file, opened so that nothing of it is changed.

    alone: it is one file that nobody writes; else others may, and it may have a WAL. Raises:
    sqlite3.Error.
    """
    if not path.with_name(path.name + "-wal").exists():
        # Else SQLite makes one, where it can: not in a snapshot, or on a disk that is dying.
        alone |= not os.access(path.parent, os.W_OK)
    uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if alone else ''}"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5)) as db:
        yield db


class Backup:
    """A backup that has its manifest; the files are believed by their hashes alone.

    Raises: BackupUnusable, as its methods do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with self._opened(MANIFEST) as file:
                text = b"".join(portions(file, MANIFEST_SIZE))
        except BackupUnusable as error:
            if not isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
                # It may be a good one.
                raise
            raise BackupUnusable(
                f"{path} is no backup, or not a whole one: {error}. Name another one; one that"
                " was cut off can be deleted"
            ) from error
        try:
            form = msgspec.json.decode(text, type=_Form).format
            if form > FORMAT:
                raise BackupUnusable(
                    f"{path} was made by a newer sysadmd (backups of format {form}); restore it"
                    " with that version"
                )
            self.manifest = msgspec.json.decode(text, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self.damaged(MANIFEST) from error
        seal = self.manifest.seal
        if hashlib.sha256(text.replace(seal.encode(), b"")).hexdigest() != seal:
            raise self.damaged(MANIFEST)

    def files(self) -> Iterator[tuple[str, str]]:
        """Name and hash of each file; that the list is whole is known at its end."""
        digest, count = hashlib.sha256(), 0
        with self._opened(LIST) as opened, os.fdopen(os.dup(opened), "rb") as file:
            while text := self._line(file.readline):
                digest.update(text)
                count += 1
                match = _LINE.fullmatch(text.decode("ascii", "replace"))
                if match is None:
                    raise self.damaged(f"{LIST} (line {count})")
                yield match[2], match[1]
        if digest.hexdigest() != self.manifest.list or count != self.manifest.files:
            raise self.damaged(LIST)

    def read(self, name: str, digest: str) -> Iterator[bytes]:
        """What this file holds; that it is what was saved is known at its end."""
        found = hashlib.sha256()
        with self._opened(name) as file:
            try:
                for data in portions(file):
                    found.update(data)
                    yield data
            except OSError as error:
                raise self._unreadable(name, error) from error
        if found.hexdigest() != digest:
            raise self.damaged(name)

    def check(self) -> None:
        """Read every file."""
        for name, digest in self.files():
            for _ in self.read(name, digest):
                pass

    def damaged(self, name: str) -> BackupUnusable:
        """A file is not what was saved."""
        return BackupUnusable(
            f"the backup {self.path} is damaged: {name} is not what was saved; name another one"
        )

    @contextmanager
    def _opened(self, name: str) -> Generator[int]:
        try:
            # Below the directory that was named no link is followed, and no pipe waited for.
            file = job_files.open_file(self.path / name, depth=name.count("/") + 1)
        except OSError as error:
            raise self._unreadable(name, error) from error
        try:
            yield file
        finally:
            os.close(file)

    def _line(self, read: Callable[[int], bytes]) -> bytes:
        try:
            return read(LINE)
        except OSError as error:
            raise self._unreadable(LIST, error) from error

    def _unreadable(self, name: str, error: OSError) -> BackupUnusable:
        remedy = "; run as its owner" * isinstance(error, PermissionError)
        return BackupUnusable(
            f"{self.path}/{name} can't be read: {error.strerror or error}{remedy}"
        )
