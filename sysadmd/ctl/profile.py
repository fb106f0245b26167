"""Where `sysadmctl login` keeps what it was given: one file, readable by its owner only.

Earlier versions kept one server, in `profile.json`: that is read, and replaced at the next
change.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

from sysadmd.ctl.profiles import (
    DAMAGED,
    LOCAL,
    Profile,
    Profiles,
    as_text,
    read_old_text,
    read_text,
)
from sysadmd.errors import NotFound, SysadmdError
from sysadmd.machine import write_private
from sysadmd.target import Unreachable


class ProfilesDamaged(Unreachable):
    """What is kept makes no sense."""


def folder() -> Path:
    """`$XDG_CONFIG_HOME/sysadmd`, or ~/.config/sysadmd."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "sysadmd"


def path() -> Path:
    """Where the profiles are."""
    return folder() / "profiles.json"


def old_path() -> Path:
    """Where the one profile of earlier versions is."""
    return folder() / "profile.json"


def key_path() -> Path:
    """Where a key is, if no other file is named: beside the profiles."""
    return folder() / "key.pem"


def make_folder() -> None:
    """Make the folder of all of them, for us alone. Raises: OSError."""
    folder().mkdir(mode=0o700, parents=True, exist_ok=True)


def load() -> Profiles:
    """What is kept; nothing if nobody has logged in anywhere.

    Raises: Unreachable if the file can't be used. No other server is meant by that.
    """
    # Who replaces the old file writes the new one first: looked for again, it is there.
    for file, read in ((path(), read_text), (old_path(), read_old_text), (path(), read_text)):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return _read(file, read)
    return Profiles()


def _read(file: Path, read: Callable[[str], Profiles]) -> Profiles:
    try:
        return read(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise Unreachable(
            f"{file} can't be read: {error.strerror}; so it is not known which server is meant."
            " Make it readable, or name a server with --url, or this machine's with"
            " --state-dir"
        ) from error
    except DAMAGED as error:
        raise ProfilesDamaged(
            f"{file} is damaged; so it is not known which server is meant. Log in again"
            " (`sysadmctl login` writes it anew), or name a server with --url, or this"
            " machine's with --state-dir"
        ) from error


def keep(name: str, profile: Profile) -> Profile | None:
    """Keep a login, as the default one; returns what it takes the place of.

    Raises: SysadmdError if the file can't be written, Unreachable if it can't be read.
    """
    with _changing():
        try:
            before = load()
        except ProfilesDamaged:
            # It may be somebody's to mend.
            _set_aside()
            before = Profiles()
        _write(before.having(name, profile))
    return before.kept.get(name)


def change(name: str, profile: Profile) -> None:
    """Keep another login under a name that is there. Raises: as `keep`, NotFound."""
    with _changing():
        before = load()
        if name not in before.kept:
            raise _gone(name)
        _write(replace(before, kept={**before.kept, name: profile}))


def forget(name: str) -> Profile:
    """Keep it no longer; returns it. Raises: as `keep`, NotFound if another was faster."""
    with _changing():
        before = load()
        if name not in before.kept:
            raise _gone(name)
        _write(before.without(name))
    return before.kept[name]


def use(name: str) -> None:
    """Mean this one where none is named. Raises: as `forget`."""
    with _changing():
        before = load()
        if name != LOCAL and name not in before.kept:
            raise _gone(name)
        _write(before.using(name))


def remove_damaged() -> list[Path]:
    """Remove what can't be used; returns what it was. Raises: SysadmdError."""
    with _changing():
        try:
            load()
        except ProfilesDamaged:
            gone = [file for file in (path(), old_path()) if file.exists()]
            for file in gone:
                file.unlink()
            return gone
    return []


def _gone(name: str) -> NotFound:
    return NotFound(f"there is no profile {name!r} any more")


@contextlib.contextmanager
def _changing() -> Generator[None]:
    """One of us at a time: a login that ends meanwhile is not lost. Raises: SysadmdError."""
    try:
        make_folder()
        # Whoever the folder belongs to, no file elsewhere is made by a link in it.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(folder() / "profiles.lock", flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
    except OSError as error:
        raise SysadmdError(f"{path()} can't be written: {error.strerror}") from error


def _write(profiles: Profiles) -> None:
    if profiles.kept:
        write_private(path(), as_text(profiles))
    else:
        path().unlink(missing_ok=True)
    old_path().unlink(missing_ok=True)


def _set_aside() -> None:
    """The file that is damaged."""
    file = path() if path().exists() else old_path()
    file.replace(file.with_name(file.name + ".damaged"))
