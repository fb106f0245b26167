"""What every command of `sysadmctl` takes and does: common options, the server they mean."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from sysadmd.client import Target, Unreachable
from sysadmd.ctl import profile
from sysadmd.ctl.output import Printer
from sysadmd.ctl.profile import Profile
from sysadmd.machine import default_state_dir

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Context:
    """The options that stand before or after the command."""

    url: str | None = None
    bridge: str | None = None
    server: str | None = None
    token: str | None = None
    key: Path | None = None
    cafile: Path | None = None
    state_dir: Path | None = None
    as_json: bool = False

    @property
    def printer(self) -> Printer:
        return Printer(self.as_json)

    def target(self) -> Target:
        """The server that is meant: --url, else the local daemon, else the profile.

        Raises: click.UsageError if both a token and a key are named.
        """
        token, key = self._login()
        if self.bridge is not None or self.server is not None:
            return self._over_bridge(key)
        named = self.state_dir or os.environ.get("SYSADMD_STATE_DIR")
        if self.url is None and named:
            return Target(token=token, state_dir=Path(named))
        kept = self._kept()
        if kept is not None and kept.bridge and self.url is None:
            return self._over_bridge(key)
        if self.url is not None and (kept is None or kept.url != self.url):
            return Target(self.url, token, self.cafile, key=key)
        if kept is not None:
            target = kept.target()
            pin = None if self.cafile else target.pin
            target = replace(target, cafile=self.cafile, pin=pin)
            named_login = token is not None or key is not None
            return replace(target, token=token, key=key) if named_login else target
        return Target(token=token, state_dir=default_state_dir())

    def _kept(self) -> Profile | None:
        """The profile. Raises: Unreachable if it can't be used, and is needed."""
        try:
            return profile.load()
        except Unreachable:
            if self.url is not None and any(self._login()):
                return None
            raise

    def bridge_target(self) -> Target:
        """The bridge itself. Raises: click.UsageError."""
        if self.server is not None:
            raise click.UsageError("this is asked of the bridge, not of a --server")
        return replace(self._over_bridge(self._login()[1], server=""), server=None)

    def _over_bridge(self, key: Path | None, server: str | None = None) -> Target:
        """A server that is reached over a bridge. Raises: click.UsageError."""
        server = self.server if server is None else server
        kept = profile.load()
        url = self.bridge or (kept.url if kept is not None and kept.bridge else None)
        if url is None:
            raise click.UsageError("--server is reached over a bridge: name that with --bridge")
        if server is None:
            raise click.UsageError(
                "name a server with --server; `sysadmctl servers` lists those of the bridge"
            )
        if self.url is not None or self.token or self.state_dir is not None:
            raise click.UsageError(
                "over a bridge a --key logs in, and --server says where: no --url, --token or"
                " --state-dir"
            )
        pin = None
        if kept is not None and kept.url == url:
            pin = None if self.cafile else kept.pin
            key = key or (Path(kept.key) if kept.key else None)
        if key is None and profile.key_path().exists():
            key = profile.key_path()
        return Target(url, cafile=self.cafile, pin=pin, key=key, server=server)

    def _login(self) -> tuple[str | None, Path | None]:
        """The token and the key that were named: one of them at most."""
        if self.key is None:
            return self.token or os.environ.get("SYSADMCTL_TOKEN") or None, None
        if self.token:
            raise click.UsageError("there is one login: either --token or --key")
        # An option wins over the environment.
        return None, self.key


def common_options(command: F) -> F:
    """The options that every command takes, too."""

    def keep(ctx: click.Context, param: click.Parameter, value: object) -> None:
        if value not in (None, False) and param.name:
            setattr(ctx.ensure_object(Context), param.name, value)

    for option in (
        click.option("--url", callback=keep, expose_value=False, help="wss://HOST:PORT"),
        click.option(
            "--bridge",
            callback=keep,
            expose_value=False,
            help="wss://HOST:PORT of a bridge over which a --server is reached.",
        ),
        click.option(
            "--server", callback=keep, expose_value=False, help="Its id at the bridge."
        ),
        click.option(
            "--token", callback=keep, expose_value=False, help="SYSADMCTL_TOKEN otherwise."
        ),
        click.option(
            "--key",
            callback=keep,
            expose_value=False,
            # What can't be used is said by who reads it, with what to do.
            type=click.Path(path_type=Path, readable=False),
            help="Private key to log in by, in place of a token.",
        ),
        click.option(
            "--cafile",
            callback=keep,
            expose_value=False,
            type=click.Path(path_type=Path, exists=True),
            help="PEM that verifies the server.",
        ),
        click.option(
            "--state-dir",
            callback=keep,
            expose_value=False,
            # What can't be read is said by the client, with what to do.
            type=click.Path(path_type=Path, readable=False),
            help="State directory of a local daemon.",
        ),
        click.option(
            "--json",
            "as_json",
            is_flag=True,
            callback=keep,
            expose_value=False,
            help="One JSON object a line.",
        ),
    ):
        command = option(command)
    return command


def run_work(work: Coroutine[Any, Any, int | None]) -> None:
    """Run it, and end with the status that it returns."""
    raise click.exceptions.Exit(asyncio.run(work) or 0)
