"""Where `sysadmctl login` keeps what it was given: one file, readable by its owner only."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from sysadmd.errors import BadRequest, SysadmdError
from sysadmd.machine import write_private
from sysadmd.target import Target, Unreachable


@dataclass(frozen=True, slots=True)
class Profile:
    """A server that was logged in to. name: of the token there.

    key: the absolute path of the private key by which we log in; then there is no token, and
    name is the key's fingerprint. bridge: it is none, but a bridge to servers.
    """

    url: str
    token: str
    pin: str
    name: str
    key: str | None = None
    bridge: bool = False

    def target(self) -> Target:
        key = None if self.key is None else Path(self.key)
        return Target(self.url, self.token, pin=self.pin, key=key)


def path() -> Path:
    """`$XDG_CONFIG_HOME/sysadmd/profile.json`, or below ~/.config."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "sysadmd" / "profile.json"


def key_path() -> Path:
    """Where a key is, if no other file is named: beside the profile."""
    return path().with_name("key.pem")


def make_folder() -> None:
    """Make the folder of both files, for us alone. Raises: OSError."""
    path().parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def load() -> Profile | None:
    """The profile; None: not logged in anywhere.

    Raises: Unreachable if the file can't be used. No other server is meant by that.
    """
    file = path()
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        words = {word: str(values[word]) for word in ("url", "token", "pin", "name")}
        # Profiles of before there were keys have none.
        key = None if values.get("key") is None else str(values["key"])
        kept = Profile(**words, key=key, bridge=values.get("bridge") is True)
        # No address, no server.
        kept.target()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        why = f"can't be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, RecursionError, BadRequest):
        why = "is damaged"
    else:
        return kept
    raise Unreachable(
        f"{file} {why}; so it is not known which server is meant. Log in again (`sysadmctl"
        " login` writes it anew), or name a server with --url, or this machine's with"
        " --state-dir"
    )


def save(profile: Profile) -> None:
    """Keep it, in a file of mode 0600. Raises: SysadmdError if it can't be written."""
    file = path()
    try:
        make_folder()
        write_private(file, json.dumps(asdict(profile)) + "\n")
    except OSError as error:
        raise SysadmdError(f"{file} can't be written: {error.strerror}") from error


def remove() -> None:
    """Forget it, if there is one."""
    path().unlink(missing_ok=True)
