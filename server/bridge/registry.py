"""The keys that a bridge lets in: a file of its state directory, kept by `sysadmd bridge-key`.

A key is registered as a server's or a client's: it can't be the other. No socket, no loop.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast

from sysadmd.errors import CannotStart, Conflict, NotFound, SysadmdError
from sysadmd.keys import Kind, PublicKey, Side, as_text, stored
from sysadmd.machine import make_parents, reason, write_private
from sysadmd.path_faults import why_not_made
from sysadmd.text import quoted

FILE: Final = "keys.json"
# All are read at once, and tried one after the other if they are the original's.
MOST: Final = 20_000
MOST_LEGACY: Final = 64
# Characters of a name.
NAME_LENGTH: Final = 64


class RegistryUnusable(SysadmdError):
    """The file of keys can't be read, or is none."""

    code = "registry-unusable"


@dataclass(frozen=True, slots=True)
class BridgeKey:
    """A key that may come. created: ms since 1970."""

    fingerprint: str
    kind: Kind
    side: Side
    name: str
    pem: str
    created: int

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.kind, self.pem.encode("ascii"), self.fingerprint)


@dataclass(frozen=True)
class Keys:
    """All of them, by fingerprint; what is looked up is made ready where they are read."""

    by_fingerprint: Mapping[str, BridgeKey]

    def __len__(self) -> int:
        return len(self.by_fingerprint)

    @cached_property
    def by_text(self) -> Mapping[str, BridgeKey]:
        """By the text that requests have for them, as we write it."""
        return {as_text(key.public.pem): key for key in self.by_fingerprint.values()}

    @cached_property
    def checksums(self) -> frozenset[str]:
        """What the original calls them."""
        return frozenset(key.public.checksum for key in self.by_fingerprint.values())

    @cached_property
    def legacy(self) -> Sequence[BridgeKey]:
        """Those of original programs, which do not say which key they have."""
        return [key for key in self.by_fingerprint.values() if key.kind == "rsa"]


# Inode, time and size of the file; None: there is none.
Stamp = tuple[int, int, int] | None


def read(directory: Path) -> Keys:
    """The keys; none, if there is no file. Raises: RegistryUnusable."""
    try:
        return _prepared(_read(directory))
    except OSError as error:
        raise RegistryUnusable(f"{directory / FILE} can't be read: {reason(error)}") from error


def _prepared(found: dict[str, BridgeKey]) -> Keys:
    keys = Keys(MappingProxyType(found))
    # Here it may take its time.
    _ = keys.by_text, keys.checksums, keys.legacy
    return keys


def _read(directory: Path) -> dict[str, BridgeKey]:
    """Raises: RegistryUnusable, OSError."""
    path = directory / FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    try:
        listed: object = json.loads(text.decode("ascii"))
        if not isinstance(listed, list):
            raise RegistryUnusable(f"{path} is no list of keys; {_REMEDY}")
        found = map(_key, cast("list[dict[str, Any]]", listed))
        return {key.fingerprint: key for key in found}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RegistryUnusable(f"{path} can't be used: {error}; {_REMEDY}") from error


_REMEDY: Final = "put it right, or move it away and register the keys again"


def _key(entry: dict[str, Any]) -> BridgeKey:
    """Raises: ValueError, KeyError, TypeError."""
    public = stored(str(entry["pem"]).encode("ascii"))
    side = entry["side"]
    if side not in ("server", "client"):
        raise ValueError(f"a side is server or client, not {side!r}")
    pem = public.pem.decode("ascii")
    made = int(entry["created"])
    return BridgeKey(public.fingerprint, public.kind, side, str(entry["name"]), pem, made)


def stamp(directory: Path) -> Stamp:
    """What changes with the file. Raises: OSError."""
    try:
        info = (directory / FILE).stat()
    except FileNotFoundError:
        return None
    return info.st_ino, info.st_mtime_ns, info.st_size


def look(directory: Path, last: Stamp) -> tuple[Stamp, Keys | RegistryUnusable | None]:
    """The file's stamp, and if that is not the last one, the keys, or why they can't be used:
    who looks again is told no more of it until the file changes. Raises: OSError."""
    found = stamp(directory)
    if found == last:
        return found, None
    try:
        return found, _prepared(_read(directory))
    except RegistryUnusable as error:
        return found, error


def add(directory: Path, public: PublicKey, side: Side, name: str) -> BridgeKey:
    """Let a key in from now on; again: under another name. Raises: Conflict, SysadmdError."""
    if not 0 < len(name) <= NAME_LENGTH or not name.isprintable():
        raise Conflict(f"a name has 1 to {NAME_LENGTH} printable characters")
    pem, now = public.pem.decode("ascii"), round(time.time() * 1000)
    key = BridgeKey(public.fingerprint, public.kind, side, name, pem, now)
    with _changing(directory) as keys:
        there = keys.get(key.fingerprint)
        if there is not None and there.side != side:
            raise Conflict(
                f"the key is registered as a {there.side}'s ({there.name}); revoke it first,"
                f" or make another for the {side}"
            )
        if any(k.name == name and k.fingerprint != key.fingerprint for k in keys.values()):
            raise Conflict(f"another key is called {quoted(name)}; choose another name")
        keys[key.fingerprint] = key
        legacy = sum(k.kind == "rsa" for k in keys.values())
        if len(keys) > MOST or legacy > MOST_LEGACY:
            raise Conflict(
                f"there can be {MOST} keys, {MOST_LEGACY} of them of original programs; revoke"
                " some that are not in use"
            )
    return key


def revoke(directory: Path, name: str) -> BridgeKey:
    """Let a key in no more; name: or its fingerprint. Raises: NotFound, SysadmdError."""
    with _changing(directory) as keys:
        found = [k for k in keys.values() if name in (k.fingerprint, k.name)]
        if not found:
            raise NotFound(
                f"no key {quoted(name)} is registered; `sysadmd bridge-key list` shows those"
                " that are"
            )
        del keys[found[0].fingerprint]
    return found[0]


def _give(directory: Path) -> None:
    """Whose directory it is, the bridge is: root may have changed the file for it."""
    owner = directory.stat()
    for name in (FILE, f"{FILE}.lock"):
        if (directory / name).stat().st_uid != owner.st_uid:
            os.chown(directory / name, owner.st_uid, owner.st_gid, follow_symlinks=False)


@contextmanager
def _changing(directory: Path) -> Generator[dict[str, BridgeKey]]:
    """The keys, which are written if there is no error, one change at a time."""
    try:
        make_parents(directory)
        directory.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(directory / f"{FILE}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = _read(directory)
            yield keys
            listed = [asdict(key) for key in keys.values()]
            write_private(directory / FILE, json.dumps(listed, indent=1) + "\n")
            _give(directory)
        finally:
            os.close(lock)
    except OSError as error:
        why = why_not_made(directory.absolute(), error)
        raise CannotStart(f"{directory / FILE} can't be changed: {why}") from error
