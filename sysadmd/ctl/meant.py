"""Which server a command means: by its options, the environment, what `login` has kept."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import click

from sysadmd.ctl import profile
from sysadmd.ctl.options import Context
from sysadmd.ctl.profile import Profile
from sysadmd.machine import default_state_dir
from sysadmd.target import Target, Unreachable


def target(context: Context) -> Target:
    """The server that is meant: --url, else the local daemon, else the profile.

    Raises: click.UsageError if both a token and a key are named.
    """
    token, key = _login(context)
    if context.bridge is not None or context.server is not None:
        return _over_bridge(context, key)
    named = context.state_dir or os.environ.get("SYSADMD_STATE_DIR")
    if context.url is None and named:
        return Target(token=token, state_dir=Path(named))
    kept = _kept(context)
    if kept is not None and kept.bridge and context.url is None:
        return _over_bridge(context, key)
    if context.url is not None and (kept is None or kept.url != context.url):
        return Target(context.url, token, context.cafile, key=key)
    if kept is not None:
        target = kept.target()
        pin = None if context.cafile else target.pin
        target = replace(target, cafile=context.cafile, pin=pin)
        named_login = token is not None or key is not None
        return replace(target, token=token, key=key) if named_login else target
    return Target(token=token, state_dir=default_state_dir())


def _kept(context: Context) -> Profile | None:
    """The profile. Raises: Unreachable if it can't be used, and is needed."""
    try:
        return profile.load()
    except Unreachable:
        if context.url is not None and any(_login(context)):
            return None
        raise


def bridge_target(context: Context) -> Target:
    """The bridge itself. Raises: click.UsageError."""
    if context.server is not None:
        raise click.UsageError("this is asked of the bridge, not of a --server")
    return replace(_over_bridge(context, _login(context)[1], server=""), server=None)


def _over_bridge(context: Context, key: Path | None, server: str | None = None) -> Target:
    """A server that is reached over a bridge. Raises: click.UsageError."""
    server = context.server if server is None else server
    kept = profile.load()
    url = context.bridge or (kept.url if kept is not None and kept.bridge else None)
    if url is None:
        raise click.UsageError("--server is reached over a bridge: name that with --bridge")
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
    if kept is not None and kept.url == url:
        pin = None if context.cafile else kept.pin
        key = key or (Path(kept.key) if kept.key else None)
    if key is None and profile.key_path().exists():
        key = profile.key_path()
    return Target(url, cafile=context.cafile, pin=pin, key=key, server=server)


def _login(context: Context) -> tuple[str | None, Path | None]:
    """The token and the key that were named: one of them at most."""
    if context.key is None:
        return context.token or os.environ.get("SYSADMCTL_TOKEN") or None, None
    if context.token:
        raise click.UsageError("there is one login: either --token or --key")
    # An option wins over the environment.
    return None, context.key
