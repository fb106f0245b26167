"""The command line of `sysadmctl key`. The work is in `keys`."""

from __future__ import annotations

from pathlib import Path

import click

from sysadmd.ctl.help_text import HelpGroup
from sysadmd.ctl.options import Context, common_options, run_work

# What can't be read is said by who reads it.
_PATH = click.Path(path_type=Path, readable=False)
_file = click.option("--file", type=_PATH, help="key.pem beside the profile otherwise.")


@click.group(cls=HelpGroup)
@common_options
def key() -> None:
    """Keys that log in, in place of passwords and tokens."""


@key.command()
@_file
@common_options
@click.pass_obj
def new(context: Context, file: Path | None) -> None:
    """Make a key in a file of its own."""
    from sysadmd.ctl.keys import new_key

    raise click.exceptions.Exit(new_key(context.printer, file))


@key.command()
@_file
@common_options
@click.pass_obj
def show(context: Context, file: Path | None) -> None:
    """Print the public part of a key, which may be told to everybody."""
    from sysadmd.ctl.keys import show_key

    raise click.exceptions.Exit(show_key(context.printer, file))


@key.command()
@_file
@click.option("--public", type=_PATH, help="A public key in PEM, of anybody's.")
@click.option("--nickname", help="What it is called there; user@host otherwise.")
@click.option("--user", help="The account that it is for; your own otherwise.")
@common_options
@click.pass_obj
def register(
    context: Context,
    file: Path | None,
    public: Path | None,
    nickname: str | None,
    user: str | None,
) -> None:
    """Make a key known to a server, and log in by it from there on."""
    from sysadmd.ctl.keys import register_key

    if file is not None and public is not None:
        raise click.UsageError("there is one key: either --file or --public")
    target, printer = context.target(), context.printer
    work = register_key(target, printer, file=file, public=public, nickname=nickname, user=user)
    run_work(work)


@key.command("list")
@common_options
@click.pass_obj
def list_(context: Context) -> None:
    """List keys that are registered."""
    from sysadmd.ctl.keys import list_keys

    run_work(list_keys(context.target(), context.printer))


@key.command()
@click.argument("name")
@common_options
@click.pass_obj
def revoke(context: Context, name: str) -> None:
    """Let a key log in no more: by its fingerprint, or a nickname that no other has."""
    from sysadmd.ctl.keys import revoke_key

    run_work(revoke_key(context.target(), context.printer, name))
