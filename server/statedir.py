"""The state directory: its lock, the admin token, endpoint.json. No database, no socket.

The lock is a record lock (fcntl): it belongs to the process, so a child between fork and exec
does not hold it, and it is gone however the process ends.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from server.login import tokens
from sysadmd.errors import CannotStart
from sysadmd.machine import write_private


class StateDir:
    """The directory, made if needed and locked for this process until it ends.

    Raises: CannotStart when it can't be made or another daemon uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.stat().st_mode & 0o077:
                path.chmod(0o700)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CannotStart(
                f"the state directory {path} can't be used: {error.strerror}; "
                "make it writable, or name another one with --state-dir"
            ) from error
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise CannotStart(
                f"the state directory {path} is in use by the daemon with pid {pid}; "
                "stop it first, or name another directory with --state-dir"
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    @property
    def database(self) -> Path:
        return self.path / "state.db"

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
            raise CannotStart(f"{self.token_file} can't be read: {error}") from error
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
        (self.path / "endpoint.json").unlink(missing_ok=True)
