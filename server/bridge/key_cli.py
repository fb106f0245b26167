"""`sysadmd bridge-key`: add, list and revoke keys. No option is parsed here.

The file is changed, whether the bridge runs or not: one that runs looks at it all the time.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from server.bridge import registry
from server.dialects.values import rfc3339
from sysadmd.errors import BadRequest
from sysadmd.key_file import LONGEST, read_public
from sysadmd.keys import PublicKey, Side, parse_public


def add(directory: Path, file: Path, side: Side, name: str) -> str:
    """Register a key; returns what to say of it. Raises: BadRequest, Conflict, SysadmdError."""
    key = registry.add(directory, _public(file), side, name)
    return f"registered {key.name} ({key.fingerprint}) as a {key.side}'s"


def _public(file: Path) -> PublicKey:
    if str(file) != "-":
        return read_public(file)
    try:
        return parse_public(sys.stdin.buffer.read(LONGEST))
    except ValueError as error:
        raise BadRequest(f"stdin has no public key: {error}") from error


def listed(directory: Path, *, as_json: bool) -> str:
    """The keys, a line each: side, name, fingerprint, and when it was registered."""
    keys = registry.read(directory).by_fingerprint.values()
    if as_json:
        return "\n".join(
            json.dumps({**asdict(key), "created": rfc3339(key.created)}) for key in keys
        )
    width = max((len(key.name) for key in keys), default=0)
    return "\n".join(
        f"{key.side}  {key.name:{width}}  {key.fingerprint}  {rfc3339(key.created)}"
        for key in keys
    )


def revoke(directory: Path, name: str) -> str:
    """Forget a key; returns what to say of it. Raises: NotFound, SysadmdError."""
    key = registry.revoke(directory, name)
    return f"revoked {key.name} ({key.fingerprint})"
