"""What every command of `sysadmctl` takes: the common options."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sysadmd.ctl.help_text import ServerOption
from sysadmd.ctl.output import Printer
from sysadmd.errors import SysadmdError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from sysadmd.ctl.meant import Meant
    from sysadmd.target import Target

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
    profile: str | None = None
    as_json: bool = False
    # What is known after `target`.
    meant: Meant | None = None

    @property
    def printer(self) -> Printer:
        return Printer(self.as_json)

    def target(self) -> Target:
        """The server that is meant; said on a terminal, if it is not the one here.

        Raises: click.UsageError, Unreachable.
        """
        from sysadmd.ctl.meant import meant

        return self._told(meant(self))

    def bridge_target(self) -> Target:
        """The bridge itself. Raises: click.UsageError, Unreachable."""
        from sysadmd.ctl.meant import bridge

        return self._told(bridge(self))

    def _told(self, meant: Meant) -> Target:
        where = meant.where()
        # Once, and for people: nobody else would have asked.
        if self.meant is None and where and not self.as_json and sys.stderr.isatty():
            self.printer.note(f"on {where}")
        self.meant = meant
        return meant.target

    def explained(self, error: SysadmdError) -> str:
        """What an error says, with what the environment has to do with it."""
        if self.meant is None:
            return str(error)
        from sysadmd.ctl.advice import advised

        return advised(error, self.meant)


def _profiles(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    from sysadmd.ctl import completing

    return completing.profiles(ctx, param, incomplete)


def _keep(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value not in (None, False) and param.name:
        setattr(ctx.ensure_object(Context), param.name, value)


def _kept(*names: str, **settings: Any) -> Callable[[F], F]:
    return click.option(*names, callback=_keep, expose_value=False, **settings)


def common_options(command: F) -> F:
    """The options that every command takes, too."""
    about_server = functools.partial(_kept, cls=ServerOption)
    for option in (
        _kept("--json", "as_json", is_flag=True, help="One JSON object a line."),
        about_server(
            "--state-dir",
            metavar="DIR",
            # What can't be read is said by the client, with what to do.
            type=click.Path(path_type=Path, readable=False),
            help="State directory of a local daemon.",
        ),
        about_server(
            "--server",
            metavar="ID",
            help="Over the bridge: which server, as `servers` lists it.",
        ),
        about_server(
            "--bridge", metavar="URL", help="HOST or wss://HOST:PORT of a bridge to it."
        ),
        about_server(
            "--cafile",
            metavar="FILE",
            type=click.Path(path_type=Path, exists=True),
            help="PEM that verifies the server.",
        ),
        about_server(
            "--key",
            metavar="FILE",
            # What can't be used is said by who reads it, with what to do.
            type=click.Path(path_type=Path, readable=False),
            help="Private key to log in by, in place of a token.",
        ),
        about_server(
            "--token", metavar="TOKEN", help="To log in by; SYSADMCTL_TOKEN otherwise."
        ),
        about_server("--url", metavar="URL", help="HOST, HOST:PORT or wss://HOST:PORT."),
        about_server(
            "--profile",
            metavar="NAME",
            shell_complete=_profiles,
            help="A server that `login` has kept, or `local`; SYSADMCTL_PROFILE otherwise.",
        ),
    ):
        command = option(command)
    return command


def run_work(work: Coroutine[Any, Any, int | None]) -> None:
    """Run it, and end with the status that it returns."""
    import asyncio

    raise click.exceptions.Exit(asyncio.run(work) or 0)
