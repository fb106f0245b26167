"""The command line of `sysadmctl`: options, commands, exit statuses. The work is elsewhere."""

from __future__ import annotations

import io
import math
import sys
from typing import Final

import click

from sysadmd import __version__, clean_start
from sysadmd.client import GARBLED, NotPermitted, Unreachable, no_sysadmd
from sysadmd.completion import completion
from sysadmd.ctl import class_commands, key_commands
from sysadmd.ctl.options import Context, common_options, run_work
from sysadmd.ctl.output import Printer
from sysadmd.errors import BadRequest, SysadmdError
from sysadmd.events import SYSTEMS

# Source: sysexits(3), EX_UNAVAILABLE and EX_NOPERM.
NO_SERVER: Final = 69
NOT_PERMITTED: Final = 77
INTERRUPTED: Final = 130
_STATUSES: Final[dict[type[SysadmdError], int]] = {
    NotPermitted: NOT_PERMITTED,
    Unreachable: NO_SERVER,
    BadRequest: 2,
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sysadmctl", message="%(prog)s %(version)s")
@common_options
def cli() -> None:
    """Talk to sysadmd: tail events, run jobs, see the machine's state."""


@cli.command()
@click.argument("systems", nargs=-1, type=click.Choice(SYSTEMS))
@click.option("--since", default="now", show_default=True, help='A cursor, or "oldest".')
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many events.")
@common_options
@click.pass_obj
def tail(context: Context, systems: tuple[str, ...], since: str, count: int | None) -> None:
    """Print events as they come; reconnect and resume without losing or doubling any."""
    from sysadmd.ctl.tail import run_tail

    run_work(run_tail(context.target(), context.printer, systems or SYSTEMS, since, count))


@cli.command(context_settings={"allow_interspersed_args": False})
@click.option("--id", help="The job's id; one is made up otherwise.")
@click.option("--queue", help="A configured queue; at once otherwise.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds.")
@click.option("--wait/--no-wait", default=True, show_default=True)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@common_options
@click.pass_obj
def run(
    context: Context,
    id: str | None,
    queue: str | None,
    timeout: float | None,
    wait: bool,
    command: tuple[str, ...],
) -> None:
    """Submit a job: CMD ARGS... [+ CMD ARGS...]...; wait for it and exit with its status."""
    from sysadmd.ctl.run import Submission, run_job

    if timeout is not None and not math.isfinite(timeout):
        raise click.UsageError("--timeout must be a number of seconds")
    order = Submission(id, queue, timeout, split_commands(command))
    run_work(run_job(context.target(), context.printer, order, wait))


def split_commands(words: tuple[str, ...]) -> list[list[str]]:
    """Words into commands at each `+` that stands alone. Raises: click.UsageError."""
    commands: list[list[str]] = [[]]
    for word in words:
        if word == "+":
            commands.append([])
        else:
            commands[-1].append(word)
    if not all(commands):
        raise click.UsageError("there is no command beside a +")
    return commands


@cli.command()
@click.option("--all", "everything", is_flag=True, help="Finished ones, too.")
@click.option("--queue")
@common_options
@click.pass_obj
def jobs(context: Context, everything: bool, queue: str | None) -> None:
    """List jobs."""
    from sysadmd.ctl.jobs import list_jobs

    run_work(list_jobs(context.target(), context.printer, everything, queue))


@cli.command()
@click.argument("id")
@common_options
@click.pass_obj
def show(context: Context, id: str) -> None:
    """Show all that is known of a job."""
    from sysadmd.ctl.jobs import show_job

    run_work(show_job(context.target(), context.printer, id))


@cli.command()
@click.argument("id")
@click.option(
    "--command", type=click.IntRange(min=0), help="Its number, from 0; all otherwise."
)
@click.option("--follow", is_flag=True, help="Go on until the job has finished.")
@common_options
@click.pass_obj
def log(context: Context, id: str, command: int | None, follow: bool) -> None:
    """Print a job's output."""
    from sysadmd.ctl.jobs import print_log

    run_work(print_log(context.target(), context.printer, id, command, follow))


@cli.command()
@click.argument("ids", nargs=-1, required=True)
@common_options
@click.pass_obj
def kill(context: Context, ids: tuple[str, ...]) -> None:
    """Kill jobs."""
    from sysadmd.ctl.jobs import kill_jobs

    run_work(kill_jobs(context.target(), context.printer, ids))


@cli.command()
@click.argument("action", type=click.Choice(("pause", "resume")))
@click.argument("name")
@common_options
@click.pass_obj
def queue(context: Context, action: str, name: str) -> None:
    """Pause a queue, or let it go on."""
    from sysadmd.ctl.jobs import change_queue

    run_work(change_queue(context.target(), context.printer, action, name))


@cli.command()
@common_options
@click.pass_obj
def state(context: Context) -> None:
    """Show host name and pools."""
    from sysadmd.ctl.state import show_state

    run_work(show_state(context.target(), context.printer))


@cli.command()
@click.option("--since", default="12h", show_default=True, help="A time, or how long ago: 7d.")
@click.option("--count", type=click.IntRange(min=1), help="The last so many alone.")
@common_options
@click.pass_obj
def audit(context: Context, since: str, count: int | None) -> None:
    """Show who did what."""
    from sysadmd.ctl.who import beginning, show_audit

    try:
        begin = beginning(since)
    except ValueError as error:
        raise click.UsageError(f"--since: {error}") from error
    run_work(show_audit(context.target(), context.printer, begin, count))


@cli.command()
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


@cli.command()
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


@cli.command()
@common_options
@click.pass_obj
def logout(context: Context) -> None:
    """Forget the server that `login` has kept."""
    from sysadmd.ctl.login import log_out

    run_work(log_out(context.printer))


@cli.command()
@common_options
@click.pass_obj
def servers(context: Context) -> None:
    """List the servers that can be reached over a --bridge."""
    from sysadmd.ctl.servers import list_servers

    run_work(list_servers(context.bridge_target(), context.printer))


@cli.command()
@common_options
@click.pass_obj
def identify(context: Context) -> None:
    """Ask a server what it is."""
    from sysadmd.ctl.login import identify_server

    run_work(identify_server(context.target(), context.printer))


for _group in class_commands.GROUPS:
    cli.add_command(_group)
cli.add_command(key_commands.key)
cli.add_command(completion)


def main() -> None:
    """Run `sysadmctl`; exits."""
    sys.exit(_main(sys.argv[1:]))


def _main(arguments: list[str]) -> int:
    try:
        clean_start.as_tool()
        for stream in (sys.stdout, sys.stderr):
            # Whatever a server says can be written, in any locale.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        result = cli.main(arguments, "sysadmctl", standalone_mode=False, obj=Context())
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt) as error:
        if isinstance(error.__context__, EOFError):
            return _fail(1, "the input ended before the answer; ask again on a terminal")
        return INTERRUPTED
    except SysadmdError as error:
        return _fail(_STATUSES.get(type(error), 1), error)
    except OSError as error:
        # Nobody reads our output, or there is no room for it.
        return 1 if isinstance(error, BrokenPipeError) else _fail(1, error)
    except GARBLED as error:
        # Replies are used as the protocol has them; those of a stranger may lack anything.
        return _fail(NO_SERVER, no_sysadmd(error))
    except RuntimeError as error:
        # Path.home() for an account without one.
        return _fail(1, error)
    return result if isinstance(result, int) else 0


def _fail(status: int, error: Exception | str) -> int:
    Printer(False).note(str(error))
    return status
