"""Which server a command means: by its options, the environment, what `login` has kept."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import click

from sysadmd.ctl import profile
from sysadmd.ctl.address import BRIDGE_PORT, server_url, shown
from sysadmd.ctl.options import Context
from sysadmd.ctl.profiles import LOCAL, Profile, Profiles
from sysadmd.machine import default_state_dir
from sysadmd.target import Target, Unreachable

# Variables of the environment that say which server, and who we are there.
LOGIN: Final = "SYSADMCTL_TOKEN"
STATE_DIR: Final = "SYSADMD_STATE_DIR"
PROFILE: Final = "SYSADMCTL_PROFILE"
# In place of a token: it is asked for.
ASKED: Final = "-"


@dataclass(frozen=True, slots=True)
class Meant:
    """A server, and why it is that one.

    profile: the name of what was kept for it, if that counts. by_environment: the variables
    that decided in place of what was kept.
    """

    target: Target
    profile: str | None = None
    by_environment: frozenset[str] = frozenset()

    def where(self) -> str | None:
        """Where that is, for people; None: here."""
        target = self.target
        if target.state_dir is not None:
            return None
        host = shown(target.url)
        if target.server:
            host = f"the server {target.server} over the bridge {host}"
        return host if self.profile is None else f"{host} (profile {self.profile})"


def meant(context: Context) -> Meant:
    """The server that is meant: by option, else by SYSADMD_STATE_DIR, profile, or here.

    Raises: click.UsageError if the options contradict each other, or name nothing that there
    is; Unreachable if what was kept can't be used, and is needed.
    """
    token, key = _login(context)
    if context.profile is not None and (context.url or context.state_dir):
        raise click.UsageError("there is one server: --profile, --url or --state-dir")
    if context.bridge is not None or context.server is not None:
        return _over_bridge(context, key)
    by_token = _by_environment(context, token)
    if context.url is not None:
        return replace(_at(context, token, key), by_environment=by_token)
    directory = context.state_dir
    if directory is None and context.profile is None and os.environ.get(STATE_DIR):
        directory = Path(os.environ[STATE_DIR])
        by_token |= {STATE_DIR}
    if directory is not None:
        return Meant(Target(token=token, state_dir=directory), None, by_token)
    name = context.profile or os.environ.get(PROFILE)
    if context.profile is None and name:
        by_token |= {PROFILE}
    if name == LOCAL:
        here = Path(os.environ.get(STATE_DIR) or default_state_dir())
        return Meant(Target(token=token, state_dir=here), None, by_token)
    profiles = profile.load()
    name = chosen(context, profiles)
    if name is None or name == LOCAL:
        return Meant(Target(token=token, state_dir=default_state_dir()), None, by_token)
    kept = profiles.kept[name]
    if kept.bridge:
        return _over_bridge(context, key)
    return Meant(_by_profile(context, kept, token, key), name, by_token)


def chosen(context: Context, profiles: Profiles) -> str | None:
    """The profile that is meant, LOCAL, or None: there is none, and none was named.

    Raises: click.UsageError if there is none of that name, or none is the default one.
    """
    name = context.profile or os.environ.get(PROFILE) or None
    if name is None:
        if profiles.default is None and profiles.kept:
            raise click.UsageError(
                "no profile is the default one: name one with --profile, or `sysadmctl"
                f" profiles use NAME`; {profiles.listed()}"
            )
        return profiles.default
    if name != LOCAL and name not in profiles.kept:
        by = "" if context.profile else f", which {PROFILE} names"
        raise click.UsageError(f"there is no profile {name!r}{by}; {profiles.listed()}")
    return name


def _at(context: Context, token: str | None, key: Path | None) -> Meant:
    """What --url means."""
    url = server_url(context.url or "")
    try:
        profiles = profile.load()
    except Unreachable:
        if token is None and key is None:
            raise
        profiles = Profiles()
    name = profiles.at(url)
    if name is None:
        return Meant(Target(url, token, context.cafile, key=key))
    return Meant(_by_profile(context, profiles.kept[name], token, key), name)


def _by_profile(context: Context, kept: Profile, token: str | None, key: Path | None) -> Target:
    """As it was kept, but for what the options say."""
    target = kept.target()
    pin = None if context.cafile else target.pin
    target = replace(target, cafile=context.cafile, pin=pin)
    named_login = token is not None or key is not None
    return replace(target, token=token, key=key) if named_login else target


def bridge(context: Context) -> Meant:
    """The bridge itself. Raises: click.UsageError."""
    if context.server is not None:
        raise click.UsageError("this is asked of the bridge, not of a --server")
    found = _over_bridge(context, _login(context)[1], server="")
    return replace(found, target=replace(found.target, server=None))


def _over_bridge(context: Context, key: Path | None, server: str | None = None) -> Meant:
    """A server that is reached over a bridge. Raises: click.UsageError."""
    server = context.server if server is None else server
    profiles = profile.load()
    if context.bridge is not None:
        if context.profile is not None:
            raise click.UsageError("there is one bridge: either --bridge or --profile")
        url = server_url(context.bridge, BRIDGE_PORT)
        name = profiles.at(url)
    else:
        name = _kept_bridge(context, profiles)
        url = profiles.kept[name].url
    if server is None:
        raise click.UsageError(
            "name a server with --server; `sysadmctl servers` lists those of the bridge"
        )
    if context.url is not None or context.token or context.state_dir is not None:
        raise click.UsageError(
            "over a bridge a --key logs in, and --server says where: no --url, --token or"
            " --state-dir"
        )
    pin = None
    if name is not None:
        kept = profiles.kept[name]
        pin = None if context.cafile else kept.pin
        key = key or (Path(kept.key) if kept.key else None)
    if key is None and profile.key_path().exists():
        key = profile.key_path()
    return Meant(Target(url, cafile=context.cafile, pin=pin, key=key, server=server), name)


def _kept_bridge(context: Context, profiles: Profiles) -> str:
    """The profile of the bridge that is meant. Raises: click.UsageError."""
    bridges = [name for name, kept in profiles.kept.items() if kept.bridge]
    if context.profile or os.environ.get(PROFILE):
        name = chosen(context, profiles)
        if name in bridges:
            return str(name)
        raise click.UsageError(f"{name!r} is no profile of a bridge; name that with --bridge")
    if profiles.default in bridges:
        return str(profiles.default)
    # Servers are known by their keys: one bridge leads to the same as another.
    if len(bridges) == 1:
        return bridges[0]
    several = f", or one of {', '.join(bridges)} with --profile" if bridges else ""
    raise click.UsageError(
        f"--server is reached over a bridge: name that with --bridge{several}"
    )


def _login(context: Context) -> tuple[str | None, Path | None]:
    """The token and the key that were named: one of them at most."""
    if context.key is None:
        if context.token == ASKED:
            raise click.UsageError(f"`login` alone asks for a token; set {LOGIN}")
        return context.token or os.environ.get(LOGIN) or None, None
    if context.token:
        raise click.UsageError("there is one login: either --token or --key")
    # An option wins over the environment.
    return None, context.key


def _by_environment(context: Context, token: str | None) -> frozenset[str]:
    return frozenset({LOGIN} if token and not context.token else ())
