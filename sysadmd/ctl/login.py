"""`sysadmctl login`, `logout`, `identify`: who is there, and being known to it."""

from __future__ import annotations

import asyncio
import getpass
import os
import secrets
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from sysadmd.client import Client, Target, connect
from sysadmd.ctl import profile
from sysadmd.ctl.address import server_url, shown
from sysadmd.ctl.advice import UNAUTHORIZED
from sysadmd.ctl.meant import ASKED, LOGIN, PROFILE, STATE_DIR, chosen
from sysadmd.ctl.options import Context
from sysadmd.ctl.output import Printer
from sysadmd.ctl.profiles import LOCAL, Profile, Profiles, is_name
from sysadmd.errors import BadRequest, SysadmdError
from sysadmd.machine import host_name


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginPlace:
    """Where one logs in, and what that is called here. cafile: the PEM that verifies it."""

    url: str
    profile: str
    cafile: Path | None = None


def place(
    context: Context, address: str | None, name: str | None, printer: Printer
) -> LoginPlace:
    """Where the words of the command line lead. Raises: click.UsageError, BadRequest.

    address: of a server, or the name of a profile to log in to again; None: the one that is
    meant otherwise.
    """
    address = address or context.url
    profiles = _kept(printer)
    if name is None and address is not None:
        name = context.profile
    if address is None:
        address = chosen(context, profiles)
        if address is None or address == LOCAL:
            raise click.UsageError("say where: `sysadmctl login HOST`, or HOST:PORT")
    if address in profiles.kept and name is None:
        return LoginPlace(
            url=profiles.kept[address].url, profile=address, cafile=context.cafile
        )
    url = server_url(address)
    name = profiles.name_for(url) if name is None else name
    if not is_name(name):
        raise click.UsageError(
            f"a profile can't be called {name!r}: without blanks, not {LOCAL!r}, which is this"
            " machine's daemon, and not beginning with a -"
        )
    return LoginPlace(url=url, profile=name, cafile=context.cafile)


def log_in(printer: Printer, where: LoginPlace, user: str | None, name: str | None) -> int:
    """Ask for user and password, pin the key, keep the token.

    Questions are asked outside of any event loop, which would keep Ctrl-C from ending them.
    """
    url, pin = where.url, _accepted_pin(printer, where)
    if pin is None:
        return 1
    user = user or click.prompt("User", default=_own_name(), err=True)
    password = click.prompt("Password", hide_input=True, err=True)
    # Names are unique there; the end tells one login of this machine from the next.
    label = name or f"{own_label()} {secrets.token_hex(2)}"
    args = {"username": user, "password": password, "lifetime": "client", "name": label}
    token, seconds = asyncio.run(_exchange(Target(url, pin=pin), args))
    new = Profile(url, token, pin, label)
    try:
        _keep(printer, where, new)
    except SysadmdError:
        # Nobody has it.
        asyncio.run(end_token(new, printer))
        raise
    if printer.as_json:
        values = {"url": url, "name": label, "pin": pin, "seconds": seconds}
        printer.value({**values, "profile": where.profile})
    else:
        printer.line(
            f"logged in to {url} as {user}, for {seconds // 86400} days; profile"
            f" {where.profile}, token {label!r}"
        )
    return 0


def log_in_by_token(printer: Printer, where: LoginPlace, given: str) -> int:
    """Pin the key, try a token that we were given, and keep it. given: it, or `-`: ask."""
    pin = _accepted_pin(printer, where)
    if pin is None:
        return 1
    token = _asked_token() if given == ASKED else given
    asyncio.run(_try(Target(where.url, token, pin=pin)))
    _keep(printer, where, Profile(where.url, token, pin, ""))
    if given != ASKED:
        printer.note(
            "others on this machine may have seen the token in the list of processes; `--token"
            f" -` takes it from {LOGIN}, or asks for it"
        )
    if printer.as_json:
        printer.value({"url": where.url, "pin": pin, "profile": where.profile})
    else:
        printer.line(f"logged in to {where.url} by a token; profile {where.profile}")
    return 0


def _asked_token() -> str:
    """From the environment, without echo from a terminal, or a line of what is piped in."""
    token = os.environ.get(LOGIN)
    if token is None and sys.stdin.isatty():
        token = click.prompt("Token", hide_input=True, err=True)
    token = (sys.stdin.readline() if token is None else token).strip()
    if not token:
        raise BadRequest(f"there is no token: neither in {LOGIN} nor in the input")
    return token


def log_in_by_key(printer: Printer, where: LoginPlace, file: Path) -> int:
    """Pin the server's key, prove ours once, and keep where it is."""
    from sysadmd.key_file import read_key

    file, url = file.absolute(), where.url
    fingerprint = read_key(file).public.fingerprint
    pin = _accepted_pin(printer, where, by_key=True)
    if pin is None:
        return 1
    new = Profile(url, "", pin, fingerprint, str(file))
    if asyncio.run(_is_bridge(new.target())):
        return _log_in_at_bridge(printer, where, replace(new, bridge=True))
    account = asyncio.run(_prove(new.target(), fingerprint))
    _keep(printer, where, new)
    if printer.as_json:
        values = {"url": url, "account": account, "key": str(file), "profile": where.profile}
        printer.value({**values, "fingerprint": fingerprint, "pin": pin})
    else:
        # Whose it is there, who has registered it has said: somebody else, perhaps.
        printer.line(
            f"logged in to {url} as {account} by the key {fingerprint} of {file}; profile"
            f" {where.profile}"
        )
    return 0


