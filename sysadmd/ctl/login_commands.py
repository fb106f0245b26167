"""The command line of `sysadmctl`'s logins and servers. The work is in `login`, `servers`."""

from __future__ import annotations

from typing import Final

import click

from sysadmd.ctl.options import Context, common_options, run_work


@click.command()
@click.argument("address", metavar="URL")
@click.option("--user", help="Asked for otherwise.")
@click.option("--name", help="What the token is called there; user@host otherwise.")
@common_options
@click.pass_obj
def login(context: Context, address: str, user: str | None, name: str | None) -> None:
    """Exchange user and password for a token, or log in by --key; pin the server's key."""
    from sysadmd.ctl.login import log_in, log_in_by_key

    if context.key is None:
        raise click.exceptions.Exit(log_in(context.printer, address, user, name))
    if user is not None or name is not None or context.token:
        raise click.UsageError("with --key there is no --user, --name or --token")
    raise click.exceptions.Exit(log_in_by_key(context.printer, address, context.key))


@click.command()
@common_options
@click.pass_obj
def logout(context: Context) -> None:
    """Forget the server that `login` has kept."""
    from sysadmd.ctl.login import log_out

    run_work(log_out(context.printer))


@click.command()
@common_options
@click.pass_obj
def servers(context: Context) -> None:
    """List the servers that can be reached over a --bridge."""
    from sysadmd.ctl.servers import list_servers

    run_work(list_servers(context.bridge_target(), context.printer))


@click.command()
@common_options
@click.pass_obj
def identify(context: Context) -> None:
    """Ask a server what it is."""
    from sysadmd.ctl.login import identify_server

    run_work(identify_server(context.target(), context.printer))


COMMANDS: Final = (login, logout, servers, identify)
