"""`sysadmctl login`, `logout`, `identify`: who is there, and being known to it."""

from __future__ import annotations

import asyncio
import getpass
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from sysadmd.client import Client, Target, Unreachable, connect
from sysadmd.ctl import profile
from sysadmd.ctl.output import Printer
from sysadmd.errors import SysadmdError
from sysadmd.machine import host_name


def log_in(printer: Printer, url: str, user: str | None, name: str | None) -> int:
    """Ask for user and password, pin the key, keep the token.

    Questions are asked outside of any event loop, which would keep Ctrl-C from ending them.
    """
    pin = _accepted_pin(printer, url)
    if pin is None:
        return 1
    user = user or click.prompt("User", default=_own_name(), err=True)
    password = click.prompt("Password", hide_input=True, err=True)
    # Names are unique there; the end tells one login of this machine from the next.
    label = name or f"{own_label()} {secrets.token_hex(2)}"
    args = {"username": user, "password": password, "lifetime": "client", "name": label}
    token, seconds = asyncio.run(_exchange(Target(url, pin=pin), args))
    profile.save(profile.Profile(url, token, pin, label))
    if printer.as_json:
        printer.value({"url": url, "name": label, "pin": pin, "seconds": seconds})
    else:
        printer.line(
            f"logged in to {url} as {user}, for {seconds // 86400} days; token {label!r}"
        )
    return 0


def log_in_by_key(printer: Printer, url: str, file: Path) -> int:
    """Pin the server's key, prove ours once, and keep where it is."""
    from sysadmd.key_file import read_key

    file = file.absolute()
    fingerprint = read_key(file).public.fingerprint
    pin = _accepted_pin(printer, url)
    if pin is None:
        return 1
    new = profile.Profile(url, "", pin, fingerprint, str(file))
    if asyncio.run(_is_bridge(new.target())):
        return _log_in_at_bridge(printer, replace(new, bridge=True))
    account = asyncio.run(_prove(new.target(), fingerprint))
    profile.save(new)
    if printer.as_json:
        values = {"url": url, "account": account, "key": str(file)}
        printer.value({**values, "fingerprint": fingerprint, "pin": pin})
    else:
        # Whose it is there, who has registered it has said: somebody else, perhaps.
        printer.line(f"logged in to {url} as {account} by the key {fingerprint} of {file}")
    return 0


async def _is_bridge(target: Target) -> bool:
    async with connect(replace(target, key=None)) as client:
        reply = await client.request("rpc", "identify")
    return bool(reply["type"] == "bridge")


def _log_in_at_bridge(printer: Printer, new: profile.Profile) -> int:
    from sysadmd.bridge_call import available

    servers = asyncio.run(available(new.target()))
    profile.save(new)
    if printer.as_json:
        values = {"url": new.url, "key": new.key, "fingerprint": new.name, "pin": new.pin}
        printer.value({**values, "servers": list(servers)})
    else:
        printer.line(f"logged in to the bridge {new.url} by the key {new.name} of {new.key}")
        printer.note("`sysadmctl servers` lists whom it reaches, `--server` names one")
    return 0


async def _prove(target: Target, fingerprint: str) -> str:
    """Log in by a key; the account that it is registered for."""
    async with connect(target) as client:
        async for key in registered_keys(client):
            if key["fingerprint"] == fingerprint:
                return str(key["account"])
    return "an account that is not told"


async def registered_keys(client: Client) -> AsyncIterator[dict[str, Any]]:
    """The keys that we may see there."""
    args: dict[str, Any] = {"action": "list_keys"}
    while True:
        page = await client.request("rpc", "settings", args)
        for key in page["keys"]:
            yield key
        if "next" not in page:
            return
        args["after"] = page["next"]


def _accepted_pin(printer: Printer, url: str) -> str | None:
    """The pin of the server there, if it is known or was said to be right."""
    kept = _kept(printer)
    known = kept.pin if kept is not None and kept.url == url else None
    pin = asyncio.run(server_pin(url))
    if pin != known and not _agreed(url, pin, known):
        printer.note("not logged in: the server's key was not accepted")
        return None
    return pin


def own_label() -> str:
    """`user@host`: what a server may call what is ours."""
    return f"{_own_name()}@{host_name()}"


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # An account that this machine has no name for.
        return str(os.geteuid())


async def _exchange(target: Target, args: dict[str, str]) -> tuple[str, int]:
    """A token and for how many seconds it is valid."""
    async with connect(target) as client:
        token, seconds = await client.request("rpc", "auth", args)
    return str(token), int(seconds)


async def server_pin(url: str) -> str:
    """The pin of whatever server answers there; nothing is trusted to it."""
    async with connect(Target(url, pin="")) as client:
        return client.pin


def _agreed(url: str, pin: str, known: str | None) -> bool:
    click.echo(f"The SHA-256 of the public key of {url} is\n  {pin}", err=True)
    if known is not None:
        click.echo(f"It was\n  {known}\nbefore: somebody may be in between.", err=True)
    return click.confirm("Is that right?", err=True)


def _kept(printer: Printer) -> profile.Profile | None:
    """The profile; one that can't be used is told, and is as none."""
    try:
        return profile.load()
    except Unreachable as error:
        printer.note(str(error).partition(";")[0])
        return None


async def log_out(printer: Printer) -> int:
    """Forget the profile, and let the server forget its token; a key stays registered."""
    is_there = profile.path().exists()
    kept = _kept(printer)
    if kept is None and is_there:
        profile.remove()
        printer.note("its token may live on at the server it was for; it is forgotten here")
        return 0
    if kept is None:
        printer.note("not logged in anywhere")
        return 1
    profile.remove()
    if kept.bridge:
        printer.note(
            f"the key {kept.name} of {kept.key} stays registered at the bridge {kept.url}"
        )
    elif kept.key is None:
        await end_token(kept, printer)
    else:
        printer.note(
            f"the key {kept.name} of {kept.key} stays registered at {kept.url}: `sysadmctl"
            f" login {kept.url} --key {kept.key}` logs in again, and `sysadmctl key revoke"
            f" {kept.name}` ends that"
        )
    return 0


async def end_token(kept: profile.Profile, printer: Printer) -> None:
    """Let the server forget the token of a profile, if it can be reached."""
    try:
        async with connect(kept.target()) as client:
            await client.request("rpc", "tokens", {"action": "revoke", "name": kept.name})
    except SysadmdError as error:
        printer.note(f"the token {kept.name!r} may live on at {kept.url}: {error}")


async def identify_server(target: Target, printer: Printer) -> int:
    """What the server says it is, and the pin of its key."""
    stranger = target if target.server else replace(target, token="", key=None)
    async with connect(stranger) as client:
        reply = await client.request("rpc", "identify")
        # The type first: what has none is no server of ours.
        values = {"type": reply["type"], **reply, "pin": client.pin}
    if printer.as_json:
        printer.value(values)
        return 0
    for key, value in values.items():
        printer.line(f"{key:9} {value}")
    return 0
