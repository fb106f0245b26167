"""The file that holds a private key: made once, read with care. No connection.

PEM, PKCS #8 (RFC 7468, section 10), readable by its owner only.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from sysadmd.errors import BadRequest, Conflict, SysadmdError
from sysadmd.keys import PrivateKey, PublicKey, parse_public
from sysadmd.machine import write_private

# Bytes of a file that may be a key; ours has 119.
LONGEST: Final = 65536


def make_key(path: Path) -> PrivateKey:
    """A new key, in a file of mode 0600 that was not there before.

    Raises: Conflict if there is something of that name; SysadmdError if it can't be written.
    """
    key = PrivateKey.new()
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        write_private(new, key.pem)
    except (OSError, ValueError) as error:
        with suppress(OSError, ValueError):
            new.unlink()
        raise SysadmdError(f"{path} can't be made: {_why(error)}") from error
    try:
        # Half a key would be in the way of the next attempt: its name it gets when it is whole.
        os.link(new, path)
    except FileExistsError as error:
        raise Conflict(
            f"{path} is there already, and no key is overwritten: use it, or name another file"
            " with --file"
        ) from error
    except OSError as error:
        raise SysadmdError(f"{path} can't be made: {_why(error)}") from error
    finally:
        new.unlink(missing_ok=True)
    return key


def read_key(path: Path) -> PrivateKey:
    """Raises: BadRequest saying what is wrong with the file, and what to do."""
    pem = _read(path, private=True)
    if b"-----BEGIN PRIVATE KEY-----" not in pem:
        raise BadRequest(
            f"{path} can't be used as a key: it is no PEM of a private key (PKCS #8, without a"
            " pass phrase); `sysadmctl key new` makes one"
        )
    try:
        return PrivateKey.parse(pem)
    except ValueError as error:
        raise BadRequest(f"{path} can't be used as a key: {error}") from error


def read_public(path: Path) -> PublicKey:
    """A public key in PEM. Raises: BadRequest."""
    pem = _read(path)
    if b"PRIVATE KEY" in pem:
        raise BadRequest(
            f"{path} holds a private key: give the public one, or this one by --file, which"
            " sends its public part alone"
        )
    try:
        return parse_public(pem)
    except ValueError as error:
        raise BadRequest(f"{path} can't be used as a public key: {error}") from error


def _read(path: Path, *, private: bool = False) -> bytes:
    try:
        mode = path.stat().st_mode
        # To open a pipe may wait for its other end, and connecting again would find it empty.
        if not stat.S_ISREG(mode):
            raise BadRequest(f"{path} can't be used as a key: it is no regular file")
        if private and mode & 0o077:
            raise BadRequest(
                f"{path} is open to others than its owner (mode {stat.S_IMODE(mode):04o});"
                f" `chmod 600 {path}` closes it. If others may have read it, make another key:"
                " `sysadmctl key new`"
            )
        with path.open("rb") as file:
            return file.read(LONGEST)
    except FileNotFoundError as error:
        hint = "; `sysadmctl key new` makes a key" if private else ""
        raise BadRequest(f"there is no file {path}{hint}") from error
    except (OSError, ValueError) as error:
        raise BadRequest(f"{path} can't be read: {_why(error)}") from error


def _why(error: OSError | ValueError) -> str:
    # A name with a NUL in it is a ValueError.
    return str((error.strerror if isinstance(error, OSError) else None) or error)