def _keep(printer: Printer, where: LoginPlace, new: Profile) -> None:
    """Keep a login, end what it takes the place of, and say what goes before it."""
    old = profile.keep(where.profile, new)
    if old is not None and old.url != new.url:
        printer.note(f"the profile {where.profile} was for {old.url} before")
    if old is not None and old.token != new.token:
        asyncio.run(end_token(old, printer))
    for variable in (STATE_DIR, PROFILE, LOGIN):
        value = os.environ.get(variable)
        if not value or (variable, value) == (PROFILE, where.profile) or value == new.token:
            continue
        printer.note(f"{variable} is set, and goes before it: `unset {variable}` ends that")


async def _is_bridge(target: Target) -> bool:
    async with connect(replace(target, key=None)) as client:
        reply = await client.request("rpc", "identify")
    return bool(reply["type"] == "bridge")


def _log_in_at_bridge(printer: Printer, where: LoginPlace, new: Profile) -> int:
    from sysadmd.bridge_call import available

    servers = asyncio.run(available(new.target()))
    _keep(printer, where, new)
    if printer.as_json:
        values = {"url": new.url, "key": new.key, "fingerprint": new.name, "pin": new.pin}
        printer.value({**values, "servers": list(servers), "profile": where.profile})
    else:
        printer.line(
            f"logged in to the bridge {new.url} by the key {new.name} of {new.key}; profile"
            f" {where.profile}"
        )
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


def _accepted_pin(printer: Printer, where: LoginPlace, *, by_key: bool = False) -> str | None:
    """The pin of the server there, if it is known, verified, or was said to be right."""
    profiles, url = _kept(), where.url
    name = profiles.at(url)
    known = None if name is None else profiles.kept[name].pin
    pin, kind = asyncio.run(_stranger(where))
    if kind == "bridge" and not by_key:
        raise SysadmdError(
            f"{url} is a bridge, where one logs in by a key: `sysadmctl login {shown(url)}"
            " --key FILE`"
        )
    if pin != known and where.cafile is None and not _agreed(url, pin, known):
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


async def _stranger(where: LoginPlace) -> tuple[str, str]:
    """The pin of whatever server answers there, and what it says it is; it is told nothing."""
    pin = None if where.cafile else ""
    async with connect(Target(where.url, "", where.cafile, pin=pin)) as client:
        reply = await client.request("rpc", "identify")
        return client.pin, str(reply["type"])


async def _try(target: Target) -> None:
    """Log in once. Raises: NotPermitted."""
    async with connect(target):
        pass


def _agreed(url: str, pin: str, known: str | None) -> bool:
    click.echo(f"The SHA-256 of the public key of {url} is\n  {pin}", err=True)
    if known is not None:
        click.echo(f"It was\n  {known}\nbefore: somebody may be in between.", err=True)
    click.echo("On that machine, `sysadmctl identify` shows it: compare them.", err=True)
    try:
        return click.confirm("Is that right?", err=True)
    except click.Abort as error:
        if not isinstance(error.__context__, EOFError):
            raise
        raise SysadmdError(
            "the input ended before the answer; ask again on a terminal, or verify the server"
            " by --cafile PEM, and nothing is asked"
        ) from error


def _kept(printer: Printer | None = None) -> Profiles:
    """The profiles; those that make no sense are told to who is named, and are as none."""
    try:
        return profile.load()
    except profile.ProfilesDamaged as error:
        if printer is not None:
            printer.note(str(error).partition(";")[0])
        return Profiles()


async def log_out(printer: Printer, context: Context, name: str | None) -> int:
    """Forget a profile, and let the server forget its token; a key stays registered."""
    gone = profile.remove_damaged()
    for file in gone:
        printer.note(
            f"{file} is damaged, and is forgotten here; tokens in it may live on at the servers"
            " that they were for"
        )
    if gone:
        return 0
    if name is not None:
        context = replace(context, profile=name)
    name = chosen(context, profile.load())
    if name == LOCAL:
        raise click.UsageError("this machine's daemon needs no login: there is nothing to end")
    if name is None:
        printer.note("not logged in anywhere")
        return 1
    kept = profile.forget(name)
    rest = profile.load()
    if rest.kept and rest.default is None:
        printer.note(
            f"no profile is the default one now: `sysadmctl profiles use NAME`; {rest.listed()}"
        )
    await _say_what_is_left(kept, printer)
    return 0


async def _say_what_is_left(kept: Profile, printer: Printer) -> None:
    """End what was ours alone, and say what stays."""
    if kept.bridge:
        printer.note(
            f"the key {kept.name} of {kept.key} stays registered at the bridge {kept.url}"
        )
    elif kept.key is not None:
        printer.note(
            f"the key {kept.name} of {kept.key} stays registered at {kept.url}: `sysadmctl"
            f" login {kept.url} --key {kept.key}` logs in again, and `sysadmctl key revoke"
            f" {kept.name}` ends that"
        )
    else:
        await end_token(kept, printer)


async def end_token(kept: Profile, printer: Printer) -> None:
    """Let the server forget the token of a profile, if it was made for that."""
    if kept.key is not None:
        return
    if not kept.is_ours:
        printer.note(
            f"the token that was given for {kept.url} stays valid there, until who made it"
            " revokes it"
        )
        return
    try:
        async with connect(kept.target()) as client:
            await client.request("rpc", "tokens", {"action": "revoke", "name": kept.name})
    except SysadmdError as error:
        # What is no login any more need not be ended.
        if getattr(error, "number", None) != UNAUTHORIZED:
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
