"""`sysadmd token`: add, list and revoke named tokens. No option is parsed here.

Asks the running daemon where there is one; else changes the locked state directory itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server.backup import placing
from server.classes.tokens import parse_new_token, token_value
from server.daemon import SCHEMAS
from server.login import audit, tokens
from server.statedir import StateDir
from sysadmd.client import Target, Unreachable, connect
from sysadmd.errors import BadRequest, CannotStart
from sysadmd.store import Store, open_store
from sysadmd.text import printable


def add(state_dir: Path, name: str, role: str, expires: str | None) -> str:
    """Make a token; returns its text, which is shown this once.

    Raises: BadRequest, Conflict, Refused, CannotStart.
    """
    args = {"action": "add", "name": name, "role": role}
    if expires is not None:
        args["expires"] = expires
    return str(asyncio.run(_ask(state_dir, args))["token"])


def listed(state_dir: Path) -> list[dict[str, Any]]:
    """The tokens that are valid, oldest first, as rpc/tokens shows them."""
    return asyncio.run(_all(state_dir))


async def _all(state_dir: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    args = {"action": "list"}
    while True:
        page = await _ask(state_dir, args)
        found += page["tokens"]
        if "next" not in page:
            return found
        args["after"] = page["next"]


def revoke(state_dir: Path, name: str) -> None:
    """End a token and what is connected by it. Raises: NotFound, Refused, CannotStart."""
    asyncio.run(_ask(state_dir, {"action": "revoke", "name": name}))


def table(values: list[dict[str, Any]]) -> str:
    """The list for people: name, role, and when it was made, last used, and will expire."""
    rows: list[tuple[str, ...]] = []
    for value in values:
        # As of any text of a server, nothing of it reaches a terminal raw.
        name = printable(str(value["name"]))
        until = f"expires {value['expires']}" if value["expires"] else "does not expire"
        times = (f"made {value['created']}", f"used {value['used']}", until)
        rows.append((name, str(value["role"]), *times))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def lines(values: list[dict[str, Any]]) -> str:
    """The list for programs: one JSON object a line."""
    return "\n".join(json.dumps(value) for value in values)


async def _ask(state_dir: Path, args: Mapping[str, str]) -> dict[str, Any]:
    """The reply of rpc/tokens, or what it would be."""
    try:
        async with connect(Target.local(state_dir)) as client:
            reply: dict[str, Any] = await client.request("rpc", "tokens", dict(args))
            return reply
    except Unreachable as error:
        return await _offline(state_dir, args, error)


async def _offline(
    state_dir: Path, args: Mapping[str, str], unreachable: Unreachable
) -> dict[str, Any]:
    try:
        is_there = (state_dir / placing.DATABASE).exists() or placing.is_pending(state_dir)
    except PermissionError:
        # That it is not ours to read was said when the daemon was asked.
        raise CannotStart(str(unreachable)) from None
    if args["action"] != "add" and not is_there:
        raise CannotStart(f"there is no state directory {state_dir}; name one: --state-dir")
    os.umask(0o077)
    try:
        state = StateDir(state_dir)
    except CannotStart as error:
        # The lock is held although nobody answers: a daemon that is starting, or hangs.
        raise CannotStart(f"{error}\n(the daemon was asked first: {unreachable})") from error
    store = open_store(state.database, SCHEMAS)
    try:
        return await _change(store, args)
    finally:
        store.close()


async def _change(store: Store, args: Mapping[str, str]) -> dict[str, Any]:
    action, name = args["action"], args.get("name", "")
    if action == "list":
        return {"tokens": [token_value(token) for token in tokens.listed(store.reader)]}
    if not name.isprintable():
        raise BadRequest("the name must be printable")
    note = audit.entry(own_name(), "local", f"token {action} {name}")
    if action == "revoke":
        number = tokens.named(store.reader, name)
        await store.write(lambda change: tokens.revoke(change, number, note))
        return {"revoked": name}
    try:
        role, seconds = parse_new_token(name, args["role"], args.get("expires"))
    except ValueError as error:
        raise BadRequest(str(error)) from error
    secret = await store.write(
        lambda change: tokens.add_named(change, name, role, seconds, note)
    )
    return {"token": secret, "name": name, "role": role.word}


def own_name() -> str:
    """For the trail: by the system, whatever the environment says."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
