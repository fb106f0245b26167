"""The command line of what `sysadmctl` watches. The work is in `state`, `who`."""

from __future__ import annotations

from typing import Final

import click

from sysadmd.ctl.options import Context, common_options, run_work
from sysadmd.ctl.tail_command import tail


@click.command()
@common_options
@click.pass_obj
def state(context: Context) -> None:
    """Show the host, its pools and what is wrong with them, and how many jobs there are."""
    from sysadmd.ctl.state import show_state

    run_work(show_state(context.target(), context.printer))


@click.command()
@click.option(
    "--since",
    metavar="TIME",
    default="12h",
    show_default=True,
    help="A time, or how long ago: 7d.",
)
@click.option(
    "-n",
    "--count",
    metavar="N",
    type=click.IntRange(min=1),
    help="Only the last so many.",
)
@click.option("--user", metavar="ACCOUNT", help="Only what this account did.")
@common_options
@click.pass_obj
def audit(context: Context, since: str, count: int | None, user: str | None) -> None:
    """Show who did what, and from where."""
    from datetime import datetime

    from sysadmd.ctl.moments import moment
    from sysadmd.ctl.who import show_audit

    try:
        begin = moment(since, datetime.now().astimezone())
    except ValueError as error:
        raise click.UsageError(f"--since: {error}") from error
    run_work(show_audit(context.target(), context.printer, begin, count, user))


@click.command()
@click.argument("address", required=False)
@common_options
@click.pass_obj
def unblock(context: Context, address: str | None) -> None:
    """Take passwords from an address again; without one, list those that are blocked."""
    from sysadmd.ctl.who import show_blocks, unblock_address

    target, printer = context.target(), context.printer
    if address is None:
        run_work(show_blocks(target, printer))
    else:
        run_work(unblock_address(target, printer, address))


COMMANDS: Final = (tail, state, audit, unblock)
