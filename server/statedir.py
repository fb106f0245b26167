"""The state directory: its lock, the admin token, endpoint.json. No database, no socket.

The lock is a record lock (fcntl): it belongs to the process, so a child between fork and exec
does not hold it, and it is gone however the process ends. It goes with its file, which can be
deleted; so the directory itself is locked, too (flock), where its file system can.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from server.backup import placing
from server.login import tokens
from sysadmd.errors import CannotStart
from sysadmd.machine import make_parents, plainly, reason, write_private
from sysadmd.path_faults import why_not_made

# How long a child of a daemon that was killed may hold the directory on its way to exec; s.
CHILD: Final = 1.0

log = logging.getLogger(__name__)


def not_ours(found: os.stat_result) -> str:
    """Why a state directory is not for our account, and the remedy; empty: it is."""
    if found.st_uid == os.geteuid():
        return ""
    remedy = "run as that account"
    if os.geteuid() == 0:
        remedy = "give it to uid 0 (chown -R)"
    return f"belongs to uid {found.st_uid}, who could change what is in it; {remedy}"


class StateDir:
    """The directory, made if needed and locked for this process until it ends.

    Raises: CannotStart when it can't be made or another daemon uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self.in_words():
            self._directory = self._open()
            self._hold()
            self._lock = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise self._in_use() from error
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
            aside = placing.settle(path)
        if aside is not None:
            log.warning(
                "a restore had been cut off in %s and is finished now; what was there before is"
                " in %s",
                path,
                aside,
            )

    def _open(self) -> int:
        """Its descriptor; made if needed, ours, and nobody else's to enter."""
        try:
            make_parents(self.path)
            self.path.mkdir(mode=0o700, exist_ok=True)
            directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unusable(why_not_made(self.path.absolute(), error)) from error
        found = os.fstat(directory)
        if owner := not_ours(found):
            raise CannotStart(
                f"the state directory {self.path} {owner}, or name another one with --state-dir"
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.fchmod(directory, 0o700)
        return directory

    def _hold(self) -> None:
        """Lock the directory, if its file system can."""
        until = time.monotonic() + CHILD
        while True:
            try:
                fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > until:
                    raise self._in_use() from error
                time.sleep(CHILD / 20)
            except OSError:
                return
            else:
                return

    def _in_use(self) -> CannotStart:
        pid = ""
        with suppress(OSError):
            pid = self.lock.read_text(encoding="ascii", errors="replace").strip()
        return CannotStart(
            f"the state directory {self.path} is in use by the daemon, or a restore, with pid"
            f" {pid or 'unknown'}; stop the one, wait for the other, or name another directory"
            " with --state-dir"
        )

    @contextmanager
    def in_words(self) -> Generator[None]:
        """What it does in here needs files of the directory. Raises: CannotStart."""
        try:
            yield
        except OSError as error:
            raise self._unusable(reason(error)) from error

    def _unusable(self, why: str) -> CannotStart:
        return CannotStart(
            f"the state directory {self.path} can't be used: {why}, or name another one with"
            " --state-dir"
        )

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def database(self) -> Path:
        return self.path / placing.DATABASE

    @property
    def tls(self) -> Path:
        return self.path / "tls"

    @property
    def token_file(self) -> Path:
        return self.path / "admin.token"

    def admin_token(self) -> str:
        """The one secret that is kept as it is; made at the first start."""
        try:
            secret = self.token_file.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            secret = ""
        except (OSError, UnicodeDecodeError) as error:
            raise CannotStart(f"{self.token_file} can't be read: {plainly(error)}") from error
        if not secret:
            secret = tokens.make_secret()
            write_private(self.token_file, secret + "\n")
        return secret

    def write_endpoint(self, url: str, certificate: Path) -> None:
        """Tell local clients where and how to connect."""
        endpoint = {
            "url": url,
            "pid": os.getpid(),
            "certificate": str(certificate),
            "token_file": str(self.token_file),
        }
        write_private(self.path / "endpoint.json", json.dumps(endpoint) + "\n")

    def remove_endpoint(self) -> None:
        # Of our directory, whatever is at its path by now; who reads it finds nobody there.
        with suppress(OSError):
            os.unlink("endpoint.json", dir_fd=self._directory)
