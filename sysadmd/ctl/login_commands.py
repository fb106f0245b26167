"""The command line of `sysadmctl`'s logins and servers. The work is elsewhere."""

from __future__ import annotations

from typing import Final

import click

from sysadmd.ctl import completing
from sysadmd.ctl.options import Context, common_options, run_work


@click.command()
@click.argument(
    "address",
    metavar="[HOST[:PORT]|URL]",
    required=False,
    shell_complete=completing.profiles,
)
@click.argument("called", metavar="[NAME]", required=False)
@click.option("--user", metavar="ACCOUNT", help="Asked for otherwise.")
@click.option(
    "--name", metavar="NAME", help="What the token is called there; user@host otherwise."
)
@common_options
@click.pass_obj
def login(
    context: Context,
    address: str | None,
    called: str | None,
    user: str | None,
    name: str | None,
) -> None:
    """Log in to a server, and keep that as a profile called NAME.

    By user and password, which are exchanged for a token, by --key, or by a --token ("-" asks
    for it). The server's key is pinned. In place of a host the name of a profile logs in there
    again.
    """
    from sysadmd.ctl.login import log_in, log_in_by_key, log_in_by_token, place

    if None not in (called, context.profile) and called != context.profile:
        raise click.UsageError("there is one profile: either NAME or --profile")
    given = context.key or context.token
    if given and (user is not None or name is not None or (context.key and context.token)):
        raise click.UsageError(
            "with --key there is no --user, --name or --token, and with --token neither"
        )
    printer = context.printer
    where = place(context, address, called, printer)
    if context.key is not None:
        raise click.exceptions.Exit(log_in_by_key(printer, where, context.key))
    if context.token is not None:
        raise click.exceptions.Exit(log_in_by_token(printer, where, context.token))
    raise click.exceptions.Exit(log_in(printer, where, user, name))


@click.command()
@click.argument("name", required=False, shell_complete=completing.profiles)
@common_options
@click.pass_obj
def logout(context: Context, name: str | None) -> None:
    """Forget a server that `login` has kept: the one called NAME, or the one that is meant."""
    from sysadmd.ctl.login import log_out

    run_work(log_out(context.printer, context, name))


@click.command()
@click.argument("action", type=click.Choice(["use"]), required=False)
@click.argument("name", required=False, shell_complete=completing.profiles)
@common_options
@click.pass_obj
def profiles(context: Context, action: str | None, name: str | None) -> None:
    """List the servers that `login` has kept, or `use` one where none is named."""
    from sysadmd.ctl.profile_list import list_profiles, use_profile

    if action is None:
        raise click.exceptions.Exit(list_profiles(context.printer))
    if name is None:
        raise click.UsageError("say which: `sysadmctl profiles use NAME`")
    raise click.exceptions.Exit(use_profile(context.printer, name))


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


COMMANDS: Final = (login, logout, profiles, servers, identify)
